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
from flux.studies.sweep.cells import Cell, Group, Plan, label
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


def write_report(
    spec: SkipSpec,
    run: RunFolder,
    asked: Plan,
    done: Collection[Cell],
    failed: Mapping[Cell, str],
    noise: Noise | None,
    until: Until | None = None,
) -> None:
    """The sheets and the page. Pictures that are not there leave their places empty."""
    sheets = []
    for number, (prompts, groups) in enumerate(_sheets(asked), start=1):
        rows = [_row(spec, run, asked, done, prompt, groups) for prompt in prompts]
        rows = [row for row in rows if any(row)]
        if not rows:
            continue
        sheets.append(SHEET if number == 1 else f"sheet-{number:02}.png")
        title = f"{spec.model.name}, {spec.steps} steps: references, and pictures with layers skipped"
        run.save_picture(sheets[-1], contact_sheet(rows, title))
    facts = about(spec, run) | {"prompts": len(asked.prompts), "groups of layers": len(asked.groups)}
    problems = [f"{cell.file} {error}" for cell, error in failed.items()]
    if len(problems) > LISTED:
        problems[LISTED:] = [f"and {len(problems) - LISTED} more"]
    page = render(
        "sweep.html",
        about=facts,
        noise=noise.words() if noise else "the noise floor was not measured",
        problems=problems,
        files=[*sheets, TABLE],
        decided=until.words(asked) if until else None,
        decisions=list(_decisions(spec, until)) if until else [],
        prompts=[
            (f"{prompt.text}, seed {prompt.seed}", list(_shown(spec, asked, done, index)))
            for index, prompt in enumerate(asked.prompts)
        ],
        width=spec.width,
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)


def _decisions(spec: SkipSpec, until: Until) -> Iterator[Sequence[str]]:
    """Rows of the table of what was decided when: layers, verdict, pictures, mean and interval."""
    for group, verdict, decision in until.lines():
        name = caption_of(spec, group)
        if decision is None:
            yield name, verdict, "0", "", ""
        else:
            ends = decision.low, decision.high
            interval = "" if decision.n == 1 else "{:.3f} to {:.3f}".format(*ends)
            yield name, verdict, str(decision.n), f"{decision.mean:.3f}", interval


def _sheets(asked: Plan) -> Iterator[tuple[Sequence[int], Sequence[Group]]]:
    """Prompts and groups of each sheet."""
    for start in range(0, len(asked.prompts), ROWS):
        for first in range(0, len(asked.groups), COLUMNS - 1):
            prompts = range(start, min(start + ROWS, len(asked.prompts)))
            yield prompts, asked.groups[first : first + COLUMNS - 1]


def _row(
    spec: SkipSpec,
    run: RunFolder,
    asked: Plan,
    done: Collection[Cell],
    prompt: int,
    groups: Sequence[Group],
) -> list[SheetCell | None]:
    """A prompt's reference and its pictures under some groups."""
    row: list[SheetCell | None] = []
    for cell in (Cell(prompt, ()), *(Cell(prompt, group) for group in groups)):
        caption = caption_of(spec, cell.group) if cell.group else asked.of(cell).text
        row.append(SheetCell(_small(run.picture(cell.file)), caption) if cell in done else None)
    return row


def _small(image: Image.Image) -> Image.Image:
    if image.width <= WIDTH:
        return image
    return image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)


def _shown(spec: SkipSpec, asked: Plan, done: Collection[Cell], prompt: int) -> Iterator[PagePicture]:
    """A prompt's pictures, the reference first."""
    for cell in (Cell(prompt, ()), *(Cell(prompt, group) for group in asked.groups)):
        if cell in done:
            yield PagePicture(cell.file, caption_of(spec, cell.group) if cell.group else "reference")


def caption_of(spec: SkipSpec, group: Group) -> str:
    """`layer 6, single.2`, or `layers 17+18`."""
    if len(group) > 1:
        return f"layers {label(group)}"
    return f"layer {group[0]}, {spec.model.record.layers.name(group[0])}"
