"""Jobs of a page: one at a time in one thread, whoever asked; each can be watched and stopped.

job = queue.put(work)          # work(job) -> the run's folder
for state in job.states():     # as often as something changes
    show(state)
job.cancel()                   # from any thread: it ends within a step
"""

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from flux.app.hearing import heard
from flux.outcome import EXIT_INTERRUPTED, EXIT_OK, ending
from flux.studies.picture_run import Progress

Phase = Literal["waiting", "working", "done", "failed", "stopped"]

THUMB = 160
"""The longer side, in pixels, of what is kept of each step."""
MOST_THUMBS = 60
SLOWEST = 1.0
"""Seconds after which a state is shown again, so that a page sees whether its reader is still there."""


@dataclass(frozen=True)
class JobState:
    """How a job stands. before: jobs in front of it. seen: pictures as they are behind the last step.

    thumbs: a small one of every step. files: made so far, names in the run's folder. lines: what was said.
    message: why it failed. folder: of the run, when it is done.
    """

    phase: Phase = "waiting"
    before: int = 0
    step: int | None = None
    steps: int | None = None
    word: str = ""
    seen: tuple[Image.Image, ...] = ()
    thumbs: tuple[Image.Image, ...] = ()
    files: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    message: str = ""
    folder: Path | None = None
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        return self.phase in ("done", "failed", "stopped")


class PageJob:
    """A job, from the page's side and from its own. `work` makes it and returns the folder of its run."""

    def __init__(self, work: Callable[["PageJob"], Path]):
        self.work = work
        self.state = JobState()
        self._changed = threading.Condition()  # over a lock that is its holder's to take again
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End it: at once while it waits, else behind the step that is at work."""
        with self._changed:
            self._cancelled.set()
            if self.state.phase == "waiting":
                self.update(phase="stopped", message="stopped before it began")

    def begin(self) -> bool:
        """Take it to work; False for one that was cancelled before."""
        with self._changed:
            if not self.cancelled:
                self.update(phase="working", before=0)
            return not self.cancelled

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def update(self, **changes: Any) -> None:
        with self._changed:
            self.state = replace(self.state, **changes)
            self._changed.notify_all()

    def states(self) -> Iterator[JobState]:
        """Its state now and whenever it has changed, up to the last one; what comes too fast is left out.

        Whoever stops to iterate before has the job cancelled.
        """
        try:
            while True:
                shown = self.state
                yield shown
                if shown.ended:
                    return
                with self._changed:
                    self._changed.wait_for(lambda shown=shown: self.state is not shown, timeout=SLOWEST)
        finally:
            if not self.state.ended:
                self.cancel()

    def watch(self, progress: Progress) -> None:
        """For `flux.studies.picture_run.Host`: takes in how far the run is; ends one that was cancelled."""
        if self.cancelled:
            raise KeyboardInterrupt
        files = (*(each.file for each in progress.pictures), *progress.files)
        changes: dict[str, Any] = {"files": self.state.files + files} if files else {}
        if progress.step is not None:
            changes |= {"step": progress.step, "steps": progress.steps, "word": progress.phase}
            if progress.preview is not None and (seen := tuple(progress.preview())):
                thumbs = (self.state.thumbs + (_thumb(seen[-1]),))[-MOST_THUMBS:]
                changes |= {"seen": seen, "thumbs": thumbs}
        self.update(**changes)
        if self.cancelled:
            raise KeyboardInterrupt


def _thumb(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((THUMB, THUMB))
    return small


class JobQueue:
    """A thread that does jobs, the first one first. first: is done before all of them, as loading models."""

    def __init__(self, first: Callable[[PageJob], Path] | None = None):
        self._waiting: deque[PageJob] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.loading: PageJob | None = None
        self.loading = None if first is None else self.put(first)
        self._thread = threading.Thread(target=self._go, name="jobs", daemon=True)
        self._thread.start()

    def put(self, work: Callable[[PageJob], Path]) -> PageJob:
        """Have a job done behind those that wait."""
        job = PageJob(work)
        with self._changed:
            self._waiting.append(job)
            self._count()
            self._changed.notify_all()
        return job

    def close(self) -> None:
        """Stop what is at work, drop what waits, and end the thread; what comes first is not waited for."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.cancel()
            self._changed.notify_all()
        if self.loading is None or self.loading.state.ended:
            self._thread.join(timeout=60)

    def _count(self) -> None:
        """Tell each that waits how many are before it; the first in the list is at work, or about to be."""
        loading = bool(self._waiting) and self._waiting[0] is self.loading
        for before, job in enumerate([job for job in self._waiting if not job.cancelled]):
            if job.state.phase == "waiting":
                job.update(before=before, word="the model is being loaded" if loading and before else "")

    def _go(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                job = self._waiting[0]
            if job.begin():
                _do(job)
            with self._changed:
                self._waiting.popleft()
                self._count()


def _do(job: PageJob) -> None:
    """Do a job to its end, whatever that is; what goes wrong is said in the command line's words."""
    start = time.perf_counter()
    said: list[str] = []

    def on_line(line: str, is_warning: bool) -> None:
        said.append(line)
        job.update(lines=(*job.state.lines, line))

    try:
        with heard(on_line), ending(stopped="stopped", lower="width, height or batch") as end:
            folder = job.work(job)
    except BaseException as fault:  # of ours: the page goes on, and the console has it whole
        traceback.print_exception(fault, file=sys.stderr)
        job.update(phase="failed", message=f"a fault of the program, {type(fault).__name__}: {fault}")
        return
    seconds = time.perf_counter() - start
    if end.code == EXIT_OK:
        job.update(phase="done", folder=folder, seconds=seconds)
    elif end.code == EXIT_INTERRUPTED:
        job.update(phase="stopped", message="stopped; the same spec goes on from here", seconds=seconds)
    else:
        message = said[-1] if said else "failed"
        job.update(phase="failed", message=message, lines=job.state.lines[:-1], seconds=seconds)
