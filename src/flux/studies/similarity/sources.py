"""Which models measure similarity, and why these."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.models import configs
from flux.studies.run import HUB_DINO
from flux.studies.similarity.inputs import Inputs
from flux.studies.similarity.places import drawn_by, size_of
from flux.studies.similarity.spec import COSINES, DinoSpec
from flux.studies.sweep.folder import Sweep
from flux.weights.identity import pretrained_id

OWN = configs["flux-tiny"].home
OWN_SIZE = (128, 128)
"""Pictures of flux-tiny."""


@dataclass(frozen=True)
class MetricModel:
    """A folder or a hub name, which token of DINO counts, and why it was taken where nobody named it."""

    source: str
    token: str | None = None
    why: str | None = None

    def words(self) -> str:
        tokens = {"class": "class token", "patches": "mean of the patch tokens"}
        named = f"{self.source}, {tokens[self.token]}" if self.token else self.source
        return f"{named} ({self.why})" if self.why else named

    def record(self, dtype: str) -> dict[str, Any]:
        """For records: no place on this machine, but the identity of the weights."""
        folder = Path(self.source)
        own = self.source == str(OWN / "dino")
        name = "flux-tiny's own DINO" if own else folder.name if folder.is_dir() else self.source
        token = {"token": self.token} if self.token else {}
        return {"metric_model": name, "identity": pretrained_id(self.source, dtype), **token}


def metric_models(spec: DinoSpec, inputs: Inputs) -> dict[str, MetricModel]:
    """Those that the spec's metrics need, by metric. Nothing is loaded."""
    models = {"dino": lambda: _dino(spec, inputs), "clip": lambda: MetricModel(spec.clip)}
    return {metric: models[metric]() for metric in spec.metrics if metric in COSINES}


def _dino(spec: DinoSpec, inputs: Inputs) -> MetricModel:
    """The spec's own, or with auto the one for the model that drew the pictures."""
    if spec.model != "auto":
        return MetricModel(spec.model, spec.token)
    if isinstance(inputs, Sweep):
        return MetricModel(_dino_of(inputs.recipe["model"]), spec.token)
    source, why = _dino_for({path for pair in inputs.pairs for path in pair})
    return MetricModel(source, spec.token, why)


def _dino_for(pictures: Iterable[Path]) -> tuple[str, str]:
    """The DINO model for pictures of any origin, and why it is that one."""
    models = drawn_by(pictures)
    by_source: dict[str, dict[str, Path]] = {}
    for path, model in sorted(models.items()):
        source, origin = _origin(path, model)
        by_source.setdefault(source, {}).setdefault(origin, path)
    if len(by_source) > 1:
        return HUB_DINO, "as they are of several origins"
    ((source, origins),) = by_source.items()
    return source, f"as they {' or '.join(origins)}"


def _origin(path: Path, model: Mapping[str, Any] | None) -> tuple[str, str]:
    if model is not None:
        return _dino_of(model), f"were drawn by {model['name']}"
    if size_of(path) == OWN_SIZE:
        return str(OWN / "dino"), "have flux-tiny's size"
    return HUB_DINO, "were drawn by no model of a run here"


def _dino_of(model: Mapping[str, Any]) -> str:
    """The DINO model beside the weights of a run's model, or the package's own for a miniature."""
    weights = Path(model["weights"]) / "dino" if model.get("weights") else None
    if weights and weights.is_dir():
        return str(weights)
    return str(OWN / "dino") if configs[model["name"]].embedded else HUB_DINO
