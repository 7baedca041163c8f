"""What a sweep says of its pictures and layers, as CSV."""

from flux.studies.similarity.findings import Findings
from flux.studies.similarity.spec import DinoSpec
from flux.studies.similarity.tables import figure_cells, figure_titles
from flux.studies.sweep.folder import Sweep
from flux.studies.tables import csv_text


def rows_csv(spec: DinoSpec, sweep: Sweep, found: Findings) -> str:
    """A row for each picture."""
    titles = ["prompt", "seed", "layers", *figure_titles(spec.metrics), "text"]
    lines = []
    for row in found.rows:
        prompt = sweep.prompts[row.cell.prompt]
        figures = figure_cells(spec.metrics, row.figures)
        lines.append([row.cell.prompt, prompt.seed, row.cell.label, *figures, prompt.text])
    return csv_text(titles, lines)


STATISTICS = ("n", "mean", "sd", "low", "high")


def layers_csv(spec: DinoSpec, found: Findings) -> str:
    """A row for each layer, or set of layers that are skipped together."""
    titles = ["layers", "names", "kind", "importance", "vital"]
    titles += [f"{metric}_{statistic}" for metric in spec.metrics for statistic in STATISTICS]
    lines = []
    for layer in found.layers:
        figures = [layer.figures.get(metric) for metric in spec.metrics]
        lines.append(
            [
                *(layer.label, layer.name, layer.kind),
                figures[0].vitality if figures[0] else None,
                "yes" if found.is_vital(layer) else "no",
                *(getattr(each, name) if each else None for each in figures for name in STATISTICS),
            ]
        )
    return csv_text(titles, lines)
