"""From a JSON file and what was typed after the flags to a checked spec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from flux.studies.spec.errors import Path as KeyPath
from flux.studies.spec.errors import Problem, Refused, SpecError, one_line
from flux.studies.spec.specs import SHORTHAND, Spec
from flux.studies.spec.strict_json import Typed, read_json
from flux.studies.spec.values import Context

S = TypeVar("S", bound=Spec)


def load_spec(kind: type[S], path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> S:
    """The spec in `path` (None: defaults alone) with `overrides` by dotted key, as {"model.device": "cpu"}.

    Relative paths are relative to the spec's folder, in strings that are `Typed` to the working directory.
    Raises SpecError, one line with every mistake found: file or flag, key, value, choices.
    """
    source = str(path) if path is not None else f"{kind.demo} spec"
    data = read_json(Path(path)) if path is not None else {}
    flags = {_key_path(key): value for key, value in (overrides or {}).items()}
    for key, value in flags.items():
        _put(data, key, value)
    name = Path(path).stem if path is not None else kind.demo
    if data.get("output") is None:
        data["output"] = Typed(Path("output") / kind.demo / name)
    try:
        return kind.read(data, Context(Path(path).parent if path is not None else Path(".")))
    except Refused as refused:
        raise SpecError(one_line(refused.problems, source, list(flags))) from None


def _key_path(key: str) -> KeyPath:
    """`edits.0.prompt` as ("edits", 0, "prompt")."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _put(data: Any, path: KeyPath, value: Any) -> None:
    """Set the value at `path` in nested objects and lists, making objects on the way. SpecError otherwise."""
    for i, key in enumerate(path):
        if isinstance(data, list):
            fits = isinstance(key, int) and key < len(data)
            why = f"the list has {len(data)} entries, 0 to {len(data) - 1}"
        else:
            fits, why = isinstance(data, dict), f"{path[i - 1] if i else 'it'} is not an object"
            key = str(key)
        if not fits:
            raise SpecError(one_line([Problem(path, why, value)], "", [path]))
        if i == len(path) - 1:
            data[key] = value
            return
        below = data[key] if isinstance(data, list) else data.get(key)
        if below is None:
            below = {}
        if isinstance(below, str) and key_of_text(path[: i + 1]):
            below = {key_of_text(path[: i + 1]): below}
        data[key] = below
        data = below


def key_of_text(path: KeyPath) -> str | None:
    """For a place where a bare text may stand for an object: the key of that object it is the value of."""
    names = [part for part in path if isinstance(part, str)]
    return SHORTHAND.get(names[-1]) if names else None
