"""The files that a model looks at, and what is wrong with them, before weights load. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from flux.models import kontext_size
from flux.pictures.opening import PictureError, open_picture


@dataclass(frozen=True)
class LookedAt:
    """A picture's file, and for Fill the mask's."""

    picture: Path
    mask: Path | None = None


def picture_problem(kind: str, seen: LookedAt) -> tuple[str, str] | None:
    """What is wrong with the files for a kind of reference: "picture" or "mask", and why, in words.

    kind: as in `flux.models.ModelSpec.reference`. Asked before weights are loaded.
    """
    try:
        picture = open_picture(seen.picture)
    except PictureError as error:
        return "picture", str(error)
    if kind != "fill":
        return None
    width, height = picture.size
    if width % 16 or height % 16:
        fitting = f"{width // 16 * 16} x {height // 16 * 16}"
        return (
            "picture",
            f"{seen.picture}: {width} x {height} pixels are no multiples of 16: cut it to {fitting}",
        )
    if seen.mask is None:
        return "mask", "missing: name a picture of the same size, white where it is to be filled"
    try:
        mask = open_picture(seen.mask)
    except PictureError as error:
        return "mask", str(error)
    if mask.size != picture.size:
        size = f"{mask.size[0]} x {mask.size[1]} pixels, the picture {width} x {height}"
        return "mask", f"{seen.mask}: has {size}: they must have one size"
    return None


def own_size(kind: str, picture: Path) -> tuple[int, int] | None:
    """The width and height that a picture decides, where none are asked for; None where it decides none."""
    size = open_picture(picture).size
    return {"fill": size, "kontext": kontext_size(*size)}.get(kind)
