"""A run that makes pictures, from its folder to its page: what is the same for texts, timesteps and edits.

A study says what its pictures are, how they are made and how they are shown; see `PictureRun`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from PIL import Image
from torch import Tensor

from flux.device import pick_device
from flux.finite import NotFinite
from flux.generate import Sampling, decode
from flux.pictures.files import to_pil
from flux.placement.modes import Offload
from flux.studies.card import card_lines
from flux.studies.cost import Work, estimate
from flux.studies.folder import RunFolder, difference, png_bytes
from flux.studies.machine import machine
from flux.studies.run import PAGE, Bars, load, open_run, say_damage, say_made_already, setting
from flux.studies.spec import Spec
from flux.studies.writer import Writer
from flux.weights.load import Models

S = TypeVar("S", bound=Spec)

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A picture that is made, and its file in the run's folder. about: texts that are kept in the file."""

    file: str
    image: Image.Image
    about: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        return png_bytes(self.image, self.about)


@dataclass(frozen=True)
class KeptFile:
    """A file of the run's folder that is no picture, and what is in it."""

    file: str
    data: bytes

    def content(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class Progress:
    """How far a run has come: a step, from 0, of the pictures at work is done; files are made.

    record: what `run.json` is to say of how they were made, from now on. told: lines to be said now.
    steps: of how many, where that is known. phase: what is done in these steps, in a word; empty for
    sampling. files: names of those that lie in the run's folder already.
    preview: makes pictures of how those at work stand now; costs time, and is called before the next step.
    """

    step: int | None = None
    pictures: Sequence[Picture | KeptFile] = ()
    record: Results = field(default_factory=dict)
    steps: int | None = None
    phase: str = ""
    files: Sequence[str] = ()
    told: Sequence[str] = ()
    preview: Callable[[], list[Image.Image]] | None = None


@dataclass(frozen=True)
class Host:
    """What makes runs and looks on: a command, by default, or a page that holds models and shows each step.

    load: gives the models of a spec for its prompts, to sample so many rows at a time. watch: is told of
    every progress, and ends the run by raising KeyboardInterrupt, as Ctrl-C does.
    """

    load: Callable[[Spec, Sequence[str], int], Models] = load
    watch: Callable[[Progress], None] = lambda progress: None


COMMAND = Host()


MOST_SEEN = 4
"""So many of the pictures at work are shown on the way; each has to be decoded."""


def look_at(models: Models, latents: Tensor, sampling: Sampling, offload: Offload) -> list[Image.Image]:
    """The first `MOST_SEEN` of packed latents (B, L, 64) as pictures; none where they are no numbers."""
    try:
        return [to_pil(each) for each in decode(models, latents[:MOST_SEEN], sampling, offload=offload)]
    except NotFinite:  # of which the run itself says more
        return []


def _write(run: RunFolder, pictures: Sequence[Picture | KeptFile], record: Results | None = None) -> int:
    """Write files that belong together, and what is known so far; returns how many."""
    run.write_files({each.file: each.content() for each in pictures})
    if record is not None:
        run.keep_record(record)
    return len(pictures)


def _how_long(run: RunFolder, results: Results) -> str:
    return f"{results['seconds']['all']:.1f} s; open {run.path / PAGE}"


@dataclass(frozen=True)
class PictureRun(Generic[S]):
    """How a study makes its run, as functions.

    work: what a spec asks for. pictures: of a spec, the models and the set of missing files, makes these, and
    yields `Progress` on the way; it may yield other files too, which are left alone. goes_on: whether it
    reads what the run's folder keeps, and takes that as well. report: shows the pictures in the folder and
    returns what was found, for `run.json`. notes: lines to be said before anything is made. closing: what is
    said at the end.
    """

    work: Callable[[S], Work]
    pictures: Callable[..., Iterator[Progress]]
    report: Callable[[S, RunFolder], Results]
    notes: Callable[[S], Iterable[str]] = lambda spec: ()
    closing: Callable[[RunFolder, Results], str] = _how_long
    goes_on: bool = False

    def make(self, spec: S, host: Host = COMMAND) -> None:
        """Make, or finish, the run of a spec."""
        start = time.perf_counter()
        with open_run(spec) as run:
            before = run.record() if run.finished else None
            if before and not say_damage(run, self.work(spec).every):
                say_made_already(run)
                return
            for line in self.notes(spec):
                print(line)
            seconds, made = self._make_pictures(spec, run, host)
            found = self.report(spec, run)
            seconds["all"] = time.perf_counter() - start
            results = {"seconds": seconds, **machine(pick_device(spec.model.device)), **made, **found}
            # What a run took is what it took to make it, not to mend it.
            run.finish({**results, "seconds": before["seconds"]} if before else results)
            print(self.closing(run, results))

    def describe(self, spec: S, card: float | None = None) -> str:
        """What `--dry-run` says; with `card`, of a card of so many GB too."""
        work = self.work(spec)
        more = [] if card is None else card_lines(spec, max(work.batches, default=1), card, work.held)
        return "\n".join([estimate(spec, work), *more])

    def _make_pictures(self, spec: S, run: RunFolder, host: Host) -> tuple[dict[str, float], Results]:
        """Make what is not there yet, or damaged; returns seconds by what they were spent on, and what is to
        be said of how it was made."""
        work = self.work(spec)
        files = work.every
        missing = {file for file in files if not run.is_whole(file)}
        if not missing:
            return {}, {}
        # Weights are read for it; a run that is not finished has been opened with the setting of now.
        if run.finished and run.setting != (now := setting(spec)):
            said = difference({"spec": {}, "setting": run.setting}, {}, now)
            raise ValueError(
                f"{run.path / min(missing)} is gone or damaged, and cannot be made again as it was, for this "
                f"is {said}: --overwrite makes the whole run again"
            )
        run.require_free(missing)
        left, record = set(missing), {}
        start = time.perf_counter()
        models = host.load(spec, work.prompts, max(work.batches, default=1))
        loaded = time.perf_counter()
        with Bars(len(files), len(files) - len(missing), spec.steps) as bars, Writer[int](most=2) as writer:
            for progress in self.pictures(spec, models, missing, *([run] if self.goes_on else [])):
                record |= progress.record
                for line in progress.told:
                    bars.say(line)
                if progress.step is not None:
                    bars.step(progress.step)
                host.watch(progress)
                wanted = [each for each in progress.pictures if each.file in left]
                known = dict(record) if progress.record and not run.finished else None
                if wanted or known is not None:
                    left -= {each.file for each in wanted}
                    bars.made(sum(writer.put(partial(_write, run, wanted, known))))
            bars.made(sum(writer.rest()))
        return {"loading": loaded - start, "pictures": time.perf_counter() - loaded}, record
