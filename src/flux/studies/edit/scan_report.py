"""What a scan shows: a grid of pictures with their scores, a table, and how keeping and making trade off."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean
from typing import Any

from PIL import Image

from flux.methods.stable_flow import Row
from flux.pictures.metrics import Score, outside_of, psnr_outside, score
from flux.studies.edit.gates import Told, gates_of, listed
from flux.studies.edit.jobs import EditJob, edited_size, jobs_of
from flux.studies.edit.method_report import shown_picture
from flux.studies.edit.requests import file_of, items_of, requests
from flux.studies.edit.scanning import AXES, ScanCell, cells_of
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import Judge, load_dino, load_judge
from flux.studies.folder import RunFolder
from flux.studies.pages.plots import Dot, trade_off_plot
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE, SHEET, about
from flux.studies.tables import csv_text

TABLE, PLOT = "scan.csv", "trade-off.png"

EQUAL = 60.0
"""So many dB count as equal in means: what is kept better, and equal pictures, count as these."""


@dataclass(frozen=True)
class ScanPair:
    """An edit of a cell: its number from 1, seed, prompts, and the files of its pictures.

    job: by a method, which it is.
    """

    edit: int
    seed: int
    prompts: tuple[str, str]
    source: str
    picture: str
    mask: str | None = None
    job: EditJob | None = None


@dataclass(frozen=True)
class ScanScore:
    """How an edit of a cell came out. kept: PSNR in dB to its source; None where nothing differs.

    All is found by what the pictures show of the source, without padding.
    outside: by a method, the share of the picture outside its mask; kept is what is kept there, as the model
    left it, and None too where there is nothing outside.
    made: whether all that was asked for is there, by the model's judge; None where it cannot tell.
    """

    cell: ScanCell
    pair: ScanPair
    score: Score
    kept: float | None
    made: bool | None
    outside: float | None = None

    @property
    def counted(self) -> float | None:
        """What is kept, as it counts in means, up to `EQUAL`; None where nothing was to be kept."""
        if self.outside == 0:
            return None
        return EQUAL if self.kept is None else min(self.kept, EQUAL)

    def row(self) -> list[object]:
        pair, figures = self.pair, self.score
        values = [self.cell.value(name) for name in self.cell.values]
        made = None if self.made is None else int(self.made)
        about_it = [pair.edit, pair.seed, pair.prompts[1], self.outside, self.kept, made]
        return [self.cell.number, *values, *about_it, figures.psnr, figures.similarity, figures.changed]


def report(spec: EditSpec, run: RunFolder) -> dict[str, Any]:
    """Score every edit of every cell, and write table, plot, sheet and page."""
    cells = cells_of(spec)
    dino, no_dino = load_dino(spec)
    sees, no_judge = load_judge(spec)
    scores = [_score(spec, run, cell, pair, dino, sees) for cell in cells for pair in _pairs(cell)]
    judged = any(each.made is not None for each in scores)
    titles = ["cell", *spec.scan.axes, "edit", "seed", "prompt", "outside", "kept", "made"]
    rows = [each.row() for each in scores]
    run.write_text(TABLE, csv_text([*titles, "psnr", "similarity", "changed"], rows))
    summary = {cell.number: _summary([each for each in scores if each.cell is cell]) for cell in cells}
    run.write_bytes(PLOT, _plot(spec, cells, summary, judged))
    run.save_picture(SHEET, _sheet(spec, run, scores))
    unchecked = [line for line in (no_dino, no_judge) if line]
    run.write_text(PAGE, _page(spec, run, scores, summary, judged, unchecked))
    for line in unchecked:
        print(line)
    return {
        "cells": [
            {"cell": cell.number, "title": cell.title, "folder": cell.folder, **summary[cell.number]}
            for cell in cells
        ],
        **({} if spec.method is None else {"sources": listed(_gates(run, cells))}),
    }


def _gates(run: RunFolder, cells: Sequence[ScanCell]) -> dict[str, Told | None]:
    """How well the sources of all cells come back, by their files."""
    return {
        cell.file(file): gate
        for cell in cells
        for file, gate in gates_of(cell.spec, replace(run, path=run.path / cell.folder)).items()
    }


def _pairs(cell: ScanCell) -> Iterator[ScanPair]:
    spec = cell.spec
    if spec.method is not None:
        for job in jobs_of(spec):
            prompts = (job.source.prompt, job.edit.prompt)
            files = [cell.file(job.file(kind)) for kind in ("source", "edit", "mask")]
            yield ScanPair(job.number, job.seed, prompts, *files, job)
        return
    for request in requests(spec):
        source = cell.file(file_of(spec, request.seed, Row("source")))
        for i, (number, item) in enumerate(items_of(spec, request.seed)):
            picture = cell.file(file_of(spec, request.seed, Row("edit", i)))
            yield ScanPair(number, request.seed, (request.source, item.prompt), source, picture)


def _score(
    spec: EditSpec, run: RunFolder, cell: ScanCell, pair: ScanPair, dino: Any, sees: Judge | None
) -> ScanScore:
    source = run.picture(pair.source)
    result = run.picture(pair.picture) if pair.job is None else shown_picture(run, pair.job, cell.file(""))
    seen = sees(pair.prompts, (source, result)) if sees else None
    if pair.job is not None:
        source, result = map(pair.job.frame.without_padding, (source, result))
    figures = score(source, result, dino=dino, pixel=spec.checks.pixel)
    kept, outside = figures.psnr, None
    if pair.job is not None:
        files = (pair.picture, pair.mask)
        edit, mask = (pair.job.frame.without_padding(run.picture(file)) for file in files)
        kept, outside = psnr_outside(source, edit, mask), float(outside_of(mask).mean())
    return ScanScore(cell, pair, figures, kept, None if seen is None else not seen[1], outside)


def _summary(scores: Sequence[ScanScore]) -> dict[str, float | None]:
    """Means over the edits of a cell, of what is known of them."""

    def mean(values: Iterator[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    return {
        "kept": mean(each.counted for each in scores),
        "made": mean(None if each.made is None else float(each.made) for each in scores),
        "similarity": mean(each.score.similarity for each in scores),
        "changed": mean(each.score.changed for each in scores),
    }


def _other(judged: bool) -> tuple[str, str]:
    """What stands against keeping: its key in a summary, and in words."""
    if judged:
        return "made", "edits made, by the judge"
    return "changed", "changed pixels, since no judge says what is made"


def _plot(spec: EditSpec, cells: list[ScanCell], summary: dict[int, dict], judged: bool) -> bytes:
    key, words = _other(judged)
    along = AXES[-1] if AXES[-1] in spec.scan.axes else list(spec.scan.axes)[-1]
    dots = [
        Dot(
            figures["kept"],
            figures[key],
            str(cell.number),
            ", ".join(cell.words(name) for name in cell.values if name != along) or "all cells",
        )
        for cell in cells
        for figures in [summary[cell.number]]
        if figures["kept"] is not None and figures[key] is not None
    ]
    where = ", outside the mask" if spec.method else ""
    kept = f"kept: PSNR to the source in dB{where}, {EQUAL:g} at most"
    return trade_off_plot(dots, x=kept, y=words)


# To look at


def _figures(each: ScanScore) -> str:
    kept = "equal" if each.kept is None else f"kept {each.kept:.1f} dB"
    if each.outside == 0:
        kept = "changed everywhere"
    made = {None: f"{each.score.changed:.0%} changed", True: "made", False: "not made"}[each.made]
    return f"{kept}, {made}"


def _grids(scores: Sequence[ScanScore]) -> Iterator[tuple[str, list[list[ScanScore]]]]:
    """By edit, seed and the axes before the last two: rows of cells, along the last axis."""

    def outer(each: ScanScore) -> tuple[object, ...]:
        values = list(each.cell.values)
        pair = each.pair
        return pair.source.split("/", 2)[2], pair.edit, pair.seed, *map(each.cell.words, values[:-2])

    for _, group in groupby(sorted(scores, key=lambda each: (outer(each), each.cell.number)), outer):
        found = list(group)
        first = found[0]
        names = list(first.cell.values)
        outside = [first.cell.words(name) for name in names[:-2]]
        title = ", ".join([first.pair.prompts[1], *outside])

        def row(each: ScanScore) -> object:
            return each.cell.words(list(each.cell.values)[-2]) if len(each.cell.values) > 1 else ""

        yield title, [list(line) for _, line in groupby(found, row)]


def _caption(each: ScanScore) -> str:
    inner = ", ".join(each.cell.words(name) for name in list(each.cell.values)[-2:])
    return f"{each.cell.number}: {inner};\n{_figures(each)}"


def _sheet(spec: EditSpec, run: RunFolder, scores: Sequence[ScanScore]) -> Image.Image:
    rows = [
        [SheetCell(run.picture(each.pair.picture), _caption(each)) for each in line]
        for _, grid in _grids(scores)
        for line in grid
    ]
    return contact_sheet(
        rows, f"{spec.model.name}, {spec.steps} steps: a scan of {', '.join(spec.scan.axes)}"
    )


def _page(
    spec: EditSpec,
    run: RunFolder,
    scores: Sequence[ScanScore],
    summary: dict[int, dict],
    judged: bool,
    unchecked: list[str],
) -> str:
    cells = cells_of(spec)
    grids = [
        (
            title,
            PagePicture(grid[0][0].pair.source, f"source, {grid[0][0].pair.prompts[0]}"),
            [[PagePicture(each.pair.picture, _caption(each)) for each in line] for line in grid],
        )
        for title, grid in _grids(scores)
    ]
    formats = {"kept": "{:.1f} dB", "made": "{:.0%}", "similarity": "{:.3f}", "changed": "{:.1%}"}
    known = [key for key in formats if any(figures[key] is not None for figures in summary.values())]
    rows = [
        [
            cell.number,
            *(cell.value(name) for name in cell.values),
            *(_told(formats[key], summary[cell.number][key]) for key in known),
        ]
        for cell in cells
    ]
    return render(
        "scan.html",
        title=", ".join(f"{len(values)} of {name}" for name, values in spec.scan.axes.items()),
        about={
            **about(spec, run),
            "size": edited_size(spec, "×"),
            "method": spec.method.name if spec.method else "side by side",
        },
        problems=unchecked,
        plot=PagePicture(
            PLOT,
            f"Each dot is a cell. To the right the source is kept better; upwards: "
            f"{_other(judged)[1]}. What is better in both lies above and to the right. In means what is kept "
            f"counts up to {EQUAL:g} dB, as equal pictures do; edits that changed all of the picture do not.",
        ),
        titles=["cell", *spec.scan.axes, *known],
        rows=rows,
        grids=grids,
        files={TABLE: "every edit of every cell as a table", SHEET: "all pictures on one sheet"},
        width=spec.width,
        recipe=spec.recipe(),
    )


def _told(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)
