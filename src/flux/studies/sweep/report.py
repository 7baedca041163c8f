"""What a sweep shows by itself: its noise floor, contact sheets, and a page."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from flux.pictures.metrics import changed_share, psnr
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE, SHEET, about
from flux.studies.sweep.cells import Cell, CellPart, Plan
from flux.studies.sweep.folder import TABLE
from flux.studies.sweep.spec import SkipSpec
from flux.studies.sweep.until import Until

ROWS, COLUMNS, WIDTH = 8, 20, 192
"""The most prompts and pictures of each on one sheet, and the width of a picture in pixels."""

LISTED = 20
"""The most failures that the page lists one by one."""

PIXEL = 8
"""A pixel counts as changed when a channel differs by more than so many of 255 levels."""


@dataclass(frozen=True)
class Noise:
    """How references differ from their repeats: PSNR in dB, None for equal pictures; changed share."""

    psnr: tuple[float | None, ...]
    changed: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """For `run.json`."""
        return {"pixel": PIXEL, "psnr": list(self.psnr), "changed": list(self.changed)}

    def words(self) -> str:
        """In one line."""
        total, unequal = len(self.psnr), [value for value in self.psnr if value is not None]
        start = f"noise floor: of {total} references drawn twice {total - len(unequal)} are equal"
        if not unequal:
            return start
        worst = f"PSNR {min(unequal):.1f} dB and {max(self.changed):.2%} of pixels changed at worst"
        return f"{start}, the others differ by {worst}"


def noise_floor(run: RunFolder, done: Collection[Cell]) -> Noise | None:
    """Compare references with their repeats; None where there are no pairs."""
    ratios, shares = [], []
    for cell in sorted((cell for cell in done if cell.repeat), key=lambda cell: cell.prompt):
        if (reference := Cell(cell.prompt, ())) in done:
            pair = run.picture(reference.file), run.picture(cell.file)
            ratio = psnr(*pair)
            ratios.append(None if ratio == float("inf") else ratio)
            shares.append(changed_share(*pair, PIXEL))
    return Noise(tuple(ratios), tuple(shares)) if ratios else None


@dataclass(frozen=True)
class SweepResult:
    """What came of a sweep.

    asked: what was to be made in the end. failed: why some cells could not be made, in a line. noise: None
    where it was not measured. until: what was decided when, in a sweep that stops then. halved: how many
    cells were made with fewer rows side by side, for want of memory.
    """

    asked: Plan
    done: Collection[Cell]
    failed: Mapping[Cell, str]
    noise: Noise | None
    until: Until | None = None
    halved: int = 0

    @property
    def complete(self) -> bool:
        return all(cell in self.done for cell in self.asked.cells)

    def record(self) -> dict[str, Any]:
        """For `run.json`."""
        counts = {"all": len(self.asked.cells), "made": len(self.done), "failed": len(self.failed)}
        counts |= {"halved": self.halved} if self.halved else {}
        decided = {"until": self.until.record(self.asked)} if self.until else {}
        return {"cells": counts, "noise_floor": self.noise and self.noise.record(), **decided}

    def words(self) -> Iterator[str]:
        """How it went, in lines."""
        if self.until:
            yield self.until.words(self.asked)
        if self.noise:
            yield self.noise.words()
        if self.halved:
            yield (
                f"{self.halved} cells were made with fewer prompts side by side than batch says, for want of "
                "memory, and may differ from others by a rounding: take a smaller batch"
            )
        if self.failed:
            first, error = next(iter(self.failed.items()))
            yield f"{len(self.failed)} cells {error} (first {first.file}); the same command tries them again"


def write_report(spec: SkipSpec, run: RunFolder, result: SweepResult) -> None:
    """The sheets and the page. Pictures that are not there leave their places empty."""
    asked, sheets = result.asked, []
    for number, (prompts, parts) in enumerate(_sheets(asked), start=1):
        rows = [_row(spec, run, result, prompt, parts) for prompt in prompts]
        rows = [row for row in rows if any(row)]
        if not rows:
            continue
        sheets.append(SHEET if number == 1 else f"sheet-{number:02}.png")
        beside = "references, sources" if asked.sources else "references"
        title = f"{beside}, and pictures with layers {asked.probe.done}"
        title = f"{spec.model.name}, {spec.steps} steps: {title}"
        run.save_picture(sheets[-1], contact_sheet(rows, title))
    facts = about(spec, run) | {"prompts": len(asked.prompts), "groups of layers": len(asked.parts)}
    problems = [f"{cell.file} {error}" for cell, error in result.failed.items()]
    if len(problems) > LISTED:
        problems[LISTED:] = [f"and {len(problems) - LISTED} more"]
    until = result.until
    page = render(
        "sweep.html",
        about=facts,
        noise=result.noise.words() if result.noise else "the noise floor was not measured",
        problems=problems,
        files=[*sheets, TABLE],
        decided=until.words(asked) if until else None,
        decisions=list(_decisions(spec, until)) if until else [],
        prompts=[
            (f"{prompt.text}, seed {prompt.seed}", list(_shown(spec, result, index)))
            for index, prompt in enumerate(asked.prompts)
        ],
        width=spec.width,
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)


def _decisions(spec: SkipSpec, until: Until) -> Iterator[Sequence[str]]:
    """Rows of the table of what was decided when: layers, verdict, pictures, mean and interval."""
    for part, verdict, decision in until.lines():
        name = caption_of(spec, part)
        if decision is None:
            yield name, verdict, "0", "", ""
        else:
            ends = decision.low, decision.high
            interval = "" if decision.n == 1 else "{:.3f} to {:.3f}".format(*ends)
            yield name, verdict, str(decision.n), f"{decision.mean:.3f}", interval


def _sheets(asked: Plan) -> Iterator[tuple[Sequence[int], Sequence[CellPart]]]:
    """Prompts and parts of each sheet."""
    columns = COLUMNS - 1 - bool(asked.sources)
    for start in range(0, len(asked.prompts), ROWS):
        for first in range(0, len(asked.parts), columns):
            prompts = range(start, min(start + ROWS, len(asked.prompts)))
            yield prompts, asked.parts[first : first + columns]


def _row(
    spec: SkipSpec, run: RunFolder, result: SweepResult, prompt: int, parts: Sequence[CellPart]
) -> list[SheetCell | None]:
    """A prompt's reference, its source where there is one, and its pictures with some parts changed."""
    row: list[SheetCell | None] = []
    for cell in _cells(result.asked, prompt, parts):
        caption = caption_of(spec, cell.part) if cell.part else result.asked.of(cell).text
        caption = f"source: {caption}" if cell.source else caption
        row.append(SheetCell(_small(run.picture(cell.file)), caption) if cell in result.done else None)
    return row


def _small(image: Image.Image) -> Image.Image:
    if image.width <= WIDTH:
        return image
    return image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)


def _shown(spec: SkipSpec, result: SweepResult, prompt: int) -> Iterator[PagePicture]:
    """A prompt's pictures, the reference first."""
    for cell in _cells(result.asked, prompt, result.asked.parts):
        if cell in result.done:
            caption = f"source: {result.asked.of(cell).text}" if cell.source else "reference"
            yield PagePicture(cell.file, caption_of(spec, cell.part) if cell.part else caption)


def _cells(asked: Plan, prompt: int, parts: Sequence[CellPart]) -> list[Cell]:
    sources = [Cell(prompt, source=True)] if asked.sources else []
    return [Cell(prompt), *sources, *(Cell(prompt, part) for part in parts)]


def caption_of(spec: SkipSpec, part: CellPart) -> str:
    """`layer 6, single.2`, or `layers 17+18`; with head and steps where it has them."""
    names = "+".join(map(str, part.layers))
    said = f"layers {names}"
    if len(part.layers) == 1:
        said = f"layer {names}, {spec.model.record.layers.name(part.layers[0])}"
    head = "" if part.head is None else f", head {part.head}"
    return said + head + ("" if part.window is None else ", steps {} to {}".format(*part.window))
