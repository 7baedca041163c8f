"""How alike two pictures are, and what that says about an edit.

Pictures are 8-bit RGB, so that a figure can be computed again from the files of a run.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from flux.extras import need
from flux.pictures.features import Dino
from flux.pictures.loss import loss
from flux.pictures.rgb import rgb

BAND = 2**22
"""So many pixels are compared at once."""


def difference(a: Image.Image, b: Image.Image) -> np.ndarray:
    """How far each pixel differs in its most different channel: (H, W), 0 to 255."""
    return np.abs(_levels(a) - _levels(b)).max(axis=-1)


def changed_share(a: Image.Image, b: Image.Image, pixel: int = 8) -> float:
    """The share of pixels in which a channel differs by more than `pixel` of 255 levels."""
    return float((difference(a, b) > pixel).mean())


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB of two pictures of one size; infinite for equal ones."""
    first, second = (np.asarray(rgb(image)) for image in (a, b))
    # Whole numbers, whose sum is exact in any order.
    total = sum(
        int(np.square(first[rows].astype(np.int32) - second[rows]).sum(dtype=np.int64))
        for rows in _bands(len(first), first.shape[1])
    )
    return math.inf if total == 0 else 10 * math.log10(255**2 / (total / first.size))


OUTSIDE = 0.01
"""Where a mask is below this share of white, a picture counts as outside the edit."""


def outside_of(mask: Image.Image) -> np.ndarray:
    """Where a mask of an edit is as good as black, (H, W)."""
    return np.asarray(mask.convert("L")) < 255 * OUTSIDE


def psnr_outside(a: Image.Image, b: Image.Image, mask: Image.Image) -> float | None:
    """PSNR in dB where a mask is dark; None where it is dark nowhere, or nothing differs."""
    outside = outside_of(mask)
    if not outside.any():
        return None
    first, second = (Image.fromarray(np.asarray(rgb(image))[outside][None]) for image in (a, b))
    value = psnr(first, second)
    return value if math.isfinite(value) else None


def ssim_outside(a: Image.Image, b: Image.Image, mask: Image.Image) -> float | None:
    """SSIM, the mean of all windows whose middle lies where a mask is dark; None where there are none.

    None too for pictures with a side below `WINDOW`.
    """
    if min(a.size) < WINDOW:
        return None
    measure = need("skimage.metrics", "similarity", "SSIM").structural_similarity
    first, second = (np.asarray(rgb(image)) for image in (a, b))
    _, values = measure(first, second, win_size=WINDOW, channel_axis=-1, data_range=255, full=True)
    edge = WINDOW // 2
    inner = (slice(edge, first.shape[0] - edge), slice(edge, first.shape[1] - edge))
    outside = outside_of(mask)[inner]
    return float(values.mean(axis=-1)[inner][outside].mean()) if outside.any() else None


def _levels(image: Image.Image) -> np.ndarray:
    return np.asarray(rgb(image), dtype=np.float64)


WINDOW = 7
"""The side of the squares, in pixels, that SSIM compares."""


def ssim(a: Image.Image, b: Image.Image) -> float:
    """Structural similarity of two pictures of one size, at most 1, by scikit-image.

    A picture's sides must be `WINDOW` pixels or more.
    """
    measure = need("skimage.metrics", "similarity", "SSIM").structural_similarity
    first, second = (np.asarray(rgb(image)) for image in (a, b))
    # A band is as many rows of windows; their mean is that of all windows.
    bands = list(_bands(len(first) - WINDOW + 1, first.shape[1]))
    values = [
        measure(
            first[rows.start : rows.stop + WINDOW - 1],
            second[rows.start : rows.stop + WINDOW - 1],
            win_size=WINDOW,
            channel_axis=-1,
            data_range=255,
        )
        for rows in bands
    ]
    return float(np.average(values, weights=[rows.stop - rows.start for rows in bands]))


def _bands(height: int, width: int) -> Iterator[slice]:
    """Rows of a picture of `height` in parts of about `BAND` pixels, so that large pictures take no more."""
    rows = max(1, BAND // width)
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def patch_similarity(a: Image.Image, b: Image.Image, dino: Dino) -> float:
    """The mean cosine of corresponding DINO patches of two pictures, -1 to 1; 1 for equal ones.

    Unlike the class token's, which sees little but scenery, it grades what changes in a part of the picture.
    """
    first, second = dino.patches([a, b])
    return float((first * second).sum(dim=-1).mean().clamp(-1, 1))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two features (C,), -1 to 1; exactly 1 for equal ones."""
    if np.array_equal(a, b):
        return 1.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def scaled(cosine: float) -> float:
    """A cosine on the scale from 0 to 1 that some tools show: (cos + 1) / 2."""
    return (cosine + 1) / 2


@dataclass(frozen=True)
class Score:
    """An edit's picture compared with the source's; None where it was not measured.

    changed: share of changed pixels. psnr: in dB, None for equal pictures. similarity: DINO similarity.
    plain_*: the same of the picture without injection. loss: how much of the source got lost, see
    `flux.pictures.loss`.
    """

    changed: float
    psnr: float | None
    similarity: float | None = None
    plain_changed: float | None = None
    plain_similarity: float | None = None
    loss: float | None = None


def score(
    source: Image.Image,
    edit: Image.Image,
    plain: Image.Image | None = None,
    *,
    dino: Dino | None = None,
    pixel: int = 8,
) -> Score:
    """Compare an edit, and if given the picture of its prompt without injection, with the source."""
    ratio = psnr(source, edit)
    alike: list[float] = []
    if dino is not None:
        first, *others = dino.features([image for image in (source, edit, plain) if image is not None])
        alike = [float(first @ other) for other in others]
    return Score(
        changed=changed_share(source, edit, pixel),
        psnr=None if math.isinf(ratio) else ratio,
        similarity=alike[0] if alike else None,
        plain_changed=None if plain is None else changed_share(source, plain, pixel),
        plain_similarity=alike[1] if len(alike) > 1 else None,
        loss=loss(source, edit, plain),
    )


def did_nothing(score: Score, floor: float, threshold: float) -> bool:
    """Whether no more of the picture changed than `threshold`, or than the noise where that is larger."""
    return score.changed <= max(floor, threshold)


def lost_source(score: Score, threshold: float) -> bool:
    """Whether more of the source got lost than `threshold`. False where that was not measured."""
    return score.loss is not None and score.loss > threshold
