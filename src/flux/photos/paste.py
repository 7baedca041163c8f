"""An edit comes back to its photograph: inside the mask the edit, outside the very pixels of the photo."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from flux.photos.framing import ROUNDING, Frame

LEAST = 0.01
"""Where the mask is below, nothing changes."""

CHANGED = 0.18
"""Where an edit differs less from the unedited picture, the mask is closed, smoothly.

In the range of pictures, [-1, 1]: the mean over 5 x 5 pixels of the channel that differs most. Measured with
`OVERWRITTEN` on 45 rendered scenes (FlowEdit at guidance 1, gated) against a paste without both: outside the
edit 56.3 dB are kept (51.3), the whole is 25.3 dB from the true target (24.3), inside the edit it is 15.84
(15.89), and as many edits are made. At .25 it were 56.8, 25.5 and 15.72 dB.
"""

OVERWRITTEN = 0.35
"""Where an edit differs less, the photo's details stay, as they show what is still there."""

REDRAWN, NEAR, FIRMNESS = 0.6, 5, 0.12
"""Where an edit differs more, by `FIRMNESS`, the photo's details go within `NEAR` x `NEAR` pixels as well.

They are strongest at the outlines of things, of which an edit that takes a thing away would else leave a
ghost, the plainer the larger the photo. Measured on 41 rendered scenes of three times the picture's size:
things removed come out 39.5 dB from the true target (38.5 without), 27.1 inside the edit (26.5); all edits
26.69 (26.67) and 16.05 (15.99), and 31.9 dB are kept outside either way.
"""

SOFTNESS = 0.25
"""How far from these limits, as a logarithm, a weight is 1 / (1 + e) or 1 - 1 / (1 + e)."""

PASTE_BELOW = 0.9
"""Where that is left to itself, edits are pasted whose mask covers less than this share of the picture.

Measured on flux-tiny: edits of the ground, at shares of .46 to .80, come 3.5 to 8.7 dB nearer to their true
target by it; edits of the sky at .98 and more, of which all is new, by 0 to .6 dB.
"""

BAND = 2**20
"""So many pixels are pasted at once."""


def nothing_to_paste(share: float) -> str:
    """What is said of an edit whose mask covers so much of the picture that it comes back whole."""
    return f"the edit changes {share:.0%} of the picture: there is nothing to paste it into"


def paste(
    photo: Image.Image,
    frame: Frame,
    mask: Tensor,
    edit: Tensor,
    reconstruction: Tensor,
    residual: bool | Literal["auto"] = "auto",
) -> Image.Image:
    """The photo, 8-bit RGB at its own size, with the edit inside the mask M: photo + M (edit - photo).

    mask: (h, w) in [0, 1], on any grid over the frame. edit, reconstruction: with the edit and without, as
    the autoencoder gives it back, RGB in [-1, 1], (3, height, width) of the frame. Masks are brought to the
    photo's size bilinearly, pictures bicubically, each over all it shows where the photo is the smaller one.
    Where the mask is below .01 there, the photo's bytes stay.

    residual: whether the photo keeps inside the mask what autoencoder and smaller size lost, its residual:
    photo + M (edit - reconstruction). "auto": where the edit left the picture as it was and not where it drew
    something else, see `OVERWRITTEN`, or near that, see `REDRAWN`; and the mask is closed where nothing
    changed, see `CHANGED`.
    """
    result = photo.copy()
    result.info = _colours(photo)
    layers = _reduced(torch.cat(_weights(edit - reconstruction, residual)), frame, "bilinear")
    mask = _reduced(mask[None], frame, "bilinear")[0]
    edit, reconstruction = (_reduced(each, frame, "bicubic") for each in (edit, reconstruction))
    for rows, columns in _bands(frame, mask):
        at = _grid(frame, rows, columns)
        opened, overwritten = _sampled(layers, at, "bilinear").split(1)
        m = _sampled(mask[None], at, "bilinear") * opened
        inside = m >= LEAST
        if not inside.any():
            continue
        box = (columns.start, rows.start, columns.stop, rows.stop)
        levels = np.array(photo.crop(box))
        before = torch.from_numpy(levels).permute(2, 0, 1) / 127.5 - 1
        drawn, plain = (_sampled(each, at, "bicubic") for each in (edit, reconstruction))
        # From the photo's own pixels to the edit's, or as far as the edit is from the reconstruction.
        after = before + m * torch.lerp(drawn - plain, drawn - before, overwritten)
        pasted = ((after.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        kept = np.where(inside[0, ..., None].numpy(), pasted, levels)
        result.paste(Image.fromarray(kept), box[:2])
    return result


def _colours(photo: Image.Image) -> dict[str, bytes]:
    """The photo's colour profile, if it is one of RGB: without it the same pixels would look otherwise."""
    profile = photo.info.get("icc_profile") or b""
    return {"icc_profile": profile} if profile[16:20] == b"RGB " else {}


def _weights(change: Tensor, residual: bool | Literal["auto"]) -> tuple[Tensor, Tensor]:
    """How far the mask is open, and how far details go, by pixel of the frame: (1, height, width) each."""
    if residual != "auto":
        whole = torch.ones_like(change[:1])
        return whole, whole * (not residual)
    seen = functional.avg_pool2d(
        change.abs().amax(dim=0, keepdim=True)[None], 5, 1, 2, count_include_pad=False
    )[0]
    level = seen.clamp(min=1e-6).log()
    opened, overwritten = (
        torch.sigmoid((level - math.log(limit)) / SOFTNESS) for limit in (CHANGED, OVERWRITTEN)
    )
    near = functional.max_pool2d(level[None], NEAR, 1, NEAR // 2)[0]
    return opened, torch.maximum(overwritten, torch.sigmoid((near - math.log(REDRAWN)) / FIRMNESS))


def _reduced(picture: Tensor, frame: Frame, mode: str) -> Tensor:
    """A picture of the frame, (C, h, w), in no more pixels than the photo has there; all of it counts."""
    left, top, right, bottom = frame.box
    most = tuple(max(1, math.ceil(span - ROUNDING)) for span in (bottom - top, right - left))
    size = tuple(map(min, picture.shape[1:], most))
    if size == picture.shape[1:]:
        return picture
    return functional.interpolate(picture[None].float(), size, mode=mode, antialias=True)[0]


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
