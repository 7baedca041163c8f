"""Demo 2: a sweep of layers, from the spec to pictures, table, sheets and page."""

import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flux.device import pick_device, pick_dtype
from flux.models import configs
from flux.studies.folder import RunFolder, difference
from flux.studies.run import PAGE, Bars, load, machine, sampling_of, weights_folder
from flux.studies.sweep.cells import Cell, Plan, Task, plan, shard
from flux.studies.sweep.engines import TRIES, Done, Run
from flux.studies.sweep.folder import Row, Table, done_cells
from flux.studies.sweep.make import Job
from flux.studies.sweep.report import noise_floor, write_report
from flux.studies.sweep.spec import SkipSpec
from flux.studies.sweep.until import Until
from flux.weights.identity import weights_id
from flux.weights.load import Models

INCOMPLETE = 1
"""The exit code of a sweep that lacks cells."""


def run_sweep(spec: SkipSpec) -> int:
    """Make, or finish, the sweep of a spec; returns the exit code, 1 where cells could not be made."""
    start = time.perf_counter()
    run = open_sweep(spec)
    asked = plan_of(spec, run)
    done = done_cells(run.path, asked)
    until = Until.of(spec, run, asked) if spec.until is not None else None
    taken: list[Task] = []
    made = 0
    with Bars(len(asked.cells), len(done), spec.steps) as bars, engine(spec, run, asked, bars) as work:
        for tasks in until.tasks() if until else [asked.tasks]:
            taken += tasks
            for each in work([task for task in tasks if not done.issuperset(task.cells)]):
                rows = rows_of(each, asked, done)
                Table(run.path).append(rows)
                bars.made(len(rows))
                made += len(rows)
    if run.finished and not made and (spec.shard or (run.path / PAGE).is_file()):
        print(f"made already: {run.path / PAGE} (--overwrite makes it again)")
        return 0
    return conclude(spec, run, replace(asked, tasks=tuple(taken)), time.perf_counter() - start, until)


def open_sweep(spec: SkipSpec) -> RunFolder:
    """The folder of the sweep, or of its shard; says so if it is not the one asked for."""
    run = RunFolder.open(
        folder_of(spec), spec.recipe(), setting_of(spec), overwrite=spec.overwrite, apart=True
    )
    if run.note:
        print(f"{run.note}; this run goes to {run.path}")
    return run


def folder_of(spec: SkipSpec) -> Path:
    """Where the spec wants its cells: `<output>`, or for a shard `<output>.shards/i-of-n`."""
    numbers = spec.shard_numbers()
    return spec.output if numbers is None else shards_folder(spec) / "{}-of-{}".format(*numbers)


def shards_folder(spec: SkipSpec) -> Path:
    return spec.output.with_name(f"{spec.output.name}.shards")


def setting_of(spec: SkipSpec) -> dict[str, Any]:
    """What decides the bytes of cells beside the recipe. It is the same on every machine that may share."""
    device = pick_device(spec.model.device)
    dtype = str(pick_dtype(spec.model.dtype, device)).removeprefix("torch.")
    weights = weights_id(configs[spec.model.name], weights_folder(spec))
    return {"device": device.type, "dtype": dtype, "weights": weights}


def plan_of(spec: SkipSpec, run: RunFolder) -> Plan:
    """What is to be made, of the whole sweep or of the spec's shard of it."""
    whole, numbers = plan(run.recipe, run.setting), spec.shard_numbers()
    return whole if numbers is None else replace(whole, tasks=tuple(shard(whole.tasks, *numbers)))


def engine(spec: SkipSpec, run: RunFolder, asked: Plan, bars: Bars) -> AbstractContextManager[Run]:
    """The engine that the spec names, which loads models when it is given its first task."""
    job = Job(
        folder=run.path,
        prompts=asked.prompts,
        needed=tuple(sorted({index for task in asked.tasks for index in task.prompts})),
        sampling=sampling_of(spec),
        load=partial(load, spec),
        offload=spec.model.offload,
    )
    if spec.engine.name == "local":
        from flux.studies.sweep.engines.local import local

        return local(job, workers=spec.engine.workers, on_step=bars.step)
    from flux.studies.sweep.engines.ray import ray

    device = pick_device(spec.model.device).type
    # Each worker sees one GPU, which is cuda:0 to it.
    anywhere = spec.model_copy(update={"model": spec.model.model_copy(update={"device": device})})
    job = replace(job, load=partial(load_same, anywhere, run.setting))
    return ray(job, device=device, address=spec.engine.address, workers=spec.engine.workers)


def load_same(spec: SkipSpec, setting: Mapping[str, Any]) -> Models:
    """Load the models on another machine; raises ValueError where it has other weights or another device."""
    here = setting_of(spec)
    if here != setting:
        said = difference({"spec": {}, "setting": here}, {}, setting)
        raise ValueError(f"{socket.gethostname()} has what is for {said}")
    return load(spec)


def rows_of(done: Done, asked: Plan, before: set[Cell]) -> list[Row]:
    """The lines of the table for a task that is done with; cells that were whole before have theirs."""
    seconds = done.seconds / len(done.task.cells)
    error = f"failed {TRIES} times: {done.error}" if done.error else ""
    return [
        Row(cell, asked.identities[cell], done.sha256.get(cell, ""), seconds, error)
        for cell in done.task.cells
        if cell not in before
    ]


def conclude(
    spec: SkipSpec,
    run: RunFolder,
    asked: Plan,
    seconds: float,
    until: Until | None = None,
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Measure the noise floor, write sheets and page, and say how it went; returns the exit code.

    facts: about the machine that made the cells; None for this one.
    """
    done = done_cells(run.path, asked)
    missing = [cell for cell in asked.cells if cell not in done]
    errors = {row.cell: row.error for row in Table(run.path).rows()}
    failed = {cell: errors[cell] for cell in missing if errors.get(cell)}
    noise = noise_floor(run, done)
    # A shard's pictures are shown when it is joined with the others.
    if spec.shard is None:
        write_report(spec, run, asked, done, failed, noise, until)
    counts = {"all": len(asked.cells), "made": len(done), "failed": len(failed)}
    facts = machine(pick_device(spec.model.device)) if facts is None else facts
    results = {"seconds": {"all": seconds}, **facts, "cells": counts, "noise_floor": noise and noise.record()}
    if until is not None:
        results["until"] = until.record(asked)
    run.finish(results, complete=not missing)
    print(f"{len(done)} of {len(asked.cells)} cells are there, after {seconds:.1f} s")
    if until is not None:
        print(until.words(asked))
    if noise:
        print(noise.words())
    if failed:
        first, error = next(iter(failed.items()))
        print(f"{len(failed)} cells {error} (first {first.file}); the same command tries them again")
    place = f"in {run.path}, to be joined by --merge" if spec.shard else f"open {run.path / PAGE}"
    print(place)
    return INCOMPLETE if missing else 0
