"""JSON read strictly: no repeated keys, and one line with the place for each mistake."""

import json
from pathlib import Path
from typing import Any

from flux.studies.spec.errors import SpecError


class Typed(str):
    """A string that was typed on the command line: as a path, it is relative to the working directory."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; SpecError as of `read_value`, and for a file that holds anything else."""
    value = read_value(path)
    if not isinstance(value, dict):
        raise SpecError(f"{path}: must hold a JSON object, {{...}}; got {type(value).__name__}")
    return value


def read_value(path: Path) -> Any:
    """What a JSON file holds. Raises SpecError, naming the file, and line and column where JSON breaks.

    NaN and Infinity pass as floats, so that the check of the key they stand at can name it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: is a folder; name the JSON file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1].strip() if text.strip() else ""
        where = f"line {error.lineno}, column {error.colno}"
        raise SpecError(f"{path}: not valid JSON at {where}: {error.msg}: {line[:60]!r}") from None
    except RecursionError:
        raise SpecError(f"{path}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:i]))
        raise ValueError(f'key "{twice}" is given twice in one object; keep one')
    return value


def parse_typed(text: str) -> Any:
    """What was typed after a flag: JSON where it is JSON (3, true, [0, 1]), otherwise the text itself."""
    try:
        return _mark(json.loads(text, parse_constant=_refuse))
    except ValueError:
        return Typed(text)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _mark(value: Any) -> Any:
    if isinstance(value, str):
        return Typed(value)
    if isinstance(value, list):
        return [_mark(item) for item in value]
    if isinstance(value, dict):
        return {key: _mark(item) for key, item in value.items()}
    return value
