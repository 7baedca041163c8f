"""An edit comes back to its photograph: inside the mask the edit, outside the very pixels of the photo."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from flux.photos.framing import Frame

LEAST = 0.01
"""Where the mask is below, nothing changes."""

BAND = 2**20
"""So many pixels are pasted at once."""


def paste(
    photo: Image.Image,
    frame: Frame,
    mask: Tensor,
    edit: Tensor,
    reconstruction: Tensor | None = None,
) -> Image.Image:
    """The photo, 8-bit RGB at its own size, with the edit inside the mask: photo + M (edit - photo).

    mask: (h, w) in [0, 1], on any grid over the frame. edit: RGB in [-1, 1], (3, height, width) of the
    frame. Both are brought to the photo's size, the mask bilinearly, the edit bicubically. Where the mask is
    below .01 there, the photo's bytes stay as they are.
    reconstruction: the unedited picture as the autoencoder gives it back, like `edit`. With it the photo
    keeps inside the mask what the autoencoder and the smaller size lost: photo + M (edit - reconstruction).
    """
    levels = np.array(photo)
    change = edit if reconstruction is None else edit - reconstruction
    for rows, columns in _bands(frame, mask):
        at = _grid(frame, rows, columns)
        m = _sampled(mask[None], at, "bilinear")
        m = torch.where(m < LEAST, 0, m)
        if not m.any():
            continue
        part = levels[rows, columns]
        before = torch.from_numpy(part).permute(2, 0, 1) / 127.5 - 1
        there = _sampled(change, at, "bicubic")
        after = before + m * (there - before if reconstruction is None else there)
        pasted = ((after.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        levels[rows, columns] = np.where(m[0, ..., None].numpy() > 0, pasted, part)
    return Image.fromarray(levels)


def _bands(frame: Frame, mask: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the photo, a band at a time, that hold all that the mask reaches."""
    columns, rows = (_reach(frame, mask, axis) for axis in (0, 1))
    height = max(1, BAND // max(1, columns.stop - columns.start))
    for start in range(rows.start, rows.stop, height):
        yield slice(start, min(start + height, rows.stop)), columns


def _reach(frame: Frame, mask: Tensor, axis: int) -> slice:
    """The photo's columns (axis 0) or rows (axis 1) that the mask reaches, with one position of it around."""
    where = torch.nonzero((mask > 0).any(dim=axis))[:, 0]
    if not len(where):
        return slice(0, 0)
    first, span = frame.box[axis], frame.box[axis + 2] - frame.box[axis]
    step = span / mask.shape[1 - axis]
    ends = (first + (int(where[0]) - 1) * step, first + (int(where[-1]) + 2) * step)
    low, high = max(0.0, first, ends[0]), min(frame.photo[axis], first + span, ends[1])
    return slice(int(np.floor(low)), max(int(np.floor(low)), int(np.ceil(high - 1e-6))))


def _grid(frame: Frame, rows: slice, columns: slice) -> Tensor:
    """Where the middles of the photo's pixels lie in the frame, from -1 to 1: (1, rows, columns, 2)."""
    x, y = (
        (
            2 * (torch.arange(part.start, part.stop, dtype=torch.float64) + 0.5 - low) / (high - low) - 1
        ).float()
        for part, low, high in (
            (columns, frame.box[0], frame.box[2]),
            (rows, frame.box[1], frame.box[3]),
        )
    )
    return torch.stack((x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=-1)[None]


def _sampled(picture: Tensor, at: Tensor, mode: str) -> Tensor:
    """A picture (C, h, w) at the places of a grid: (C, rows, columns)."""
    found = functional.grid_sample(picture[None].float(), at, mode, "border", align_corners=False)
    return found[0]
