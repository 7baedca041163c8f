"""The kinds of value a spec holds: each reads a JSON value, or refuses it in words that name the choices.

A kind is data, not a class to derive from: a function that reads, and the JSON Schema that says the same to
editors.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.studies.spec.errors import Problem, Refused, below, choices
from flux.studies.spec.strict_json import Typed


@dataclass(frozen=True)
class Context:
    """Where a value comes from. folder: of the spec, to which its paths are relative."""

    folder: Path = Path(".")

    def path(self, text: str) -> Path:
        """A path: in a spec relative to its folder, typed on the command line to the working directory.

        Refuses what no file can be called.
        """
        folder = Path(".") if isinstance(text, Typed) else self.folder
        try:
            path = Path(os.path.abspath(folder / Path(text).expanduser()))
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                path.stat()
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise refuse(f"cannot be a path ({reason})", text) from None
        return path


@dataclass(frozen=True)
class Kind:
    """read(value, context) returns the value to use or raises Refused; schema is the kind's JSON Schema.

    part: the class of objects that are, or are in, values of this kind.
    """

    read: Callable[[Any, Context], Any]
    schema: Mapping[str, Any]
    part: type | None = None


def refuse(text: str, value: Any) -> Refused:
    return Refused([Problem((), text, value)])


def _text(value: Any, context: Context) -> str:
    if not isinstance(value, str):
        raise refuse("must be text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse("must be text: it holds half of a surrogate pair", ascii(value)) from None
    return str(value)


def _flag(value: Any, context: Context) -> bool:
    if not isinstance(value, bool):
        raise refuse("must be true or false", value)
    return value


text = Kind(_text, {"type": "string"})
flag = Kind(_flag, {"type": "boolean"})


def whole(lowest: int, highest: int | None = None, multiple: int = 1) -> Kind:
    """A whole number from `lowest` to `highest`, a multiple of `multiple`."""

    def read(value: Any, context: Context) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise refuse("must be a whole number", value)
        return _multiple(_within(value, lowest, highest), multiple)

    return Kind(
        read,
        {"type": "integer", **_limits(lowest, highest), **({"multipleOf": multiple} if multiple > 1 else {})},
    )


def number(lowest: float | None = None, highest: float | None = None) -> Kind:
    """A finite number from `lowest` to `highest`."""

    def read(value: Any, context: Context) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise refuse("must be a number", value)
        if not -sys.float_info.max <= value <= sys.float_info.max:
            raise refuse("must be a finite number", value)
        return float(_within(value, lowest, highest))

    return Kind(read, {"type": "number", **_limits(lowest, highest)})


def _within(value: float, lowest: float | None, highest: float | None) -> float:
    if lowest is not None and highest is not None and not lowest <= value <= highest:
        raise refuse(f"must be between {lowest} and {highest}", value)
    if lowest is not None and value < lowest:
        raise refuse(f"must be {lowest} or more", value)
    return value


def _multiple(value: int, of: int) -> int:
    if value % of:
        raise refuse(f"must be a multiple of {of}, such as {max(of, round(value / of) * of)}", value)
    return value


def _limits(lowest: float | None, highest: float | None) -> dict[str, float]:
    return _not_none(minimum=lowest, maximum=highest)


def _not_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def one_of(names: Sequence[str]) -> Kind:
    """One of some names."""

    def read(value: Any, context: Context) -> str:
        if value not in names or not isinstance(value, str):
            raise refuse(choices(names, value), value)
        return str(value)

    return Kind(read, {"enum": list(names)})


def or_null(kind: Kind) -> Kind:
    """A kind, or null, which is None."""
    return Kind(
        lambda value, context: None if value is None else kind.read(value, context),
        {"anyOf": [kind.schema, {"type": "null"}]},
        kind.part,
    )


def list_of(kind: Kind, *, unique: bool = False, or_one: bool = False) -> Kind:
    """A list with an entry at least. unique: no entry twice. or_one: what is no list is its only entry."""

    def read(value: Any, context: Context) -> tuple:
        if or_one and not isinstance(value, list | tuple):
            return (kind.read(value, context),)
        if not isinstance(value, list | tuple):
            raise refuse("must be a list", value)
        if not value:
            raise refuse("must have at least one entry", value)
        entries, problems = [], []
        for i, entry in enumerate(value):
            try:
                entries.append(kind.read(entry, context))
                if unique and entries[-1] in entries[:-1]:
                    problems.append(Problem((i,), "stands here twice", entry))
            except Refused as refused:
                problems += below((i,), refused.problems)
        if problems:
            raise Refused(problems)
        return tuple(entries)

    schema = {
        "type": "array",
        "items": kind.schema,
        "minItems": 1,
        **({"uniqueItems": True} if unique else {}),
    }
    return Kind(read, {"anyOf": [schema, kind.schema]} if or_one else schema, kind.part)


def _path(value: Any, context: Context) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise refuse("must be a path, as text", value)
    return value if isinstance(value, Path) else context.path(value)


def _folder(value: Any, context: Context) -> Path:
    path = _path(value, context)
    if not path.is_dir():
        raise refuse(f"{path} is not a folder" if path.exists() else f"no such folder: {path}", value)
    return path


def _hub_or_folder(value: Any, context: Context) -> str:
    """A folder's absolute path where there is such a folder, else the text as it stands."""
    name = _text(value, context)
    place = context.path(value)
    return str(place) if place.is_dir() else name


path = Kind(_path, {"type": "string"})
folder = Kind(_folder, {"type": "string"})
hub_or_folder = Kind(_hub_or_folder, {"type": "string"})


def _device(value: Any, context: Context) -> str:
    name, colon, number = value.partition(":") if isinstance(value, str) else ("", "", "")
    if name not in ("auto", "cpu", "mps", "cuda") or (colon and not (name == "cuda" and number.isdecimal())):
        raise refuse("choose from auto, cpu, mps, cuda, cuda:0, cuda:1 and so on", value)
    return str(value)


device = Kind(_device, {"type": "string", "pattern": "^(auto|cpu|mps|cuda(:[0-9]+)?)$"})


def _window(value: Any, context: Context) -> tuple[int, int]:
    whole = isinstance(value, list | tuple) and all(type(step) is int for step in value)
    if not whole or len(value) != 2 or not 0 <= value[0] < value[1]:
        raise refuse("must be [start, stop], two whole numbers with 0 <= start < stop", value)
    return tuple(value)


window = Kind(
    _window, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}
)


def _layers(value: Any, context: Context) -> str | tuple[int | str, ...]:
    """Names as they stand, a file's path made absolute. Whether the model has them is asked later."""
    if isinstance(value, str):
        if not value.endswith(".json"):
            return str(value)
        file = context.path(value)
        if not file.is_file():
            raise refuse(f"no such file: {file}", value)
        return str(file)
    if type(value) is int:
        value = [value]
    if not isinstance(value, list | tuple):
        raise refuse('must be a list of layers, the name of a set, "all", or the path of a .json file', value)
    for i, name in enumerate(value):
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise Refused([Problem((i,), "must be a layer's number or its name, such as double.3", name)])
    return tuple(value)


layers = Kind(
    _layers,
    {"anyOf": [{"type": ["integer", "string"]}, {"type": "array", "items": {"type": ["integer", "string"]}}]},
)
"""A layer, a list of layers, the name of a set, or the absolute path of a vital-set file."""
