"""Which models measure similarity, and why these."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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


TOKENS = {
    "class": "class token",
    "patches": "mean of the patch tokens",
    "patch by patch": "patch tokens at the same place",
    "patch by patch, whitened": "whitened patch tokens at the same place",
}
"""Which tokens of DINO are compared, in words."""

BY_PATCH = {"dino-patches": "patch by patch", "dino-whitened": "patch by patch, whitened"}


@dataclass(frozen=True)
class MetricModel:
    """A folder or a hub name, which token of DINO counts, and why it was taken where nobody named it.

    token: see `TOKENS`. block: of patch tokens the block they come from, None for the default.
    """

    source: str
    token: str | None = None
    why: str | None = None
    block: int | None = None

    def words(self) -> str:
        block = "" if self.block is None else f" of block {self.block}"
        named = f"{self.source}, {TOKENS[self.token]}{block}" if self.token else self.source
        return f"{named} ({self.why})" if self.why else named

    def record(self, dtype: str) -> dict[str, Any]:
        """For records: no place on this machine, but the identity of the weights."""
        folder = Path(self.source)
        own = self.source == str(OWN / "dino")
        name = "flux-tiny's own DINO" if own else folder.name if folder.is_dir() else self.source
        token = {"token": self.token} if self.token else {}
        token |= {} if self.block is None else {"block": self.block}
        return {"metric_model": name, "identity": pretrained_id(self.source, dtype), **token}


def metric_models(spec: DinoSpec, inputs: Inputs) -> dict[str, MetricModel]:
    """Those that the spec's metrics need, by metric. Nothing is loaded."""
    return {
        metric: MetricModel(spec.clip) if metric == "clip" else _dino(spec, inputs, metric)
        for metric in spec.metrics
        if metric in COSINES
    }


def in_words(record: Mapping[str, Any]) -> str:
    """A record of `MetricModel` for people."""
    named = {**record, "token": TOKENS.get(record.get("token"))}
    if "block" in record:
        named["block"] = f"block {record['block']}"
    return ", ".join(str(value) for key, value in named.items() if key != "identity" and value)


def default_metric(inputs: Inputs) -> str:
    """What is measured where nobody says.

    Importance, as in the paper, and pictures by DINO's class token; what another probe moved patch by patch,
    whitened on flux-tiny, where that was found best.
    """
    if not isinstance(inputs, Sweep) or inputs.skips:
        return "dino"
    return "dino-whitened" if configs[inputs.recipe["model"]["name"]].embedded else "dino-patches"


def _dino(spec: DinoSpec, inputs: Inputs, metric: str) -> MetricModel:
    """The spec's own, or with auto the one for the model that drew the pictures."""
    if metric in BY_PATCH:
        found = _dino(spec, inputs, "dino")
        return replace(found, token=BY_PATCH[metric], block=spec.block)
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
