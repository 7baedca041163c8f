"""What the command line says of a picture beside its prompt. Imports no torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flux.flags import cut
from flux.models import LayerName, ModelSpec
from flux.photos.wanted import Place, RegionPlace, StartPhoto, Wanted
from flux.strength import START_RULES

BOX = re.compile(r"\s*\[?\s*" + r"\s*,\s*".join([r"(\d{1,6})"] * 4) + r"\s*\]?\s*")


def wanted_of(
    spec: ModelSpec,
    *,
    negative_prompt: str | None,
    true_cfg: float | None,
    two_passes: bool,
    image: str | None,
    strength: float | None,
    mask: str | None,
    start_rule: str,
    region: str | Sequence[str] | None,
    region_layers: str,
) -> Wanted:
    """The options of the same names, checked as far as they are known without opening a file.

    Raises ValueError, in one line that names the option.
    """
    for name, value in (("strength", strength), ("mask", mask)):
        if image is None and value is not None:
            raise ValueError(f"{name} is for a picture to start from: give image too")
    regions = [region] if isinstance(region, str) else list(region or ())
    start = None
    if image is not None:
        start = StartPhoto(
            _file("image", image),
            1.0 if strength is None else _share("strength", strength),
            None if mask is None else _place("mask", mask),
            rule=_choice("start_rule", start_rule, START_RULES),
        )
    return Wanted(
        negative_prompt=negative_prompt,
        true_cfg=None if true_cfg is None else _number("true_cfg", true_cfg),
        two_passes=two_passes,
        start=start,
        regions=tuple(map(_region, regions)),
        layers=_layers(spec, region_layers) if regions else ("all",),
    )


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number; got {cut(repr(value))}")
    return float(value)


def _share(name: str, value: Any) -> float:
    if not 0 <= _number(name, value) <= 1:
        raise ValueError(f"{name} must be between 0 and 1; got {value}")
    return float(value)


def _choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"{name} is {cut(repr(value))}: choose from {', '.join(choices)}")
    return value


def _file(name: str, value: str) -> Path:
    path = Path(str(value)).expanduser()
    if not path.is_file():
        raise ValueError(f"{name}: {path} is a folder" if path.is_dir() else f"{name}: no such file: {path}")
    return path


def _place(name: str, value: str) -> Place:
    """`x0,y0,x1,y1`, or a mask's file."""
    if (box := BOX.fullmatch(str(value))) is None:
        return _file(name, value)
    left, top, right, bottom = map(int, box.groups())
    if not (left < right and top < bottom):
        raise ValueError(f"{name} {cut(str(value))!r} must be a box x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    return left, top, right, bottom


def _region(text: str) -> RegionPlace:
    where, colon, prompt = str(text).partition(": ")
    if not colon or not prompt.strip():
        raise ValueError(
            f'region {cut(repr(text))} must be a box or a mask\'s file, ": " and a prompt, as in '
            '"0,0,64,128: a red house"'
        )
    return RegionPlace(prompt.strip(), _place("region", where.strip()))


def _layers(spec: ModelSpec, text: str) -> tuple[LayerName, ...]:
    words = [word for word in re.split(r"[\s,]+", str(text)) if word]
    names = [int(word) if word.isdecimal() and len(word) < 10 else word for word in words]
    try:
        return tuple(dict.fromkeys(layer for name in names for layer in spec.layers.expand(name)))
    except ValueError as error:
        raise ValueError(f"region_layers: {error}") from None
