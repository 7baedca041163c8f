"""What demo 3 writes of pictures without a sweep: each with each, or ranked by one of them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flux.pictures.metrics import scaled
from flux.studies.folder import RunFolder
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet, heat
from flux.studies.run import PAGE, SHEET
from flux.studies.similarity.copies import small_copy
from flux.studies.similarity.inputs import Comparison, Ranking
from flux.studies.similarity.measures import MEASURES, Figures, Pair
from flux.studies.similarity.places import printable
from flux.studies.similarity.spec import COSINES, DinoSpec
from flux.studies.similarity.tables import figure_cells, figure_titles
from flux.studies.tables import csv_text

ROWS = "similarity.csv"
MOST = 16
"""A sheet and a page show so many pictures a side; the table has all."""

BRIGHTEST_PSNR = 50.0
"""In dB: as good as equal, for the colours of a sheet."""

PairFigures = Mapping[Pair, Figures]


def report_matrix(spec: DinoSpec, run: RunFolder, comparison: Comparison) -> list[str]:
    """The table, a sheet and the page of pictures against pictures; returns what to say of them."""
    asked, figures = comparison.inputs, comparison.figures
    titles = ["a", "b", *figure_titles(spec.metrics)]
    lines = [[*map(printable, pair), *figure_cells(spec.metrics, figures[pair])] for pair in asked.pairs]
    run.write_text(ROWS, csv_text(titles, lines))
    rows, columns = asked.rows[:MOST], asked.columns[:MOST]
    shown = _copies(run, dict.fromkeys((*rows, *columns)))
    problems = [*comparison.problems]
    if len(asked.rows) > MOST or len(asked.columns) > MOST:
        problems.append(f"Shown are the first {MOST} pictures of each side; {ROWS} has all.")
    run.save_picture(SHEET, _matrix_sheet(spec, run, comparison, shown))
    tables = {
        MEASURES[metric]: [
            (shown[a], [_text(metric, _between(figures, a, b, metric)) for b in columns]) for a in rows
        ]
        for metric in spec.metrics
    }
    page = render(
        "matrix.html",
        title=f"{len(asked.rows)} × {len(asked.columns)} pictures",
        about=_about(spec, comparison),
        problems=problems,
        columns=[shown[path] for path in columns],
        tables=tables,
        files={ROWS: f"{ROWS}, a row for each pair", SHEET: "all on one sheet"},
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)
    if len(asked.pairs) > 10:
        return [f"{len(asked.pairs)} pairs"]
    return [f"{name_of(a)} and {name_of(b)}: {_sentence(spec, figures[a, b])}" for a, b in asked.pairs]


def report_ranking(spec: DinoSpec, run: RunFolder, comparison: Comparison) -> list[str]:
    """The table, a sheet and the page of pictures in the order of their similarity to one."""
    asked, figures = comparison.inputs, comparison.figures
    ordered = ranking(asked, figures, spec.metrics[0])
    titles = ["rank", "picture", *figure_titles(spec.metrics)]
    lines = [
        [rank, printable(path), *figure_cells(spec.metrics, figures[asked.picture, path])]
        for rank, path in enumerate(ordered, start=1)
    ]
    run.write_text(ROWS, csv_text(titles, lines))
    most = ordered[: MOST * 4]
    copies = _copies(run, dict.fromkeys((asked.picture, *most)))
    shown = [
        PagePicture(
            copies[path].file, f"{rank}. {name_of(path)}: {_sentence(spec, figures[asked.picture, path])}"
        )
        for rank, path in enumerate(most, start=1)
    ]
    problems = [*comparison.problems]
    if len(ordered) > len(most):
        problems = [*problems, f"Shown are the {len(most)} most similar pictures; {ROWS} has all."]
    cells = [SheetCell(run.picture(each.file), each.caption) for each in shown]
    first = SheetCell(run.picture(copies[asked.picture].file), f"the picture: {name_of(asked.picture)}")
    sheet = [[first], *(cells[start : start + 6] for start in range(0, len(cells), 6))]
    run.save_picture(SHEET, contact_sheet(sheet, "Most similar first"))
    picture = copies[asked.picture]
    page = render(
        "ranking.html",
        title=f"{len(ordered)} pictures by similarity to {printable(Path(asked.picture.name))}",
        about=_about(spec, comparison),
        problems=problems,
        picture=picture,
        ranked=shown,
        files={ROWS: f"{ROWS}, a row for each picture", SHEET: "all on one sheet"},
        width=run.picture(picture.file).width,
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)
    return [each.caption for each in shown[:5]]


def ranking(asked: Ranking, figures: PairFigures, metric: str) -> list[Path]:
    """The pictures, most similar first; equal ones in their own order, those without a figure last."""

    def place(path: Path) -> float:
        value = figures[asked.picture, path][metric]
        return math.inf if value is None else -value

    return sorted(asked.against, key=place)


def name_of(path: Path) -> str:
    """A picture's name with that of its folder, since names repeat between folders; in one line."""
    return printable(Path(path.parent.name, path.name))


def _copies(run: RunFolder, paths: Mapping[Path, None]) -> dict[Path, PagePicture]:
    """Small copies in the run's folder, numbered: a picture's own name may be too long for another folder."""
    shown = {}
    for number, path in enumerate(paths, start=1):
        file = f"pictures/{number:03}.png"
        run.save_picture(file, small_copy(path, 256))
        shown[path] = PagePicture(file, name_of(path))
    return shown


def _between(figures: PairFigures, a: Path, b: Path, metric: str) -> float | None:
    """The figure of two pictures, whichever came first; infinity or 1 for a picture and itself."""
    if a == b:
        return math.inf if metric == "psnr" else 1.0
    return (figures.get((a, b)) or figures[b, a])[metric]


def _text(metric: str, value: float | None) -> str:
    """`0.934 (0.967)`, with a cosine's other scale beside it."""
    if value is None:
        return "not comparable"
    if metric == "psnr":
        return "equal" if math.isinf(value) else f"{value:.1f} dB"
    return f"{value:.3f} ({scaled(value):.3f})" if metric in COSINES else f"{value:.3f}"


def _sentence(spec: DinoSpec, figures: Figures) -> str:
    return ", ".join(f"{MEASURES[metric]} {_text(metric, figures[metric])}" for metric in spec.metrics)


def _matrix_sheet(
    spec: DinoSpec, run: RunFolder, comparison: Comparison, shown: Mapping[Path, PagePicture]
) -> Image.Image:
    """Thumbnails above and at the left, a field for each pair, the brighter the more alike."""
    asked, metric = comparison.inputs, spec.metrics[0]

    def thumbnail(path: Path) -> SheetCell:
        image = run.picture(shown[path].file)
        image.thumbnail((96, 96))
        return SheetCell(image, shown[path].caption)

    def field(a: Path, b: Path) -> SheetCell:
        value = _between(comparison.figures, a, b, metric)
        level = 0.0 if value is None else value / (BRIGHTEST_PSNR if metric == "psnr" else 1)
        return SheetCell(heat(np.full((96, 96), min(max(level, 0), 1)), 1.0), _text(metric, value))

    columns = asked.columns[:MOST]
    rows = [[None, *map(thumbnail, columns)]]
    rows += [[thumbnail(a), *(field(a, b) for b in columns)] for a in asked.rows[:MOST]]
    scale = " (in brackets (cos + 1) / 2)" if metric in COSINES else ""
    return contact_sheet(rows, f"{MEASURES[metric]}{scale}")


def _about(spec: DinoSpec, comparison: Comparison) -> dict[str, Any]:
    """What the page says at its top: what was measured, by which model."""
    measured = {"similarity": ", ".join(MEASURES[metric] for metric in spec.metrics)}
    titles = {"metric_model": "model", "token": "token"}
    return measured | {titles[key]: value for key, value in comparison.model.items() if key in titles}
