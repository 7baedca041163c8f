"""How LoRA files name layers: a row for each layout, a file for each row. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass

from flux.lora.layouts import diffusers, kohya, official, xlabs
from flux.lora.places import Place, Places


@dataclass(frozen=True)
class Layout:
    """find: the place that a layer's name in a file means, or None for a name of another layout."""

    title: str
    find: Callable[[str, Places], Place | None]


LAYOUTS = (
    Layout("official", official.find),
    Layout("diffusers", diffusers.find),
    Layout("kohya", kohya.find),
    Layout("XLabs", xlabs.find),
)
