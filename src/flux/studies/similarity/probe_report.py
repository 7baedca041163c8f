"""What demo 3 writes of a sweep of another probe than skip: tables, plots, pictures, the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flux.studies.folder import RunFolder
from flux.studies.pages.plots import Bar, difference_in_words, grid_plot, importance_plot
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE
from flux.studies.similarity.copies import small_copy
from flux.studies.similarity.editing_report import report_editing
from flux.studies.similarity.findings import Layer
from flux.studies.similarity.inputs import Comparison
from flux.studies.similarity.measures import MEASURES
from flux.studies.similarity.places import size_of
from flux.studies.similarity.probed import Probed, axis, layers_file, probed
from flux.studies.similarity.sources import in_words
from flux.studies.similarity.spec import DinoSpec
from flux.studies.similarity.words import shortened
from flux.studies.sweep.cells import NOTHING, Cell, CellPart
from flux.studies.sweep.folder import Sweep
from flux.studies.tables import csv_text

ROWS, LAYERS, ORDER = "moved.csv", "layers.csv", "probe_layers.json"
PLOT, NARROW_PLOT, SIDE_BY_SIDE = "layers.png", "layers-narrow.png", "side-by-side.png"
EXTREMES, PROMPTS = 4, 4
"""So many of the parts that move pictures most and least are shown, each for so many prompts."""
TITLES = ("layers", "head", "steps", "name", "n", "mean", "sd")
STATISTICS = ("n", "mean", "sd", "low", "high")


def report_probe(spec: DinoSpec, run: RunFolder, comparison: Comparison) -> list[str]:
    """Write everything into the run's folder; returns what was found, in sentences.

    Raises ValueError, one line, where there is no figure of any layer.
    """
    sweep = comparison.inputs
    found = probed(spec, sweep, comparison.figures)
    if not found.measured:
        raise ValueError(f"{sweep.path}: {MEASURES[found.metric]} could be measured for no picture")
    run.write_text(ROWS, rows_csv(spec, sweep, found))
    run.write_text(LAYERS, layers_csv(spec, found))
    run.write_json(ORDER, layers_file(spec, sweep, found, comparison.model))
    name = sweep.recipe["model"]["name"]
    answer = sentences(sweep, found)
    plots = list(_plots(spec, sweep, found, run))
    if comparison.beside:
        scatter, said = comparison.beside(run)
        plots.append(scatter)
        answer.append(said)
    editing = report_editing(sweep, found, comparison.trial, comparison.model) if comparison.trial else None
    answer += editing.said if editing else []
    page = render(
        "probe.html",
        model=name,
        probe=sweep.probe.name,
        about=_about(sweep, found, comparison.model),
        problems=comparison.problems,
        answer=answer,
        plots=plots,
        strips=_strips(sweep, found, run),
        titles=[*TITLES, f"{spec.confidence * 100:g} % interval"],
        rows=[_table_row(found, each) for each in found.parts],
        files={
            ORDER: f"{ORDER}, the layers in this order",
            LAYERS: f"{LAYERS}, a row for each part",
            ROWS: f"{ROWS}, a row for each picture",
            **(editing.files if editing else {}),
        },
        editing=editing,
        width=size_of(next(iter(sweep.cells.values())))[0],
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)
    return answer


def sentences(sweep: Sweep, found: Probed) -> list[str]:
    """What was asked, what came out, and the noise, in words."""
    order, metric = found.ranked, found.metric
    asked = f"Each picture was made with layers {sweep.probe.done}."
    if sweep.probe.sources:
        asked += (
            f" The figure is how much more alike it is to its source than the picture of its prompt alone, "
            f"by {MEASURES[metric]}: what the layer carries of the source."
        )
    else:
        asked += f" The figure is how far it is from the picture of its prompt alone, 1 − {MEASURES[metric]}."
    listed = ", ".join(f"{each.label} ({each.figures[metric].mean:.3f})" for each in order[:5])
    lines = [asked, f"Most moved: {listed}."]
    if found.floor is None:
        lines.append("The noise floor was not measured: the sweep drew no reference twice.")
    else:
        lines.append(f"A reference made again moved by {difference_in_words(found.floor)} at most.")
    unmeasured = [each.label for each in found.parts if metric not in each.figures]
    if unmeasured:
        lines.append(f"Not measured, as their pictures are missing: {', '.join(unmeasured)}.")
    return lines


def _plots(spec: DinoSpec, sweep: Sweep, found: Probed, run: RunFolder):
    """Bars where each layer was probed as a whole; a map for heads and for windows of steps."""
    name, words = sweep.recipe["model"]["name"], axis(sweep, found.metric)
    plain = [each for each in found.measured if each.part.head is None and each.part.window is None]
    if plain:
        bars = [_bar(each, found) for each in plain]
        for file in (PLOT, NARROW_PLOT):
            plot = importance_plot(
                bars,
                title=f"{name}: {sweep.probe.name}, {len(sweep.prompts)} prompts",
                measure=MEASURES[found.metric],
                confidence=spec.confidence,
                floor=found.floor,
                narrow=file == NARROW_PLOT,
                along=words,
                across=f"layer {sweep.probe.done}",
            )
            run.write_bytes(file, plot)
        yield PagePicture(PLOT, "Each layer's figure, with its interval", narrow=NARROW_PLOT)
    for kind, what in (("head", "head"), ("window", "steps")):
        if any(getattr(each.part, kind) is not None for each in found.measured):
            file = f"layers-by-{what}.png"
            run.write_bytes(file, _grid(found, kind, what, f"{name}: {sweep.probe.name}", words))
            yield PagePicture(file, f"Layers by {what}; crosses: not measured")


def _bar(each: Layer, found: Probed) -> Bar:
    figure = each.figures[found.metric]
    return Bar(each.label, each.kind, figure.mean, figure.low, figure.high)


def _grid(found: Probed, kind: str, what: str, title: str, words: str) -> bytes:
    """The mean over what is neither a layer nor `kind`."""
    rows = list(dict.fromkeys(each.layers for each in found.parts))
    given = [getattr(each.part, kind) for each in found.parts]
    columns = sorted(dict.fromkeys(value for value in given if value is not None))
    sums = np.zeros((2, len(rows), len(columns)))
    for each in found.measured:
        if (value := getattr(each.part, kind)) is not None:
            place = rows.index(each.layers), columns.index(value)
            sums[(slice(None), *place)] += each.figures[found.metric].mean, 1
    with np.errstate(invalid="ignore"):
        values = sums[0] / sums[1]
    names = ["{}–{}".format(*value) if kind == "window" else str(value) for value in columns]
    return grid_plot(values, rows, names, title=title, label=words, across=what)


def _strips(sweep: Sweep, found: Probed, run: RunFolder) -> dict[str, list[list[PagePicture]]]:
    """The parts that move pictures most and least, beside reference and source, copied into the run."""
    order = [each.part for each in found.ranked]
    count = min(EXTREMES, math.ceil(len(order) / 2))
    most, least = order[:count], order[count:][::-1][:count]
    prompts = _examples(sweep, [*most, *least])
    start = [Cell(prompt, source=True) for prompt in prompts] if sweep.probe.sources else []
    columns = [[Cell(prompt) for prompt in prompts], *([start] if start else [])]
    columns += [[Cell(prompt, part) for prompt in prompts] for part in (*most, *least)]
    shown = {cell: _shown(sweep, found, run, cell) for column in columns for cell in column}
    if prompts:
        sheet = [
            [picture and SheetCell(run.picture(picture.file), picture.caption) for picture in row]
            for row in zip(*([shown[cell] for cell in column] for column in columns), strict=True)
        ]
        where = " towards their sources" if sweep.probe.sources else ""
        title = (
            f"{sweep.probe.name}: the {len(most)} that move pictures{where} most, then the {len(least)} least"
        )
        run.save_picture(SIDE_BY_SIDE, contact_sheet(sheet, title))
    fixed = len(columns) - len(most) - len(least)
    named = {"What moves pictures most": range(fixed, fixed + len(most))}
    named["What moves pictures least"] = range(fixed + len(most), len(columns))
    return {
        title: [
            [picture for i in (*range(fixed), *places) if (picture := shown[columns[i][row]])]
            for row in range(len(prompts))
        ]
        for title, places in named.items()
        if places
    }


def _examples(sweep: Sweep, parts: Sequence[CellPart]) -> list[int]:
    """The prompts that have most of the pictures of these parts; of equal ones the first."""
    counts = {
        prompt: sum(Cell(prompt, part) in sweep.cells for part in parts)
        for prompt in range(len(sweep.prompts))
    }
    able = [prompt for prompt in counts if counts[prompt] and sweep.reference(prompt)]
    return sorted(sorted(able, key=lambda prompt: (-counts[prompt], prompt))[:PROMPTS])


def _shown(sweep: Sweep, found: Probed, run: RunFolder, cell: Cell) -> PagePicture | None:
    """A picture of the sweep as a small copy in the run; None where it is missing."""
    if cell not in sweep.cells:
        return None
    file = cell.file.replace("/", "-", 2).replace("pictures-", "pictures/")
    run.save_picture(file, small_copy(sweep.cells[cell]))
    if cell.source:
        return PagePicture(file, f"source: {shortened(sweep.sources[cell.prompt], 60)}")
    if cell.part == NOTHING:
        return PagePicture(file, f"reference: {shortened(sweep.prompts[cell.prompt].text, 60)}")
    values = [row.figures[found.metric] for row in found.rows if row.cell == cell]
    figure = "not measured" if not values or values[0] is None else f"{values[0]:+.3f}"
    return PagePicture(file, f"layer {cell.part.label.rpartition(':')[2]}: {figure}")


def _cells_of(part: CellPart) -> list[object]:
    window = "" if part.window is None else "{}-{}".format(*part.window)
    return ["+".join(map(str, part.layers)), "" if part.head is None else part.head, window]


def _table_row(found: Probed, each: Layer) -> list[str]:
    figure = each.figures.get(found.metric)
    start = [*map(str, _cells_of(each.part)), each.name]
    if figure is None:
        return [*start, "0", "not measured", "", ""]
    sd = "" if figure.sd is None else f"{figure.sd:.4f}"
    interval = "" if figure.low is None else f"{figure.low:.4f} to {figure.high:.4f}"
    return [*start, str(figure.n), f"{figure.mean:.4f}", sd, interval]


def rows_csv(spec: DinoSpec, sweep: Sweep, found: Probed) -> str:
    """A row for each picture: how far it moved."""
    lines = []
    for row in found.rows:
        prompt = sweep.prompts[row.cell.prompt]
        source = sweep.sources[row.cell.prompt] if sweep.sources else ""
        place = _cells_of(row.cell.part) if row.cell.part else [row.cell.label, "", ""]
        figures = [row.figures[metric] for metric in spec.metrics]
        lines.append([row.cell.prompt, prompt.seed, *place, *figures, prompt.text, source])
    return csv_text(["prompt", "seed", "layers", "head", "steps", *spec.metrics, "text", "source"], lines)


def layers_csv(spec: DinoSpec, found: Probed) -> str:
    """A row for each part."""
    titles = ["layers", "head", "steps", "names", "kind"]
    titles += [f"{metric}_{statistic}" for metric in spec.metrics for statistic in STATISTICS]
    lines = []
    for each in found.parts:
        figures = [each.figures.get(metric) for metric in spec.metrics]
        cells = [getattr(figure, name) if figure else None for figure in figures for name in STATISTICS]
        lines.append([*_cells_of(each.part), each.name, each.kind, *cells])
    return csv_text(titles, lines)


def _about(sweep: Sweep, found: Probed, model: Mapping[str, Any]) -> dict[str, Any]:
    recipe = sweep.recipe
    return {
        "model": recipe["model"]["name"],
        "probe": ", ".join([sweep.probe.name, *(f"{name} {value}" for name, value in sweep.probe.options)]),
        "size": f"{recipe.get('width')} × {recipe.get('height')}",
        "steps": recipe.get("steps"),
        "pictures": sum(1 for row in found.rows if row.cell.part),
        "similarity": in_words(model),
        "noise floor": "not measured" if found.floor is None else difference_in_words(found.floor),
    }
