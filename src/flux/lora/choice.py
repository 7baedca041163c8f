"""Which LoRAs are asked for, and how strong? `style.safetensors`, `style.safetensors:0.8`. No torch."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flux.flags import cut

ENV_VAR = "FLUX_LORA"
MOST_SCALE = 100


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA's file, or the folder that holds it, and its scale: 1 as it was trained, 0 nothing.

    Raises ValueError for a scale that is no number or beyond `MOST_SCALE` on either side of 0.
    """

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, int | float) or isinstance(self.scale, bool):
            raise ValueError(f"the scale of {self.path} must be a number; got {self.scale!r}")
        if not (math.isfinite(self.scale) and abs(self.scale) <= MOST_SCALE):
            raise ValueError(
                f"the scale of {self.path} must be between {-MOST_SCALE:g} and {MOST_SCALE:g}; "
                f"got {self.scale}"
            )


def split_scale(text: str) -> tuple[str, float | None]:
    """`style.safetensors:0.8` as path and scale; None where there is none, as in `C:\\style.safetensors`."""
    path, colon, end = text.rpartition(":")
    try:
        scale = float(end)
    except ValueError:
        return text, None
    return (text, None) if not colon or os.path.exists(text) else (path, scale)


def read_choice(text: str) -> LoraChoice:
    path, scale = split_scale(text.strip())
    if not path:
        raise ValueError("a LoRA's file is missing: name it as file.safetensors or file.safetensors:0.8")
    return LoraChoice(Path(path).expanduser(), 1.0 if scale is None else scale)


def read_choices(texts: str | Iterable[str]) -> tuple[LoraChoice, ...]:
    """Several in one text are separated by commas; a text that is a file's name as a whole is that file."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    words = [word for text in texts for word in ([text] if os.path.exists(text) else text.split(","))]
    return tuple(read_choice(word) for word in words if word.strip())


Choices = str | Sequence["LoraChoice | str | Path | tuple[str | Path, float]"]


def as_choices(given: Choices) -> tuple[LoraChoice, ...]:
    """LoRAs as callers name them: a text as `read_choices` takes it, or a list of files and (file, scale)."""
    if isinstance(given, str):
        return read_choices(given)
    found: list[LoraChoice] = []
    for each in given:
        if isinstance(each, LoraChoice):
            found.append(each)
        elif isinstance(each, tuple):
            found.append(LoraChoice(Path(each[0]).expanduser(), each[1]))
        else:
            found += read_choices(str(each))
    return tuple(found)


def choices_of_environment() -> tuple[LoraChoice, ...]:
    """What FLUX_LORA names, as `read_choices`; ValueError, with its name, for what is not there."""
    text = os.environ.get(ENV_VAR, "")
    try:
        found = read_choices(text)
    except ValueError as error:
        raise ValueError(f"{ENV_VAR}: {error}") from None
    for choice in found:
        if not os.path.exists(choice.path):
            raise ValueError(
                f"{ENV_VAR} names {cut(str(choice.path), 200)}, which does not exist: correct the path or "
                f"leave {ENV_VAR} out"
            )
    return found
