"""The engine that works on a cluster: Ray actors, one per device, each with a replica of the models.

Workers write pictures into the job's folder, which all machines must see under the same path; what comes back
is their digests. A task is given to a worker when it has none, so a slow one holds nobody up. A worker that
dies, or cannot work, gives its task back; a dead one is replaced, one that cannot work, for lack of memory
or of weights, is not. With the last worker the run ends. A task that has killed `TRIES` workers is yielded
with its error.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from flux.extras import need
from flux.studies.folder import RECORD
from flux.studies.sweep.cells import Task
from flux.studies.sweep.engines import TRIES, Done, Run, attempt
from flux.studies.sweep.make import Job, Maker

OBJECT_STORE = 80 * 2**20
"""Bytes of a local cluster's shared memory; Ray takes no less than 75 MiB, and next to none is needed."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray announces here what a later version will do; a worker without a GPU looks for none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def need_ray() -> Any:
    """The module `ray`; ImportError, in one line with the extra's name, where it is missing."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return need("ray", "ray", 'engine "ray"')


@contextmanager
def ray(job: Job, *, device: str, address: str | None = None, workers: int | None = None) -> Iterator[Run]:
    """See `flux.studies.sweep.engines`. device: cpu or cuda, the kind that each worker has one of.

    address: of a running cluster; None for one on this machine, which ends with the run. workers: None for
    one per GPU, or on CPUs for one. Raises ImportError without ray, ConnectionError where no cluster answers,
    ValueError for one without GPUs where they are asked for.
    """
    library = need_ray()
    ours = not library.is_initialized()
    if ours:
        _connect(library, address, device, workers)
    pool = None
    try:
        pool = _Pool(library, job, device, _count(library, device, workers))
        yield pool.run
    finally:
        if pool is not None:
            pool.close()
        if ours:
            library.shutdown()


def _connect(library: Any, address: str | None, device: str, workers: int | None) -> None:
    """Join the cluster, or start one that has as much as the workers take."""
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is not None:
        try:
            _reach(address)
            library.init(address=address, **quiet)
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConnectionError(f"no Ray cluster at {address}: {reason}") from None
        return
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    library.init(
        address="local",
        num_cpus=max(workers or 1, gpus),
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE,
        **quiet,
    )


def _reach(address: str) -> None:
    """Raise OSError where nothing answers at `host:port`; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _count(library: Any, device: str, workers: int | None) -> int:
    """How many workers there are to be; no more than the cluster has room for."""
    resources = library.cluster_resources()
    room = int(resources.get("GPU" if device == "cuda" else "CPU", 0))
    if not room:
        raise ValueError(f'engine "ray": the cluster has no {"GPU" if device == "cuda" else "CPU to spare"}')
    if workers is not None and workers > room:
        print(f"the cluster has room for {room} workers, not {workers}")
    count = min(room, workers or (room if device == "cuda" else 1))
    machines = sum(node["Alive"] for node in library.nodes())
    print(f"ray: workers: {count}, machines in the cluster: {machines}")
    return count


class Worker:
    """One replica of the models, in a process of its own. It is a Ray actor.

    threads: of the driver's torch, since bytes may depend on it. own: whether the user has set their number.
    """

    def __init__(self, job: Job, threads: int, own: bool):
        self.job, self.threads, self.own = job, threads, own
        self.maker: Maker | None = None

    def make(self, task: Task) -> Done:
        """The same as the local engine does; loads the models for the first task."""
        torch.set_num_threads(self.threads)
        if self.maker is None:
            self.maker = self._load()
        models = self.maker.models
        # As in `local.fitting`: a small model takes one thread.
        torch.set_num_threads(1 if models.spec.embedded and models.device.type == "cpu" else self.threads)
        return replace(attempt(self.maker.make, task), parts=self.maker.parts_of(task))

    def _load(self) -> Maker:
        if not (self.job.folder / RECORD).is_file():
            raise FileNotFoundError(
                f"{socket.gethostname()} does not see {self.job.folder}: put output on a folder that all "
                "machines share"
            )
        if self.own:
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        else:
            os.environ.pop("OMP_NUM_THREADS", None)  # which Ray has set
        return Maker(self.job)


class _Pool:
    """Workers, and the tasks they have. It lasts over several calls of `run`."""

    def __init__(self, library: Any, job: Job, device: str, count: int):
        self.ray = library
        # Never restarted by Ray: a task that is given again is given by us, which counts the tries.
        resources = {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0, "max_restarts": 0}
        self.actor = library.remote(Worker).options(scheduling_strategy="SPREAD", **resources)
        self.arguments = (job, torch.get_num_threads(), "OMP_NUM_THREADS" in os.environ)
        self.count = count
        self.workers: list[Any] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        waiting, deaths = deque(tasks), dict.fromkeys(tasks, 0)
        busy: dict[Any, tuple[Any, Task, float]] = {}
        while len(self.workers) < min(self.count, len(waiting)):
            self._started()
        idle = deque(self.workers)
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.popleft(), waiting.popleft()
                busy[worker.make.remote(task)] = worker, task, time.perf_counter()
            (ready,), _ = self.ray.wait(list(busy), num_returns=1)
            worker, task, start = busy.pop(ready)
            try:
                done = self.ray.get(ready)
            except self.ray.exceptions.RayTaskError as error:
                # What `attempt` does not hold against the task: the worker cannot work.
                waiting.appendleft(task)
                self._drop(worker, error.cause)
                continue
            except self.ray.exceptions.RayError as error:
                self.workers.remove(worker)
                idle.append(self._started())
                deaths[task] += 1
                if deaths[task] < TRIES:
                    print("a worker died; another one makes its batch")
                    waiting.appendleft(task)
                    continue
                said = next(iter(str(error).strip().splitlines()), type(error).__name__)
                done = Done(task, {}, time.perf_counter() - start, f"the worker died: {said}")
            else:
                idle.append(worker)
            yield done

    def _started(self) -> Any:
        self.workers.append(self.actor.remote(*self.arguments))
        return self.workers[-1]

    def _drop(self, worker: Any, error: BaseException) -> None:
        """Go on without a worker; raises its error if it was the last."""
        self.count -= 1
        self.workers.remove(worker)
        self.ray.kill(worker)
        if not self.workers:
            raise error from None
        print(f"a worker is given up, {len(self.workers)} are left: {type(error).__name__}: {error}")

    def close(self) -> None:
        for worker in self.workers:
            self.ray.kill(worker)
