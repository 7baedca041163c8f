"""A vital-set file: the layers of one model that matter most, with the evidence for it.

{"model": "flux-dev", "layers": [0, 1, "single.9"], "threshold": 0.95, "similarity": [0.31, null, ...]}
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from flux.studies.spec.errors import Refused, SpecError, one_line
from flux.studies.spec.part import Part, key, part
from flux.studies.spec.strict_json import read_json
from flux.studies.spec.values import Context, Kind, list_of, number, or_null, refuse, text


def _object(value: Any, context: Context) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refuse("must be an object", value)
    return value


def _name(value: Any, context: Context) -> int | str:
    """Whether the model has it is asked later."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refuse("must be a layer's number or its name, such as double.3", value)
    return value


@part
class VitalSet(Part):
    """The vital layers of a model. A file may hold more keys, as further evidence."""

    model: str = key(text, "the model the set was found on")
    layers: tuple[int | str, ...] = key(
        list_of(Kind(_name, {"type": ["integer", "string"]})), "numbers, double.i or single.i"
    )
    threshold: float | None = key(
        or_null(number()), "the mean similarity to the reference below which a layer counts as vital", None
    )
    similarity: tuple[float | None, ...] | None = key(
        or_null(list_of(or_null(number()))),
        "mean similarity to the reference with each layer skipped, layer 0 first; null where it is unknown",
        None,
    )
    weights: dict[str, Any] | None = key(
        or_null(Kind(_object, {"type": "object"})), "what the model's weights are known by", None
    )

    @classmethod
    def schema(cls) -> dict[str, Any]:
        return super().schema() | {"additionalProperties": True}


def read_vital_set(path: Path) -> VitalSet:
    """Raises SpecError, one line, for a file that is missing, no JSON, or no vital set."""
    data = read_json(path)
    known = {each.name for each in fields(VitalSet)}
    try:
        return VitalSet.read({name: data[name] for name in data if name in known}, Context(path.parent))
    except Refused as refused:
        raise SpecError(one_line(refused.problems, str(path))) from None
