"""Which layers a spec means: a list, a named set, or a vital-set file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flux.models import VITAL_LAYERS, LayerName
from flux.studies.spec.errors import Path as KeyPath
from flux.studies.spec.errors import Problem, choices
from flux.studies.spec.vital import read_vital_set

if TYPE_CHECKING:
    from flux.studies.spec.specs import ModelChoice

LayerChoice = str | tuple[LayerName, ...]
"""Names of layers, or the name of a set or a group, or the path of a vital-set file."""

GROUPS = ("all", "double.*", "single.*")


def layer_numbers(choice: LayerChoice, model: "ModelChoice") -> tuple[int, ...]:
    """The layers of a choice that has no problems, ascending."""
    return model.record.layers.indices(_names(choice, model))


def layer_problems(
    path: KeyPath, choice: LayerChoice, model: "ModelChoice", *, any_model: bool
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
    if _is_file(choice) and not names:
        yield Problem(path, "holds no layers: run demo 3 again with another rule (by)", choice)
    layers = model.record.layers
    for i, name in enumerate(names):
        try:
            layers.expand(name)
        except ValueError:
            place = path if isinstance(choice, str) else (*path, i)
            yield Problem(place, f"{model.name} has {layers.range()}", name)


def _names(choice: LayerChoice, model: "ModelChoice") -> tuple[LayerName, ...]:
    """The names a choice stands for. KeyError for a set the model lacks, SpecError for a bad file."""
    if not isinstance(choice, str):
        return choice
    if _is_file(choice):
        return read_vital_set(Path(choice)).layers
    return (choice,) if choice in GROUPS else VITAL_LAYERS[model.name][choice]


def _is_file(choice: LayerChoice) -> bool:
    return isinstance(choice, str) and choice.endswith(".json")
