"""Demo 2: a sweep of layers, from the spec to its cells."""

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from flux.device import pick_device
from flux.studies.folder import RunFolder, difference
from flux.studies.picture_run import COMMAND, Host, Progress
from flux.studies.run import Bars, changed, load, sampling_of, say_damage, say_made_already
from flux.studies.sweep.cells import Cell, Plan, Task
from flux.studies.sweep.conclude import conclude, result_of
from flux.studies.sweep.dry_run import estimate_sweep, rows_together
from flux.studies.sweep.engines import TRIES, Done, Run
from flux.studies.sweep.folder import CellRow, CellTable, done_cells
from flux.studies.sweep.make import Job
from flux.studies.sweep.merge import describe_merge, merge
from flux.studies.sweep.place import folder_of, open_sweep, plan_of, setting_of
from flux.studies.sweep.probe import check_own
from flux.studies.sweep.spec import SkipSpec
from flux.studies.sweep.until import Until
from flux.weights.load import Models


def make(spec: SkipSpec, host: Host = COMMAND) -> int:
    """Make, or finish, the sweep of a spec, or join its shards; returns the exit code, 1 where cells lack."""
    return merge(spec) if spec.merge else sweep(spec, host)


def describe(spec: SkipSpec, card: float | None = None) -> str:
    """What `--dry-run` says."""
    if spec.merge:
        return describe_merge(spec)
    check_own(spec)
    return estimate_sweep(spec, card)


def sweep(spec: SkipSpec, host: Host = COMMAND) -> int:
    """Make the cells that are not there, or not as they should be; returns the exit code."""
    start = time.perf_counter()
    check_own(spec)
    with open_sweep(spec, folder_of(spec), setting_of(spec)) as run:
        asked = plan_of(spec, run)
        done = done_cells(run.path, asked)
        until = Until.of(spec, run, asked) if spec.until is not None else None
        taken: list[Task] = []
        made = 0
        with (
            Bars(len(asked.cells), len(done), spec.steps) as bars,
            engine(spec, run, asked, bars, host) as work,
        ):
            for tasks in until.tasks() if until else [asked.tasks]:
                taken += tasks
                for each in work([task for task in tasks if not done.issuperset(task.cells)]):
                    rows = rows_of(each, asked, done)
                    CellTable(run.path).append(rows)
                    bars.made(len(rows))
                    host.watch(Progress(files=[cell.file for cell in each.sha256]))
                    made += len(rows)
        if run.finished and not made and not say_damage(run):
            say_made_already(run)
            return 0
        result = result_of(run, replace(asked, tasks=tuple(taken)), until)
        return conclude(spec, run, result, time.perf_counter() - start)


def engine(
    spec: SkipSpec, run: RunFolder, asked: Plan, bars: Bars, host: Host = COMMAND
) -> AbstractContextManager[Run]:
    """The engine that the spec names, which loads models when it is given its first task."""

    def on_step(index: int) -> None:
        bars.step(index)
        host.watch(Progress(index, steps=spec.steps))

    job = Job(
        folder=run.path,
        asked=asked,
        sampling=sampling_of(spec),
        load=partial(host.load, spec, asked.texts, rows_together(asked)),
        offload=spec.model.offload,
        weights=spec.model.weights,
    )
    if spec.engine.name == "local":
        from flux.studies.sweep.engines.local import local

        return local(job, workers=spec.engine.workers, on_step=on_step)
    from flux.studies.sweep.engines.ray import ray

    device = pick_device(spec.model.device).type
    # Each worker sees one GPU, which is cuda:0 to it.
    anywhere = changed(spec, model=changed(spec.model, device=device))
    rows = rows_together(asked)
    job = replace(job, load=partial(load_same, anywhere, run.setting, asked.texts, rows))
    return ray(job, device=device, address=spec.engine.address, workers=spec.engine.workers)


def load_same(spec: SkipSpec, setting: Mapping[str, Any], prompts: Sequence[str], rows: int = 1) -> Models:
    """Load the models on another machine; raises ValueError where it has other weights or another device."""
    here = setting_of(spec)
    if here != setting:
        said = difference({"spec": {}, "setting": here}, {}, setting)
        raise ValueError(f"{socket.gethostname()} has what is for {said}")
    return load(spec, prompts, rows)


def rows_of(done: Done, asked: Plan, before: set[Cell]) -> list[CellRow]:
    """The lines of the table for a task that is done with; cells that were whole before have theirs."""
    seconds = done.seconds / len(done.task.cells)
    error = f"failed {TRIES} times: {done.error}" if done.error else ""
    identities = {cell: asked.identity_in(part, cell) for part in done.parts for cell in part.cells}
    return [
        CellRow(cell, identities.get(cell, asked.identities[cell]), done.sha256.get(cell, ""), seconds, error)
        for cell in done.task.cells
        if cell not in before
    ]
