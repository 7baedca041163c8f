"""What a sweep says of each layer: figures of its pictures, their means, and the vital layers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from flux.models import Layers
from flux.studies.run import kept_as
from flux.studies.similarity.importance import Summary, Vital, summary, vital_set
from flux.studies.similarity.inputs import model_layers
from flux.studies.similarity.measures import Figures, Pair
from flux.studies.similarity.measuring import finite
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.cells import NOTHING, SKIP, Cell, CellPart
from flux.studies.sweep.folder import Sweep


@dataclass(frozen=True)
class ComparedCell:
    """Figures of one picture of the sweep, by metric; None for one that was not measured."""

    cell: Cell
    figures: Figures


@dataclass(frozen=True)
class Layer:
    """A part of the model that was changed, mostly one layer. figures: by metric, as far as measured."""

    part: CellPart
    name: str
    kind: str
    figures: Mapping[str, Summary]

    @property
    def whole(self) -> bool:
        """Whether it is one layer, with all its heads, in all steps."""
        part = self.part
        return len(part.layers) == 1 and part.head is None and part.window is None

    @property
    def layers(self) -> str:
        return "+".join(map(str, self.part.layers))

    @property
    def label(self) -> str:
        return self.part.label.rpartition(":")[2]


@dataclass(frozen=True)
class Findings:
    """All that a sweep says. metric: the one that decides. layers: one of the model's at a time, then joint.

    noise: how much each repeat of a reference differs from it, 1 minus their similarity. vital: None for a
    sweep of joint sets alone.
    """

    metric: str
    rows: Sequence[ComparedCell]
    layers: Sequence[Layer]
    noise: Sequence[float]
    vital: Vital | None

    @property
    def floor(self) -> float | None:
        """The noise floor: the largest difference of a repeat; None where none was made."""
        return max(self.noise, default=None)

    @property
    def single(self) -> dict[int, Summary]:
        """The measured layers that were skipped one by one."""
        return {
            layer.part.layers[0]: layer.figures[self.metric]
            for layer in self.layers
            if layer.whole and self.metric in layer.figures
        }

    @property
    def unmeasured(self) -> list[str]:
        return [layer.label for layer in self.layers if self.metric not in layer.figures]

    def is_vital(self, layer: Layer) -> bool:
        return self.vital is not None and layer.whole and layer.part.layers[0] in self.vital.layers


def pairs_of(sweep: Sweep) -> dict[Cell, Pair]:
    """What is compared: every cell, and every repeat, with the reference of its prompt; by prompt."""
    repeats = {repeat: reference for reference, repeat in sweep.noise}
    asked = [
        Cell(prompt, part, repeat=repeat)
        for prompt in range(len(sweep.prompts))
        for part, repeat in ((NOTHING, True), *((part, False) for part in sweep.parts))
    ]
    pairs = {}
    for cell in asked:
        reference, file = sweep.reference(cell.prompt), sweep.cells.get(cell)
        if cell.repeat:
            file = sweep.path / cell.file
            reference = repeats.get(file)
        if reference is not None and file is not None:
            pairs[cell] = (reference, file)
    return pairs


def findings(spec: DinoSpec, sweep: Sweep, figures: Mapping[Pair, Figures]) -> Findings:
    """Means and vital layers from the figures of each pair."""
    layers = model_layers(sweep)
    by_part: dict[CellPart, list[ComparedCell]] = {}
    rows = [ComparedCell(cell, figures[pair]) for cell, pair in pairs_of(sweep).items()]
    for row in rows:
        if not row.cell.repeat:
            by_part.setdefault(row.cell.part, []).append(row)
    measured = [
        Layer(part, *names_of(part, layers), summaries(spec, by_part.get(part, [])))
        for part in sorted(sweep.parts, key=lambda part: part.order)
    ]
    metric = spec.metrics[0]
    noise = finite(row.figures[metric] for row in rows if row.cell.repeat)
    found = Findings(metric, rows, measured, [max(0.0, 1 - value) for value in noise], None)
    if sweep.probe.name != SKIP or not any(layer.whole for layer in measured):
        return found
    rule = spec.rule()
    eligible = set(layers.expand(spec.among))
    means = {layer: figure.mean for layer, figure in found.single.items() if layer in eligible}
    vital = vital_set(means, rule.name, rule.value, found.floor)
    return replace(found, vital=vital)


def summaries(spec: DinoSpec, rows: Sequence[ComparedCell]) -> dict[str, Summary]:
    """By metric the mean and interval of what was measured of some pictures."""
    values = {metric: finite(row.figures[metric] for row in rows) for metric in spec.metrics}
    return {metric: summary(each, spec.confidence) for metric, each in values.items() if each}


def names_of(part: CellPart, layers: Layers) -> tuple[str, str]:
    """`double.3` and what kind of bar it has."""
    names = [layers.name(layer) for layer in part.layers]
    return " + ".join(names), names[0].partition(".")[0] if len(names) == 1 else "joint"


def vital_file(spec: DinoSpec, sweep: Sweep, found: Findings, model: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `vital_layers.json`, see `flux.studies.vital`. model: what measured similarity."""
    recipe, layers = sweep.recipe, model_layers(sweep)
    means = {layer: figure.mean for layer, figure in found.single.items()}
    return {
        "model": recipe["model"]["name"],
        "layers": list(found.vital.layers),
        "threshold": found.vital.threshold,
        "similarity": [means.get(layer) for layer in range(len(layers))],
        "weights": sweep.setting.get("weights") if isinstance(sweep.setting.get("weights"), dict) else None,
        **kept_as(sweep.setting),
        "evidence": {
            "rule": spec.by,
            "among": spec.among,
            "metric": found.metric,
            **model,
            "prompts": len({row.cell.prompt for row in found.rows if row.cell.part}),
            "fewest_prompts": min((figure.n for figure in found.single.values()), default=0),
            "confidence": spec.confidence,
            "noise_floor": found.floor,
            "noise_pairs": len(found.noise),
            "in_noise": list(found.vital.in_noise),
            "layers": [
                {"layer": layer, "name": layers.name(layer), **asdict(figure)}
                for layer, figure in found.single.items()
            ],
            "sweep": sweep.path.name,
            **{key: recipe.get(key) for key in ("steps", "guidance", "width", "height")},
            **{key: sweep.setting.get(key) for key in ("device", "dtype")},
        },
    }
