"""What is known of a picture beside its pixels, such as whether it was pasted, is kept in its file.

So a run that goes on, or is mended, knows it as well.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from flux.studies.folder import RunFolder

FIGURES = "figures"
"""The text in a picture's file that holds it, as JSON."""

PASTED = {True: "yes: outside the mask the source's own pixels", False: "no"}
"""In words."""


def figures_of(run: RunFolder, name: str) -> dict[str, Any]:
    """What a picture's file says of it; nothing where it says nothing."""
    with Image.open(run.path / name) as image:
        image.load()
        return json.loads(image.text.get(FIGURES, "{}"))


def sentences(note: str | None) -> list[str]:
    """A note of an edit as a page has it; none where there is none."""
    return [f"{note[0].upper()}{note[1:]}."] if note else []


def as_text(figures: Mapping[str, Any]) -> str:
    """Figures as a picture's file holds them."""
    return json.dumps(_finite(figures), ensure_ascii=False)


def _finite(value: Any) -> Any:
    """With null in the place of what JSON has no number for: the PSNR of equal pictures."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
