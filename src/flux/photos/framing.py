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

ROUNDING = 1e-6
"""Parts of a pixel that are rounding errors of a ratio that is exact."""

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
        across, down = (self._shown(axis) for axis in (0, 1))
        # As many of the photo's pixels more as the first and the last that show it reach beyond.
        more = [
            (max(0, math.ceil(-each.start)), max(0, math.ceil(each.stop - side)))
            for each, side in zip((across, down), self.photo, strict=True)
        ]
        (left, _), (top, _) = more
        box = (across.start + left, down.start + top, across.stop + left, down.stop + top)
        # Pillow takes the very pixels where there is nothing to scale.
        part = _padded(photo, *more).resize((across.count, down.count), resample, box=box)
        return _padded(part, *((each.before, each.after) for each in (across, down)))

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """What of the picture shows any of the photo: left, top, right and bottom, in its own pixels."""
        across, down = (self._shown(axis) for axis in (0, 1))
        return (across.before, down.before, across.before + across.count, down.before + down.count)

    def without_padding(self, picture: Image.Image) -> Image.Image:
        """What a picture of `size` shows of the photo; all of it where there is no padding."""
        return picture.crop(self.inside)

    def blank_padding(self, levels: np.ndarray) -> np.ndarray:
        """Values of each pixel of a picture of `size`, (height, width), with 0 where it shows no photo."""
        left, top, right, bottom = self.inside
        blank = np.zeros_like(levels)
        blank[top:bottom, left:right] = levels[top:bottom, left:right]
        return blank

    def mean_inside(self, levels: np.ndarray) -> float:
        """The mean of values on any grid over the picture, (h, w), where it shows the photo."""
        down, across = (self._covered(axis, count) for axis, count in zip((1, 0), levels.shape, strict=True))
        return float(down @ levels @ across / (down.sum() * across.sum()))

    def shown(self, unit: int) -> np.ndarray:
        """How much of each square of `unit` pixels shows the photo: float64 (height / unit, width / unit)."""
        across, down = (self._covered(axis, self.size[axis] // unit) for axis in (0, 1))
        return np.outer(down, across)

    def _covered(self, axis: int, count: int) -> np.ndarray:
        """How much of each of `count` columns (axis 0) or rows (axis 1) over the picture shows the photo."""
        edges = np.linspace(self.box[axis], self.box[axis + 2], count + 1)
        covered = np.diff(edges.clip(0, self.photo[axis])) / np.diff(edges)
        return np.where(covered > 1 - ROUNDING, 1.0, np.where(covered < ROUNDING, 0.0, covered))

    def _shown(self, axis: int) -> "_Shown":
        """The picture's columns (axis 0) or rows (axis 1) that show any of the photo."""
        size, side = self.size[axis], self.photo[axis]
        low, step = self.box[axis], (self.box[axis + 2] - self.box[axis]) / size
        ends = max(low, 0), min(self.box[axis + 2], side)
        exact = [(end - low) / step for end in ends]
        first, last = math.floor(exact[0] + ROUNDING), math.ceil(exact[1] - ROUNDING)
        start, stop = (
            end if abs(place - at) <= ROUNDING else low + place * step
            for end, place, at in zip(ends, (first, last), exact, strict=True)
        )
        return _Shown(first, last - first, size - last, start, stop)


@dataclass(frozen=True)
class _Shown:
    """Along one axis `count` of a picture's pixels, with so many before and after them, that show a photo.

    start, stop: where they begin and end, in the photo's pixels; by less than one of the picture's beyond it.
    """

    before: int
    count: int
    after: int
    start: float
    stop: float


def _padded(picture: Image.Image, across: tuple[int, int], down: tuple[int, int]) -> Image.Image:
    """A picture with its nearest pixels repeated so many times to the left and right, above and below.

    By Pillow, which holds a large photo once more, where arrays of it would be made three times.
    """
    if across == down == (0, 0):
        return picture
    (left, right), (above, below) = across, down
    width, height = picture.size
    padded = Image.new(picture.mode, (left + width + right, above + height + below))
    padded.paste(picture, (left, above))
    for start, count, edge in ((0, left, left), (left + width, right, left + width - 1)):
        _repeat(padded, (edge, 0, edge + 1, padded.height), (start, 0, start + count, padded.height))
    for start, count, edge in ((0, above, above), (above + height, below, above + height - 1)):
        _repeat(padded, (0, edge, padded.width, edge + 1), (0, start, padded.width, start + count))
    return padded


def _repeat(picture: Image.Image, line: tuple[int, ...], place: tuple[int, ...]) -> None:
    """Fill a place of a picture that is being made with one of its columns or rows, both as boxes."""
    size = (place[2] - place[0], place[3] - place[1])
    if all(size):
        picture.paste(picture.crop(line).resize(size), place[:2])


def cut_mask(mask: Image.Image | Box, frame: Frame) -> np.ndarray:
    """Where an edit may change a photo, on the grid of the frame's latent: float32 (height / 8, width / 8).

    mask: white where it may, in a picture of the photo's size; or a box in the photo's pixels.
    Raises ValueError for a picture of another size, a box beyond the photo, and for a mask that leaves
    nothing to change or nothing to keep.
    """
    levels = cut_shares(mask, frame, CELL)
    if levels.max() == 0:
        raise ValueError(
            "a mask that is black all over leaves nothing to change: white may change, if enough of it is in "
            f"{CELL} x {CELL} pixels of the picture as it is edited"
        )
    if levels.min() == 1:
        raise ValueError(
            "a mask that is white all over keeps nothing: leave some of it black, or leave it out"
        )
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
    if how != "fit" and any(side % UNIT for side in size):
        raise ValueError(f"size is {size[0]} x {size[1]}: sides must be multiples of {UNIT}")
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
