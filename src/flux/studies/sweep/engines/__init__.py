"""Engines do tasks. Each is a context manager that takes a job and gives a function `run`:

    with local(job) as run:
        for done in run(tasks):
            ...

`run` may be called again and again; models are loaded at the first task. Tasks are done in any order, and
their pictures lie in the job's folder when they are yielded. A task that raises is tried `TRIES` times in all
and then yielded with its error. What is no fault of a task, such as a full disk, too little memory or a GPU
that has failed, is raised: it would fail whatever comes next. Where a GPU's memory is too small for a task's
rows side by side, half of them are made after the other, down to one, and the cells' identities tell so. The
bytes of a task's pictures are the same in every engine, for the same rows side by side.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flux.outcome import is_device_failure
from flux.studies.sweep.cells import Cell, Task

TRIES = 3


@dataclass(frozen=True)
class Done:
    """A task that is done with: each cell's SHA-256, or the error of the last try. seconds: of that try.

    parts: the tasks with fewer rows that it was made in, where memory was too small for all.
    """

    task: Task
    sha256: Mapping[Cell, str]
    seconds: float
    error: str = ""
    parts: tuple[Task, ...] = ()


Run = Callable[[Sequence[Task]], Iterator[Done]]

T = TypeVar("T")


@dataclass(frozen=True)
class Tried(Generic[T]):
    """What became of the last try: what was made, or None and the error. seconds: of that try."""

    made: T | None
    seconds: float
    error: str = ""


def attempt(make: Callable[[Task], Mapping[Cell, str]], task: Task, tries: int = TRIES) -> Done:
    """Do a task, in several tries if need be."""
    last = tried(lambda: make(task), tries)
    return Done(task, last.made or {}, last.seconds, last.error)


def tried(work: Callable[[], T], tries: int = TRIES) -> Tried[T]:
    """Do the work, in several tries if need be. What is the machine's fault is raised."""
    for left in reversed(range(tries)):
        start = time.perf_counter()
        try:
            made, error = work(), ""
        except Exception as raised:
            if is_machines(raised):
                raise
            made, error = None, f"{type(raised).__name__}: {raised}"
        if not error or not left:
            return Tried(made, time.perf_counter() - start, error)
    raise AssertionError("the last try returns")


def is_machines(error: Exception) -> bool:
    """Whether an error is the machine's and no task's: memory, disk, a GPU that fails, a missing package."""
    if isinstance(error, OSError | MemoryError | ImportError) or is_device_failure(error):
        return True
    # On a CPU, torch says so in a plain RuntimeError.
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
