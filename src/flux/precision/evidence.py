"""Which layers matter most, by the files that demo 3 writes: vital, probe and editing layers.

Read with no more than what is needed here: a model, and an order of its layers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.models import Layers
from flux.text_files import parse_json, read_text


@dataclass(frozen=True)
class Evidence:
    """order: numbers of layers, what matters most first. count: how many of them a file picks, if it does."""

    order: tuple[int, ...]
    count: int | None


def read_evidence(file: Path, model: str, layers: Layers) -> Evidence:
    """The order of layers in a file. model: the name of the model that it is for.

    vital_layers.json: by similarity, the smallest first, where all have one, else as its layers stand there.
    probe_layers.json and editing_layers.json: their order. A mere list of layers: as it stands.
    Raises ValueError, one line, in words that begin with the key `keep`.
    """
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError(f"keep: {file} is no regular file")
    try:
        data = parse_json(read_text(file))
    except ValueError as error:
        raise ValueError(f"keep: {file} {error}") from None
    if isinstance(data, list):
        data = {"model": model, "layers": data}
    if not isinstance(data, dict) or not ("layers" in data or "order" in data):
        raise ValueError(
            f"keep: {file} ranks no layers: name vital_layers.json, probe_layers.json or editing_layers.json "
            "of demo 3"
        )
    if "model" not in data:
        raise ValueError(f"keep: {file} does not say which model it was found on, by the key model")
    if data["model"] != model:
        raise ValueError(f"keep: {file} was found on {_short(data['model'])}, the model is {model}")
    try:
        return _evidence(data, layers)
    except (ValueError, TypeError) as error:
        raise ValueError(f"keep: {file} {error}") from None


def _evidence(data: dict[str, Any], layers: Layers) -> Evidence:
    if "order" in data:
        if not isinstance(data["order"], list) or not data["order"]:
            raise ValueError("has an order that is no list of layers")
        return Evidence(_once(number for each in data["order"] for number in _numbers(each, layers)), None)
    names = data["layers"]
    if not isinstance(names, list) or not names:
        raise ValueError("has layers that are no list of layers")
    vital = _once(number for each in names for number in _numbers(each, layers))
    means = data.get("similarity")
    if isinstance(means, list) and len(means) == len(layers) and all(map(_is_number, means)):
        if not all(map(math.isfinite, means)):
            raise ValueError("has a similarity that is not finite: compare the pictures again")
        return Evidence(tuple(sorted(range(len(layers)), key=means.__getitem__)), len(vital))
    return Evidence(vital, len(vital))


def _numbers(entry: Any, layers: Layers) -> Iterator[int]:
    """The layers of one entry of an order: a name, several, or an object of a probe's file."""
    if isinstance(entry, dict):
        if entry.get("head") is not None or entry.get("window") is not None:
            raise ValueError("ranks heads or windows of steps, and not whole layers")
        entry = entry.get("layers")
    for name in entry if isinstance(entry, list) else [entry]:
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise ValueError(f"ranks {_short(name)}, which is no layer")
        yield layers.index(name)


def _once(numbers: Iterator[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(numbers))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
