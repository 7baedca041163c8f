"""Which layers a spec means: a list, a named set, or a vital-set file, and what such a file holds.

{"model": "flux-dev", "layers": [0, 1, "single.9"], "threshold": 0.95, "similarity": [0.31, null, ...]}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from flux.flags import choices
from flux.models import VITAL_LAYERS, LayerName
from flux.studies.reading import SpecError, one_line, problems_of, read_json
from flux.studies.spec import (
    NOT_A_LAYER,
    ALayer,
    ConfigDict,
    Field,
    KeyPath,
    ModelChoice,
    PlainValidator,
    Problem,
    Section,
    Several,
    Text,
    ValidationError,
    ValidationInfo,
    absolute,
    is_layer_name,
    refusal,
)

GROUPS = ("all", "double.*", "single.*")


class VitalSet(Section):
    """The vital layers of a model. A file may hold more keys, as further evidence."""

    model_config = ConfigDict(extra="ignore")

    model: Text = Field(description="the model the set was found on")
    layers: Several[ALayer] = Field(description="numbers, double.i or single.i")
    threshold: float | None = Field(
        None, description="the mean similarity to the reference below which a layer counts as vital"
    )
    similarity: Several[float | None] | None = Field(
        None,
        description="mean similarity to the reference with each layer skipped, layer 0 first; null where it "
        "is unknown",
    )
    weights: dict[str, Any] | None = Field(None, description="what the model's weights are known by")


def read_vital_set(path: Path) -> VitalSet:
    """Raises SpecError, one line, for a file that is missing, no JSON, or no vital set."""
    try:
        return VitalSet.model_validate(read_json(path), context=path.parent)
    except ValidationError as error:
        raise SpecError(one_line(problems_of(VitalSet, error), str(path))) from None


def _layers(value: Any, info: ValidationInfo) -> str | tuple[LayerName, ...]:
    """Names as they stand, a file's path made absolute. Whether the model has them is asked later."""
    if isinstance(value, str):
        if not value.endswith(".json"):
            return str(value)
        file = absolute(value, info)
        if not file.is_file():
            raise ValueError(f"no such file: {file}")
        return str(file)
    if type(value) is int:
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list of layers, the name of a set, "all", or the path of a .json file')
    wrong = [i for i, name in enumerate(value) if not is_layer_name(name)]
    if wrong:
        raise refusal(Problem((i,), NOT_A_LAYER, value[i]) for i in wrong)
    return tuple(value)


LayerChoice = Annotated[
    str | tuple[LayerName, ...],
    PlainValidator(_layers, json_schema_input_type=ALayer | tuple[ALayer, ...]),
]
"""Names of layers, or the name of a set or a group, or the absolute path of a vital-set file."""


def layer_numbers(choice: LayerChoice, model: ModelChoice) -> tuple[int, ...]:
    """The layers of a choice that has no problems, ascending."""
    return model.record.layers.indices(_names(choice, model))


def layer_problems(
    path: KeyPath, choice: LayerChoice, model: ModelChoice, *, any_model: bool
) -> Iterator[Problem]:
    """What is wrong with the choice that stands at `path`. any_model: allow a set of another model."""
    try:
        names = _names(choice, model)
    except KeyError:
        known = choices([*VITAL_LAYERS.get(model.name, {}), *GROUPS], choice)
        yield Problem(path, f"no set of {model.name}: {known}, a list, or the path of a .json file", choice)
        return
    except ValueError as error:
        yield Problem(path, f"not a vital set: {error}", choice)
        return
    if _is_file(choice) and not any_model:
        found_on = read_vital_set(Path(choice)).model
        if found_on != model.name:
            text = (
                f"was found on {found_on}, the model is {model.name}; any_model = true takes it all the same"
            )
            yield Problem(path, text, choice)
            return
    layers = model.record.layers
    for i, name in enumerate(names):
        try:
            layers.expand(name)
        except ValueError:
            place = path if isinstance(choice, str) else (*path, i)
            yield Problem(place, f"{model.name} has {layers.range()}", name)


def _names(choice: LayerChoice, model: ModelChoice) -> tuple[LayerName, ...]:
    """The names a choice stands for. KeyError for a set the model lacks, SpecError for a bad file."""
    if not isinstance(choice, str):
        return choice
    if _is_file(choice):
        return read_vital_set(Path(choice)).layers
    return (choice,) if choice in GROUPS else VITAL_LAYERS[model.name][choice]


def _is_file(choice: LayerChoice) -> bool:
    return isinstance(choice, str) and choice.endswith(".json")
