"""The engine that works on a cluster, with real Ray processes: bytes, lost workers, failures, mistakes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import helpers_demos
import helpers_models
import pytest
from helpers_demos import save_clone, small_models
from test_demos import ROOT, environment, files, load_demo
from test_sweep import arguments, cells, run_demo

from flux.generate import Sampling
from flux.studies.sweep import make
from flux.studies.sweep.cells import Cell, CellPart, Plan, Prompt, Task, tasks
from flux.studies.sweep.engines import Done
from flux.studies.sweep.engines.local import local
from flux.studies.sweep.engines.ray import OBJECT_STORE, Worker, need_ray, ray
from flux.studies.sweep.folder import read_sweep
from flux.util import Models

try:
    library = need_ray()
except ImportError:
    library = None
needs_ray = pytest.mark.skipif(library is None, reason='ray is not installed: pip install "flux[ray]"')

SAMPLING = Sampling(steps=2, guidance=3.5, width=32, height=32)
TASKS, TRAP = tasks(6, [CellPart((0,)), CellPart((3,)), CellPart((1, 2))], 2, 2), Task((0, 1), (3,))


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine, whose workers know the functions of these files."""
    library.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE,
    )
    for module in (sys.modules[__name__], helpers_demos, helpers_models):
        library.cloudpickle.register_pickle_by_value(module)
    yield
    library.shutdown()


@pytest.fixture
def job(tmp_path) -> Callable[..., make.Job]:
    """`job("a", load)` is one in a folder of its own; `load` returns the models."""

    def new(name: str, load: Callable[[], Models] = small_models) -> make.Job:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text("{}")
        prompts = tuple(Prompt(f"a {number}", number) for number in range(6))
        asked = Plan(prompts, (), (Task(tuple(range(6))),), {})
        return make.Job(folder, asked, SAMPLING, load)

    return new


def load_and_tell(told: Path) -> Models:
    """Load, and name the process in a file."""
    told.mkdir(exist_ok=True)
    (told / str(os.getpid())).touch()
    return small_models()


def load_a_trap() -> Models:
    """Models of a process that ends when it is to make TRAP."""
    sound = make.make_task

    def trap(models, texts, task, *others, **options):
        if task == TRAP:
            os._exit(7)
        return sound(models, texts, task, *others, **options)

    make.make_task = trap
    return small_models()


def load_but_once(told: Path) -> Models:
    """The first worker cannot load."""
    try:
        told.mkdir()
    except FileExistsError:
        return small_models()
    raise MemoryError("too small a machine")


def load_nothing() -> Models:
    raise ValueError("other weights")


def digests(done: list[Done]) -> dict[Cell, str]:
    return {cell: sha for each in done for cell, sha in each.sha256.items()}


# With processes


@needs_ray
def test_the_same_bytes_as_local_whatever_fails_and_whoever_dies(cluster, job, tmp_path, capsys):
    with local(job("local")) as run:
        expected = digests(list(run(TASKS)))
    there, told = job("ray", partial(load_and_tell, tmp_path / "told")), tmp_path / "told"
    with ray(there, device="cpu", workers=5) as run:
        # No layer has the number 99.
        first = list(run([*TASKS[:3], Task((0, 1), (99,))]))
        pids = [int(file.name) for file in told.iterdir()]
        second = []
        # The same workers go on, until one is killed.
        for done in run(TASKS[3:]):
            second.append(done)
            if len(second) == 2:
                os.kill(pids[0], signal.SIGKILL)
    # The dead worker's successor may come when all is done already.
    assert len(pids) == 2 and {int(file.name) for file in told.iterdir()} >= set(pids)
    (failed,) = (each for each in [*first, *second] if each.error)
    assert failed.task.part.layers == (99,) and "layer 99 does not exist" in failed.error
    assert {each.task for each in [*first, *second]} == {*TASKS, failed.task}
    assert digests([*first, *second]) == expected
    assert files(there.folder) == {"run.json", *(cell.file for cell in expected)}
    # Of a death, Ray says a line of its own.
    assert [line for line in capsys.readouterr().out.splitlines() if "(raylet)" not in line] == [
        "the cluster has room for 2 workers, not 5",
        "ray: workers: 2, machines in the cluster: 1",
        "a worker died; another one makes its batch",
    ]
    assert library.is_initialized()


@needs_ray
def test_a_batch_that_kills_three_workers_is_given_up(cluster, job):
    with ray(job("ray", load_a_trap), device="cpu") as run:
        found = {done.task: done for done in run([TRAP, *TASKS[:2]])}
    assert set(found) == {TRAP, *TASKS[:2]}
    bad = found.pop(TRAP)
    assert bad.error.startswith("the worker died") and "\n" not in bad.error and not bad.sha256
    assert all(done.sha256 and not done.error for done in found.values())


@needs_ray
def test_a_worker_that_cannot_work_leaves_it_to_the_others(cluster, job, tmp_path, capsys):
    with ray(job("ray", partial(load_but_once, tmp_path / "told")), device="cpu", workers=2) as run:
        found = list(run(TASKS[:3]))
    assert {each.task for each in found} == set(TASKS[:3]) and not any(each.error for each in found)
    assert "a worker is given up, 1 are left: MemoryError: too small a machine" in capsys.readouterr().out
    with ray(job("none", load_nothing), device="cpu") as run, pytest.raises(ValueError) as error:
        list(run(TASKS))
    assert str(error.value) == "other weights"


@needs_ray
def test_no_gpu_where_gpus_are_asked_for(cluster, job):
    asked = pytest.raises(ValueError, match='engine "ray": the cluster has no GPU')
    with asked, ray(job("ray"), device="cuda"):
        pass


@needs_ray
def test_the_demo_with_a_cluster_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "my-prompts.json").write_text('["a red hat", "a boat on the sea", "the sky"]')
    monkeypatch.chdir(tmp_path)
    argv = arguments(save_clone(tmp_path / "clone"))
    assert load_demo("demo_2_skip").main([*argv, "--output", "local"]) == 0
    running = run_demo(*argv, "--engine", "ray", "--output", "ray", cwd=tmp_path)
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert "15 of 15 cells are there" in out and len(out.splitlines()) == 4
    assert "ray" not in err.lower(), err
    assert cells(tmp_path / "ray") == cells(tmp_path / "local")
    assert read_sweep(tmp_path / "ray").problems == ()


# Without


def test_a_folder_that_is_not_shared_is_named(job):
    there = job("ray")
    (there.folder / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match="does not see .*put output on a folder that all machines"):
        Worker(there, 1, False).make(TASKS[0])
    assert files(there.folder) == set()


def test_a_worker_computes_in_as_many_threads_as_the_local_engine(job, monkeypatch):
    import torch

    before, seen = torch.get_num_threads(), []
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # as Ray sets it

    def load():
        seen.append((torch.get_num_threads(), "OMP_NUM_THREADS" in os.environ))
        raise ZeroDivisionError

    there = job("ray", load)
    try:
        for own in (False, True):
            with pytest.raises(ZeroDivisionError):
                Worker(there, 2, own).make(TASKS[0])
        assert seen == [(2, False), (2, True)]
    finally:
        torch.set_num_threads(before)


def test_without_ray_the_extra_is_named_before_torch(tmp_path):
    demo = ROOT / "demos" / "demo_2_skip.py"
    code = (
        "import runpy, sys; sys.modules |= {'ray': None, 'torch': None}\n"
        "sys.argv = ['demo', '--prompts', 'a', '--engine', 'ray']\n"
        f"runpy.run_path({str(demo)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == 'engine "ray" needs ray: pip install "flux[ray]"\n'
    assert files(tmp_path) == set()


@needs_ray
def test_no_cluster_at_an_address(tmp_path):
    argv = ["--prompts", "a", "--engine.name", "ray", "--engine.address", "127.0.0.1:1"]
    running = run_demo(*argv, cwd=tmp_path)
    out, err = running.communicate()
    assert running.returncode == 2 and out == ""
    assert err.startswith("no Ray cluster at 127.0.0.1:1: ") and err.count("\n") == 1
