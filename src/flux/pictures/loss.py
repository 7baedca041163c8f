"""How much of its source an edit lost, told from the pictures alone.

An edit may recolour a sky or put a hat on a cat and still be its source: things stand where they stood.
So outlines are compared, not colours, with some reach, so that a line may shift a little. Colours count where
an edit shows what neither the source nor the picture without injection shows, above all where these two
agree: nothing was asked for there.
"""

import cv2
import numpy as np
from PIL import Image

from flux.pictures.rgb import rgb

SIDE = 128
"""Pictures are compared at this length of their longer side: things count, textures do not."""
LEVELS = 64
"""Of 255: neighbours that differ by more are an outline, colours that do are unlike."""
REACH = 2
"""How many pixels, of `SIDE`, an outline may shift."""
STRANGE = 2.5
"""How much a pixel that looks like nothing expected counts, beside the share of outlines."""


def loss(source: Image.Image, edit: Image.Image, plain: Image.Image | None = None) -> float:
    """0 for an edit that kept all of its source, and about 1 for one that kept nothing; at most 3.5.

    plain: the picture of the edit's prompt without injection; without it outlines alone count.
    """
    pictures = [_small(image) for image in (source, edit, plain) if image is not None]
    lost = _unlike_outlines(*pictures[:2])
    return lost if plain is None else lost + STRANGE * _strange(*pictures)


def _small(image: Image.Image) -> np.ndarray:
    """(H, W, 3), 0 to 255, no side longer than `SIDE`."""
    size = [max(1, round(side * min(1.0, SIDE / max(image.size)))) for side in image.size]
    return np.asarray(rgb(image).resize(size, Image.Resampling.BOX), dtype=np.int16)


def _unlike_outlines(a: np.ndarray, b: np.ndarray) -> float:
    """The share of both pictures' outlines that have none of the other's beside them; 0 without outlines."""
    first, second = _outlines(a), _outlines(b)
    alone = (first & ~_widened(second)).sum() + (second & ~_widened(first)).sum()
    return float(alone / max(1, first.sum() + second.sum()))


def _outlines(picture: np.ndarray) -> np.ndarray:
    """Where a pixel differs from the one before it, in its row or its column: bool (H, W)."""
    steps = [np.abs(np.diff(picture, axis=axis, prepend=picture.take([0], axis))) for axis in (0, 1)]
    return np.maximum(*steps).max(axis=-1) > LEVELS


def _widened(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * REACH + 1,) * 2, np.uint8)).astype(bool)


def _strange(source: np.ndarray, edit: np.ndarray, plain: np.ndarray) -> float:
    """The share of pixels in which an edit is unlike its source and unlike the picture without injection."""
    return float(
        np.logical_and(*(np.abs(edit - other).max(axis=-1) > LEVELS for other in (source, plain))).mean()
    )
