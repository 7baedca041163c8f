"""Which part of a photograph a model edits, and at what size. Imports no torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from flux.limits import MOST_PIXELS

Fit = Literal["fit", "crop", "pad"]
"""How a photo becomes a picture whose sides are multiples of 16.

fit: the whole of it, its aspect ratio kept up to the rounding, in about the pixels asked for. crop: its
middle, in exactly the size asked for. pad: the whole of it, in exactly that size, the rest filled from its
edges.
"""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in a photo's pixels."""

UNIT = 16
"""Sides are multiples of so many pixels: those of a token."""

CELL = 8
"""So many pixels are one of the latent."""

SMALLEST = 16
"""A photo's shorter side has so many pixels at least."""

LONGEST = 8
"""A photo's longer side is at most so many times its shorter one."""


@dataclass(frozen=True)
class Frame:
    """The part of a photo that a picture of the model shows.

    photo: the photo's own (width, height). size: the picture's, multiples of 16. box: what the picture shows,
    as (left, top, right, bottom) in the photo's pixels; padding reaches beyond the photo.
    """

    photo: tuple[int, int]
    size: tuple[int, int]
    box: Box

    def cut(self, photo: Image.Image, resample: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
        """The picture of `size` that shows this part of the photo, or of another picture of the photo's size.

        What lies beyond the photo is filled with its nearest pixels.
        """
        (width, height), (left, top, right, bottom) = self.size, self.box
        scale_x, scale_y = width / (right - left), height / (bottom - top)
        inside = (max(left, 0), max(top, 0), min(right, self.photo[0]), min(bottom, self.photo[1]))
        before = (round((inside[0] - left) * scale_x), round((inside[1] - top) * scale_y))
        shown = (
            max(1, round((inside[2] - inside[0]) * scale_x)),
            max(1, round((inside[3] - inside[1]) * scale_y)),
        )
        # Pillow takes the very pixels where there is nothing to scale.
        part = photo.resize(shown, resample, box=inside)
        after = (width - shown[0] - before[0], height - shown[1] - before[1])
        if before == after == (0, 0):
            return part
        sides = [(before[1], after[1]), (before[0], after[0])]
        levels = np.asarray(part)
        return Image.fromarray(np.pad(levels, sides + [(0, 0)] * (levels.ndim - 2), mode="edge"))


def cut_mask(mask: Image.Image | Box, frame: Frame) -> np.ndarray:
    """Where an edit may change a photo, on the grid of the frame's latent: float32 (height / 8, width / 8).

    mask: white where it may, in a picture of the photo's size; or a box in the photo's pixels.
    Raises ValueError for a picture of another size, a box beyond the photo, and for a mask that leaves
    nothing to change or nothing to keep.
    """
    levels = cut_shares(mask, frame, CELL)
    if levels.max() == 0:
        raise ValueError("a mask that is black all over leaves nothing to change: white may change")
    if levels.min() == 1:
        raise ValueError("a mask that is white all over keeps nothing: leave it out")
    return levels


def cut_shares(mask: Image.Image | Box, frame: Frame, unit: int) -> np.ndarray:
    """How much of each square of `unit` pixels of a frame is masked: float32 (height / unit, width / unit).

    Raises ValueError for a picture of another size than the photo, and for a box beyond it.
    """
    if not isinstance(mask, Image.Image):
        mask = _boxed(mask, frame.photo)
    if mask.size != frame.photo:
        raise ValueError(
            f"a mask of {mask.size[0]} x {mask.size[1]} pixels does not fit a photo of {frame.photo[0]} x "
            f"{frame.photo[1]}: give one of the same size"
        )
    grid = Frame(frame.photo, (frame.size[0] // unit, frame.size[1] // unit), frame.box)
    return np.asarray(grid.cut(mask.convert("L"), Image.Resampling.BOX), dtype=np.float32) / 255


def _boxed(box: Box, photo: tuple[int, int]) -> Image.Image:
    left, top, right, bottom = box
    if not (0 <= left < right <= photo[0] and 0 <= top < bottom <= photo[1]):
        raise ValueError(
            f"box {list(box)} does not lie in a photo of {photo[0]} x {photo[1]} pixels: give left, top, "
            "right and bottom in them"
        )
    mask = Image.new("L", photo)
    mask.paste(255, (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)))
    return mask


def frame_photo(
    photo: tuple[int, int], how: Fit = "fit", *, size: tuple[int, int], largest: int | None = None
) -> Frame:
    """The frame of a photo of (width, height) pixels.

    size: the picture's (width, height), multiples of 16; with `fit` its number of pixels counts alone.
    largest: the longest side that the model draws, if it has one.
    Raises ValueError, in one line, for a photo that is too small, too long, or to be edited too large.
    """
    _require_shape(photo)
    if how not in get_args(Fit):
        raise ValueError(f"fit is {how!r}: choose from {', '.join(get_args(Fit))}")
    if how == "fit":
        size = _fitting(photo, size[0] * size[1], largest)
    if max(size) > MOST_PIXELS:
        raise ValueError(
            f"a photo of {photo[0]} x {photo[1]} pixels would be edited at {size[0]} x {size[1]}, and a "
            f"side may have {MOST_PIXELS} at most: ask for fewer pixels"
        )
    width, height = photo
    # So many of the photo's pixels become one of the picture's.
    scales = (width / size[0], height / size[1])
    if how != "fit":
        scales = ((min if how == "crop" else max)(scales),) * 2
    spans = [side * scale for side, scale in zip(size, scales, strict=True)]
    left, top = ((whole - span) / 2 for whole, span in zip(photo, spans, strict=True))
    return Frame(photo, size, (left, top, left + spans[0], top + spans[1]))


def _require_shape(photo: tuple[int, int]) -> None:
    shown = f"{photo[0]} x {photo[1]} pixels"
    if min(photo) < SMALLEST:
        raise ValueError(f"a photo of {shown} is too small to be edited: a side has {SMALLEST} at least")
    if max(photo) > LONGEST * min(photo):
        raise ValueError(
            f"a photo of {shown} is too long to be edited: crop it, as one side "
            f"is at most {LONGEST} times the other"
        )


def _fitting(photo: tuple[int, int], pixels: int, largest: int | None) -> tuple[int, int]:
    """Sides in the photo's ratio, of about `pixels` pixels and none above `largest`."""
    scale = math.sqrt(pixels / (photo[0] * photo[1]))
    if largest is not None:
        scale = min(scale, largest / max(photo))
    return tuple(max(UNIT, UNIT * round(side * scale / UNIT)) for side in photo)
