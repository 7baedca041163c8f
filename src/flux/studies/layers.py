"""The one reader of layers: numbers, names, ranges, a named set, a text of these, or a file, for every study.

What stands in a spec is checked when the model is known; until then it is kept as it was written.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from flux.confined import is_confined
from flux.flags import choices
from flux.models import VITAL_LAYERS, LayerName
from flux.studies.editing_layers import Take, read_editing_layers
from flux.studies.reading import SpecError, problems_of
from flux.studies.spec import (
    NOT_A_LAYER,
    ALayer,
    ExistingPath,
    Field,
    KeyPath,
    ModelChoice,
    PlainValidator,
    Problem,
    Section,
    Several,
    ValidationError,
    ValidationInfo,
    absolute,
    folder_of,
    is_layer_name,
    refusal,
)
from flux.studies.vital import ANY_MODEL, read_vital_set

GROUPS = ("all", "double.*", "single.*")

Entry = LayerName | tuple[LayerName, ...]
"""A name that stands for layers, one by one, or names of layers to be taken together."""

_NAME = r"(?:[a-z_]+\.)?[0-9]+(?:-[0-9]+)?|[a-z_]+\.\*|all"
WORD = re.compile(rf"(?:{_NAME})(?:\+(?:{_NAME}))*")
OTHER_FILES = (".txt", ".csv", ".jsonl", ".yaml", ".yml")

A_CHOICE = 'must be a list of layers, the name of a set, "all", or the path of a .json file'
SOME_ENTRIES = 'must be "all", or a list of layers and of lists of layers'


def words_of(text: str) -> list[str] | None:
    """The names in `0 1 7`, `0,1,7` or `0-3, double.2`; None for a text that is no such list."""
    words = re.split(r"[\s,]+", text.strip(" \t,"))
    return words if all(WORD.fullmatch(word) for word in words) else None


class LayerTake(Section):
    """A set of layers out of a file of editing layers, by what is wanted of the edit."""

    file: ExistingPath = Field(description="editing_layers.json, as demo 3 writes it")
    take: Take = Field("balanced", description="which of its sets")


def is_layer_file(choice: Any) -> bool:
    """Whether what a spec holds for layers is the absolute path of a file."""
    return isinstance(choice, str) and choice.lower().endswith(".json")


def layer_file(choice: Any) -> Path | None:
    """The file that a choice of layers comes from, if any."""
    if isinstance(choice, LayerTake):
        return choice.file
    return Path(choice) if is_layer_file(choice) else None


def _text(value: str, info: ValidationInfo) -> str:
    """Names as they stand, a file's path made absolute."""
    if is_layer_file(value):
        file = absolute(value, info)
        if not file.is_file():
            raise ValueError(f"no such file: {file}")
        return str(file)
    known = {name for sets in VITAL_LAYERS.values() for name in sets}
    if words_of(value) is None and value not in known:
        is_file = not is_confined() and len(value) < 256 and "\0" not in value
        is_file = is_file and (folder_of(value, info) / value).is_file()
        if is_file or value.lower().endswith(OTHER_FILES):
            raise ValueError("a file of layers is a .json file, a list or what demo 3 writes")
    return str(value)


def _choice(value: Any, info: ValidationInfo) -> int | str | tuple[LayerName, ...] | LayerTake:
    if isinstance(value, dict | LayerTake):
        try:
            return LayerTake.model_validate(value, context=info.context)
        except ValidationError as error:
            raise refusal(problems_of(LayerTake, error)) from None
    if isinstance(value, str):
        return _text(value, info)
    if type(value) is int:
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(A_CHOICE)
    wrong = [i for i, name in enumerate(value) if not is_layer_name(name)]
    if wrong:
        raise refusal(Problem((i,), NOT_A_LAYER, value[i]) for i in wrong)
    return tuple(value)


LayerChoice = Annotated[
    int | str | tuple[LayerName, ...] | LayerTake,
    PlainValidator(_choice, json_schema_input_type=ALayer | tuple[ALayer, ...] | LayerTake),
]
"""Layers: names, the name of a set or a group, a text of names, the path of a file, or a set out of it."""


def _entries(value: Any, info: ValidationInfo) -> int | str | tuple[Entry, ...]:
    if isinstance(value, str):
        return _text(value, info)
    if type(value) is int:
        return value
    if isinstance(value, bool):
        raise ValueError(NOT_A_LAYER)
    if not isinstance(value, list | tuple):
        raise ValueError(SOME_ENTRIES)
    if not value:
        raise ValueError("must have at least one entry")
    wrong = [problem for i, entry in enumerate(value) for problem in _entry_problems(i, entry)]
    if wrong:
        raise refusal(wrong)
    return tuple(tuple(entry) if isinstance(entry, list) else entry for entry in value)


def _entry_problems(i: int, entry: Any) -> Iterator[Problem]:
    joint = isinstance(entry, list | tuple)
    if joint and not entry:
        yield Problem((i,), "a joint set must have at least one layer", entry)
    for j, name in enumerate(entry if joint else [entry]):
        if not is_layer_name(name):
            yield Problem((i, j) if joint else (i,), NOT_A_LAYER, name)


LayerEntries = Annotated[
    int | str | tuple[Entry, ...],
    PlainValidator(_entries, json_schema_input_type=ALayer | Several[ALayer | Several[ALayer]]),
]
"""As `LayerChoice`; lists in the list, and `6+7`, are layers that are taken together."""


def layer_groups(choice: Any, model: ModelChoice) -> tuple[tuple[int, ...], ...]:
    """The groups of layers of a choice that has no problems, in order; a name has a group per layer."""
    return tuple(group for entry in entries_of(choice, model) for group in _groups(entry, model))


def layer_numbers(choice: Any, model: ModelChoice) -> tuple[int, ...]:
    """The layers of a choice that has no problems, ascending."""
    return tuple(sorted(layer for group in layer_groups(choice, model) for layer in group))


def layer_problems(
    path: KeyPath, choice: Any, model: ModelChoice, *, any_model: bool | None = None, joint: bool = False
) -> Iterator[Problem]:
    """What is wrong with the choice that stands at `path`.

    any_model: allow a file's set that was found on another model; None: the spec has no such key.
    joint: allow layers that are taken together.
    """
    try:
        entries = entries_of(choice, model)
    except KeyError:
        known = choices([*VITAL_LAYERS.get(model.name, {}), *GROUPS], choice)
        yield Problem(path, f"no set of {model.name}: {known}, a list, or the path of a .json file", choice)
        return
    except SpecError as error:
        if isinstance(choice, LayerTake):
            yield Problem((*path, "file"), f"no editing layers: {error}", str(choice.file))
        else:
            yield Problem(path, f"not a vital set: {error}", choice)
        return
    if (file := layer_file(choice)) is not None and not any_model:
        found_on = _found_on(choice, file)
        if found_on not in (model.name, ANY_MODEL):
            remedy = (
                "give its layers as a list" if any_model is None else "any_model = true takes it all the same"
            )
            shown = choice if is_layer_file(choice) else str(file)
            yield Problem(path, f"was found on {found_on}, the model is {model.name}; {remedy}", shown)
            return
    for i, entry, text in _wrong(entries, model, joint):
        if isinstance(choice, tuple):
            yield Problem((*path, i), text, list(entry) if isinstance(entry, tuple) else entry)
        else:
            yield Problem(path, text, choice if "stands in entry" in text else entry)


def _found_on(choice: Any, file: Path) -> str:
    """The model that a file's layers were found on."""
    reads = read_editing_layers if isinstance(choice, LayerTake) else read_vital_set
    return reads(file).model


def _wrong(entries: tuple[Entry, ...], model: ModelChoice, joint: bool) -> Iterator[tuple[int, Entry, str]]:
    """Entries that the model has not, or that are there twice."""
    layers = model.record.layers
    groups: dict[tuple[int, ...], int] = {}
    for i, entry in enumerate(entries):
        try:
            if not joint and isinstance(entry, str) and "+" in entry:
                raise ValueError("layers are taken together in demo 2 alone")
            for group in _groups(entry, model):
                if group in groups:
                    names = "+".join(map(str, group))
                    raise ValueError(f"layer {names} stands in entry {groups[group]} already")
                groups[group] = i
        except ValueError as error:
            absent = "does not exist" in str(error)
            yield i, entry, f"{model.name} has {layers.range()}" if absent and not joint else str(error)


def entries_of(choice: Any, model: ModelChoice) -> tuple[Entry, ...]:
    """What a choice stands for. KeyError for a set the model lacks, SpecError for a bad file."""
    if isinstance(choice, int):
        return (choice,)
    if isinstance(choice, LayerTake):
        return read_editing_layers(choice.file).sets[choice.take]
    if not isinstance(choice, str):
        return choice
    if is_layer_file(choice):
        return read_vital_set(Path(choice)).layers
    own = VITAL_LAYERS.get(model.name, {})
    if choice in own:
        return own[choice]
    if (words := words_of(choice)) is None:
        raise KeyError(choice)
    return tuple(int(word) if word.isdecimal() and len(word) < 10 else word for word in words)


def _groups(entry: Entry, model: ModelChoice) -> Iterator[tuple[int, ...]]:
    """ValueError, in words that follow the entry, for a layer that is not there or stands there twice."""
    layers = model.record.layers
    if isinstance(entry, str) and "+" in entry:
        entry = tuple(part.strip() for part in entry.split("+"))
    if not isinstance(entry, tuple):
        yield from ((layer,) for layer in layers.expand(entry))
        return
    together = [layer for name in entry for layer in layers.expand(name)]
    for layer in together:
        if together.count(layer) > 1:
            raise ValueError(f"a joint set lists each layer once, and this one layer {layer} twice")
    yield tuple(sorted(together))
