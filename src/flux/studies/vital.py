"""The file of a vital set, as demo 3 writes it and `layers` names it; a mere list of layers will do.

{"model": "flux-dev", "layers": [0, 1, "single.9"], "threshold": 0.95, "similarity": [0.31, null, ...]}
"""

from pathlib import Path
from typing import Annotated, Any

from flux.studies.reading import SpecError, one_line, problems_of, read_value
from flux.studies.spec import ALayer, ConfigDict, Field, Section, Several, Text, ValidationError

ANY_MODEL = "any"
"""What the list of a file counts as found on that is a list alone."""

Mean = Annotated[float, Field(ge=-2, le=2)]


class VitalSet(Section):
    """The vital layers of a model. A file may hold more keys, as further evidence."""

    model_config = ConfigDict(extra="ignore")

    model: Text = Field(description="the model the set was found on")
    layers: Several[ALayer] = Field(description="numbers, double.i or single.i")
    threshold: Mean | None = Field(
        None, description="the mean similarity to the reference below which a layer counts as vital"
    )
    similarity: Several[Mean | None] | None = Field(
        None,
        description="mean similarity to the reference with each layer skipped, layer 0 first; null where it "
        "is unknown",
    )
    weights: dict[str, Any] | None = Field(None, description="what the model's weights are known by")
    precision: dict[str, Any] | str | None = Field(
        None,
        description="what the weights were quantised to; null: they were in full, or as the file has them",
    )


def read_vital_set(path: Path) -> VitalSet:
    """Raises SpecError, one line, for a file that is missing, no JSON, or no vital set."""
    data = read_value(path)
    if isinstance(data, list):
        data = {"model": ANY_MODEL, "layers": data}
    if isinstance(data, dict) and "order" in data and "layers" not in data:
        raise SpecError(f"{path}: holds the order of a probe: the editing key of demo 3 finds sets along it")
    if not isinstance(data, dict):
        raise SpecError(f"{path}: must hold a JSON object, {{...}}; got {type(data).__name__}")
    try:
        return VitalSet.model_validate(data, context=path.parent)
    except ValidationError as error:
        raise SpecError(one_line(problems_of(VitalSet, error), str(path))) from None
