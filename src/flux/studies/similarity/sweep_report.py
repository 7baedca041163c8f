"""What demo 3 writes of a sweep: tables, plots, the vital set, pictures side by side, and the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flux.pictures.metrics import scaled
from flux.studies.folder import RunFolder
from flux.studies.pages.plots import Bar, difference_in_words, importance_map, importance_plot
from flux.studies.pages.render import PagePicture, render
from flux.studies.pages.sheets import SheetCell, contact_sheet
from flux.studies.run import PAGE
from flux.studies.similarity.copies import small_copy
from flux.studies.similarity.findings import Findings, Layer, findings, vital_file
from flux.studies.similarity.importance import Summary, ranked
from flux.studies.similarity.inputs import Comparison
from flux.studies.similarity.measures import MEASURES
from flux.studies.similarity.places import size_of
from flux.studies.similarity.sources import in_words
from flux.studies.similarity.spec import COSINES, DinoSpec
from flux.studies.similarity.sweep_tables import layers_csv, rows_csv
from flux.studies.similarity.words import sentences, shortened
from flux.studies.sweep.cells import NOTHING, Cell, CellPart
from flux.studies.sweep.folder import Sweep

ROWS, LAYERS, VITAL = "similarity.csv", "layers.csv", "vital_layers.json"
NARROW_PLOT = "importance-narrow.png"
PLOT, MAP, SIDE_BY_SIDE = "importance.png", "prompts.png", "side-by-side.png"
EXTREMES, PROMPTS = 4, 4
"""So many of the most and of the least important layers are shown, each for so many prompts."""


def report_sweep(spec: DinoSpec, run: RunFolder, comparison: Comparison) -> list[str]:
    """Write everything into the run's folder; returns what was found, in sentences.

    Raises ValueError, one line, where there is no figure of any layer.
    """
    sweep, model = comparison.inputs, comparison.model
    found = findings(spec, sweep, comparison.figures)
    if not _measured(found):
        raise ValueError(f"{sweep.path}: {MEASURES[found.metric]} could be measured for no picture")
    bars = [bar_of(layer, found) for layer in _measured(found)]
    run.write_text(ROWS, rows_csv(spec, sweep, found))
    run.write_text(LAYERS, layers_csv(spec, found))
    if found.vital is not None:
        run.write_json(VITAL, vital_file(spec, sweep, found, model))
    name, measure = sweep.recipe["model"]["name"], MEASURES[found.metric]
    count = len({row.cell.prompt for row in found.rows if row.cell.part})
    prompts = f"{count} prompt{'s' if count > 1 else ''}"
    for file in (PLOT, NARROW_PLOT):
        plot = importance_plot(
            bars,
            title=f"{name}: importance of each layer, {prompts}",
            measure=measure,
            confidence=spec.confidence,
            threshold=found.vital.threshold if found.vital else None,
            floor=found.floor,
            narrow=file == NARROW_PLOT,
        )
        run.write_bytes(file, plot)
    run.write_bytes(MAP, _map(sweep, found, bars, f"{name}: each prompt without each layer", measure))
    answer = sentences(spec, found)
    scatter, said = comparison.beside(run) if comparison.beside else (None, None)
    answer += [said] if said else []
    page = render(
        "importance.html",
        model=name,
        about=_about(sweep, found, model),
        problems=comparison.problems,
        answer=answer,
        plot=PagePicture(
            PLOT,
            "Each layer's importance: the more a picture changes without it, the longer its bar",
            narrow=NARROW_PLOT,
        ),
        scatter=scatter,
        heat_map=PagePicture(MAP, "How far each picture is from its reference; crosses: no picture"),
        strips=_strips(sweep, found, run),
        titles=_titles(spec, found),
        rows=[_table_row(spec, found, layer) for layer in found.layers],
        marked=[i for i, layer in enumerate(found.layers) if found.is_vital(layer)],
        files=_files(found),
        width=_width(sweep),
        recipe=spec.recipe(),
    )
    run.write_text(PAGE, page)
    named = found.vital is not None and found.vital.layers
    return [*answer, *([f"for demo 4: --layers {run.path / VITAL}"] if named else [])]


def bar_of(layer: Layer, found: Findings) -> Bar:
    """The layer's bar: 1 minus its similarity, and its interval turned over, as far as such numbers go."""
    figure = layer.figures[found.metric]
    low, high = (None if side is None else min(max(1 - side, 0), 2) for side in (figure.high, figure.low))
    return Bar(layer.label, layer.kind, figure.vitality, low, high, found.is_vital(layer))


def _titles(spec: DinoSpec, found: Findings) -> list[str]:
    """Of the page's table. Further metrics have a column each."""
    interval = f"{spec.confidence * 100:g} % interval"
    others = [MEASURES[metric] for metric in spec.metrics[1:]]
    scale = ["(cos + 1) / 2"] if found.metric in COSINES else []
    titles = ["layer", "name", "n", f"mean {MEASURES[found.metric]}", *scale, "sd", interval]
    return [*titles, "importance", *(f"mean {name}" for name in others), ""]


def _table_row(spec: DinoSpec, found: Findings, layer: Layer) -> list[str]:
    figure = layer.figures.get(found.metric)
    others = [_mean(layer, metric) for metric in spec.metrics[1:]] if figure else []
    scale = [f"{scaled(figure.mean):.4f}" if figure else ""] if found.metric in COSINES else []
    in_noise = found.vital is not None and layer.whole and layer.part.layers[0] in found.vital.in_noise
    return [
        *(layer.label, layer.name, str(figure.n if figure else 0)),
        *(f"{figure.mean:.4f}" if figure else "not measured", *scale),
        *(_digits(figure.sd) if figure else "", _interval(figure)),
        f"{figure.vitality:.4f}" if figure else "",
        *(others or [""] * len(spec.metrics[1:])),
        "vital" if found.is_vital(layer) else "in the noise" if in_noise else "",
    ]


def _mean(layer: Layer, metric: str) -> str:
    """Pictures that all equal their reference have no finite PSNR."""
    figure = layer.figures.get(metric)
    if figure is None:
        return "equal" if metric == "psnr" else ""
    return f"{figure.mean:.1f} dB" if metric == "psnr" else f"{figure.mean:.4f}"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(figure: Summary | None) -> str:
    if figure is None or figure.low is None:
        return ""
    return f"{max(figure.low, -1):.4f} to {min(figure.high, 1):.4f}"  # as far as similarities go


def _map(sweep: Sweep, found: Findings, bars: Sequence[Bar], title: str, measure: str) -> bytes:
    columns = {layer.part: i for i, layer in enumerate(_measured(found))}
    prompts = sorted({row.cell.prompt for row in found.rows if row.cell.part})
    lines = {prompt: i for i, prompt in enumerate(prompts)}
    values = np.full((len(prompts), len(columns)), np.nan)
    for row in found.rows:
        value = row.figures[found.metric]
        if row.cell.part in columns and value is not None:
            values[lines[row.cell.prompt], columns[row.cell.part]] = value
    names = [shortened(f"{prompt}: {sweep.prompts[prompt].text}", 44) for prompt in prompts]
    return importance_map(values, names, bars, title=title, measure=measure)


def _measured(found: Findings) -> list[Layer]:
    return [layer for layer in found.layers if found.metric in layer.figures]


def _strips(sweep: Sweep, found: Findings, run: RunFolder) -> dict[str, list[list[PagePicture]]]:
    """The most and the least important layers beside the reference, copied into the run, and a sheet."""
    order = ranked({layer: figure.mean for layer, figure in found.single.items()})
    count = min(EXTREMES, math.ceil(len(order) / 2))
    most, least = order[:count], order[count:][::-1][:count]
    prompts = _examples(found, [*most, *least])
    named = {"The most important layers": most, "The least important layers": least}
    rows = {
        layer: [_shown(sweep, found, run, prompt, layer) for prompt in prompts]
        for layer in (None, *most, *least)
    }
    if prompts:
        sheet = [
            [shown and SheetCell(run.picture(shown.file), shown.caption) for shown in row]
            for row in zip(*rows.values(), strict=True)
        ]
        title = (
            f"The reference, without the {len(most)} most important layers, without the {len(least)} least"
        )
        run.save_picture(SIDE_BY_SIDE, contact_sheet(sheet, title))
    named = {"The most important layers": most, "The least important layers": least}
    return {
        title: [
            [shown for layer in (None, *layers) if (shown := rows[layer][i])] for i in range(len(prompts))
        ]
        for title, layers in named.items()
        if layers
    }


def _examples(found: Findings, layers: Sequence[int]) -> list[int]:
    """The prompts that have most of the pictures of these layers; of equal ones the first."""
    wanted = {layer.part for layer in found.layers if layer.whole and layer.part.layers[0] in layers}
    counts: dict[int, int] = {}
    for row in found.rows:
        if row.cell.part in wanted:
            counts[row.cell.prompt] = counts.get(row.cell.prompt, 0) + 1
    return sorted(sorted(counts, key=lambda prompt: (-counts[prompt], prompt))[:PROMPTS])


def _shown(
    sweep: Sweep, found: Findings, run: RunFolder, prompt: int, layer: int | None
) -> PagePicture | None:
    """A picture of the sweep as a small copy in the run; None where it is missing. layer: None: reference."""
    cell = Cell(prompt, NOTHING if layer is None else CellPart((layer,), word=sweep.probe.word))
    if cell not in sweep.cells:
        return None
    file = cell.file.replace("/", "-", 2).replace("pictures-", "pictures/")
    run.save_picture(file, small_copy(sweep.cells[cell]))
    if layer is None:
        return PagePicture(file, f"reference: {shortened(sweep.prompts[prompt].text, 60)}")
    (value,) = (row.figures[found.metric] for row in found.rows if row.cell == cell)
    figure = "not measured" if value is None else f"{value:.3f}"
    return PagePicture(file, f"without layer {layer}: {MEASURES[found.metric]} {figure}")


def _files(found: Findings) -> dict[str, str]:
    """What is in each file that the page links, by its name."""
    vital = {VITAL: f"{VITAL}, for the layers of demo 4"} if found.vital else {}
    tables = {ROWS: f"{ROWS}, a row for each picture", LAYERS: f"{LAYERS}, a row for each layer"}
    sheet = {SIDE_BY_SIDE: "the layers side by side, on one sheet"} if found.single else {}
    return vital | tables | sheet


def _width(sweep: Sweep) -> int:
    return size_of(next(iter(sweep.cells.values())))[0]


def _about(sweep: Sweep, found: Findings, model: Mapping[str, Any]) -> dict[str, Any]:
    recipe = sweep.recipe
    pictures = sum(1 for row in found.rows if row.cell.part)
    return {
        "model": recipe["model"]["name"],
        "size": f"{recipe.get('width')} × {recipe.get('height')}",
        "steps": recipe.get("steps"),
        "pictures": pictures,
        "similarity": in_words(model),
        "noise floor": "not measured" if found.floor is None else difference_in_words(found.floor),
    }
