"""What a sweep of a probe says of each part of the model: how far pictures moved, and where to.

Of a probe without sources it is how much a picture changed, 1 - s(picture, reference). Of one with sources,
such as carry, it is how far the picture moved towards its source, s(picture, source) - s(reference, source),
for a similarity s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flux.studies.run import kept_as
from flux.studies.similarity.findings import ComparedCell, Layer, names_of, summaries
from flux.studies.similarity.inputs import model_layers
from flux.studies.similarity.measures import MEASURES, Figures, Pair
from flux.studies.similarity.measuring import finite
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.cells import Cell, CellPart
from flux.studies.sweep.folder import Sweep


@dataclass(frozen=True)
class Probed:
    """All that a sweep of a probe says. metric: the one that ranks. noise: how far repeats moved.

    Figures are how far pictures moved, see above.
    """

    metric: str
    rows: Sequence[ComparedCell]
    parts: Sequence[Layer]
    noise: Sequence[float]

    @property
    def measured(self) -> list[Layer]:
        return [each for each in self.parts if self.metric in each.figures]

    @property
    def ranked(self) -> list[Layer]:
        """From the one that moves pictures most; of equal ones the earlier first."""
        return sorted(self.measured, key=lambda each: (-each.figures[self.metric].mean, each.part.order))

    @property
    def floor(self) -> float | None:
        """The noise floor: how far a repeat of a reference moved at most; None where none was made."""
        return max(map(abs, self.noise), default=None)


def moved_pairs(sweep: Sweep) -> dict[Cell, tuple[Pair, ...]]:
    """By cell the pairs that its figure is made of: with the reference, or picture and reference with the
    source. Cells that lack one of them are left out."""
    found: dict[Cell, tuple[Pair, ...]] = {}
    repeats = [Cell(prompt, repeat=True) for prompt in range(len(sweep.prompts))]
    made = {reference: file for reference, file in sweep.noise}
    for cell in [*repeats, *(cell for cell in sweep.cells if cell.part)]:
        reference = sweep.reference(cell.prompt)
        file = made.get(reference) if cell.repeat else sweep.cells.get(cell)
        source = sweep.cells.get(Cell(cell.prompt, source=True))
        if file is None or reference is None or (sweep.probe.sources and source is None):
            continue
        found[cell] = ((source, file), (source, reference)) if sweep.probe.sources else ((reference, file),)
    return found


def probed(spec: DinoSpec, sweep: Sweep, figures: Mapping[Pair, Figures]) -> Probed:
    """Means and intervals from the figures of each pair."""
    layers = model_layers(sweep)
    rows = [ComparedCell(cell, _moved(spec, pairs, figures)) for cell, pairs in moved_pairs(sweep).items()]
    by_part: dict[CellPart, list[ComparedCell]] = {}
    for row in rows:
        by_part.setdefault(row.cell.part, []).append(row)
    parts = [
        Layer(part, *names_of(part, layers), summaries(spec, by_part.get(part, [])))
        for part in sorted(sweep.parts, key=lambda part: part.order)
    ]
    metric = spec.metrics[0]
    return Probed(metric, rows, parts, finite(row.figures[metric] for row in rows if row.cell.repeat))


def _moved(spec: DinoSpec, pairs: Sequence[Pair], figures: Mapping[Pair, Figures]) -> Figures:
    found: Figures = {}
    for metric in spec.metrics:
        values = [figures[pair][metric] for pair in pairs]
        if None in values:
            found[metric] = None
        else:
            found[metric] = values[0] - values[1] if len(values) == 2 else _lost(metric, values[0])
    return found


def _lost(metric: str, value: float) -> float:
    """How much a picture changed; PSNR, which has no 1, stays what it is."""
    return value if metric == "psnr" else 1 - value


def axis(sweep: Sweep, metric: str) -> str:
    """What a figure is, in words."""
    if sweep.probe.sources:
        return f"{sweep.probe.name}: mean {MEASURES[metric]} gained to the source"
    return f"{sweep.probe.name}: 1 − mean {MEASURES[metric]} to the reference"


def layers_file(spec: DinoSpec, sweep: Sweep, found: Probed, model: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `probe_layers.json`: the parts in order, with their figures and where they are from."""
    recipe = sweep.recipe
    weights = sweep.setting.get("weights")
    return {
        "model": recipe["model"]["name"],
        "probe": {"name": sweep.probe.name, **dict(sweep.probe.options)},
        "weights": weights if isinstance(weights, dict) else None,
        **kept_as(sweep.setting),
        "order": [
            {
                "layers": list(each.part.layers),
                "head": each.part.head,
                "window": each.part.window and list(each.part.window),
                "name": each.name,
                **asdict(each.figures[found.metric]),
            }
            for each in found.ranked
        ],
        "evidence": {
            "metric": found.metric,
            "what": axis(sweep, found.metric),
            **model,
            "prompts": len(sweep.prompts),
            "confidence": spec.confidence,
            "noise_floor": found.floor,
            "sweep": sweep.path.name,
            **{key: recipe.get(key) for key in ("steps", "guidance", "width", "height")},
            **{key: sweep.setting.get(key) for key in ("device", "dtype")},
        },
    }


def files_of(sweep: Sweep) -> list[Pair]:
    """Every pair that is to be measured, once."""
    return list(dict.fromkeys(pair for pairs in moved_pairs(sweep).values() for pair in pairs))
