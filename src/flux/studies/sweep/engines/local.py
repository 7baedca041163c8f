"""The engine that works in this process: one task after the other, or on a CPU several at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from PIL import Image

from flux.studies.sweep.cells import Task
from flux.studies.sweep.engines import Done, Run, Tried, attempt, tried
from flux.studies.sweep.make import Job, Maker, OnStep
from flux.studies.writer import Writer
from flux.weights.load import Models

MOST = 16
"""Threads of Python beyond which they would wait for each other."""


@contextmanager
def local(job: Job, *, workers: int | None = None, on_step: OnStep = lambda index: None) -> Iterator[Run]:
    """See `flux.studies.sweep.engines`. workers: tasks at work at a time, None for as many as are fastest.

    on_step: is told the steps of the task at work, where it is one at a time.
    """
    # Counted now: loading a small model sets it to 1.
    cores = torch.get_num_threads()
    makers: list[Maker] = []

    def run(tasks: Sequence[Task]) -> Iterator[Done]:
        if not tasks:
            return
        if not makers:
            makers.append(Maker(job))
        (maker,) = makers
        at_once = min(len(tasks), workers or fitting(maker.models, cores))
        if at_once > 1:
            yield from _in_threads(maker, tasks, at_once)
        else:
            yield from in_turn(maker, tasks, on_step)

    yield run


def in_turn(maker: Maker, tasks: Sequence[Task], on_step: OnStep = lambda index: None) -> Iterator[Done]:
    """The pictures of a task are written while those of the next one are made."""
    with Writer[Done](most=1) as writer:
        try:
            for task in tasks:
                made = tried(partial(maker.pictures, task, on_step))
                yield from writer.put(partial(_written, maker, task, made))
        except (Exception, KeyboardInterrupt):
            yield from writer.rest()  # what is made is listed before the run ends
            raise
        yield from writer.rest()


def _written(maker: Maker, task: Task, made: Tried[list[Image.Image]]) -> Done:
    if made.made is None:
        return Done(task, {}, made.seconds, made.error)
    done = attempt(lambda task: maker.save(task, made.made), task)
    return replace(done, seconds=made.seconds + done.seconds, parts=maker.parts_of(task))


def fitting(models: Models, cores: int) -> int:
    """How many tasks at a time are fastest.

    Matrices of a small model are too small to be shared among cores, so each core takes a task of its own;
    one thread each also keeps the bytes independent of the number of cores. Large models use all cores, and
    GPUs all of their own, for one task.
    """
    return min(cores, MOST) if models.spec.embedded and models.device.type == "cpu" else 1


def _in_threads(maker: Maker, tasks: Sequence[Task], at_once: int) -> Iterator[Done]:
    one_core_each = partial(torch.set_num_threads, 1)
    with ThreadPoolExecutor(at_once, initializer=one_core_each) as pool:
        futures = [pool.submit(attempt, maker.make, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
