"""Where an edit may change its source: masks, made from pictures, velocities, words or the edit itself.

A mask is a grid of weights, 1 where the edit may change its source and 0 where the source stays, with one
weight for each position of the latent: (N, 2 h, 2 w) for a picture of h x w tokens. Methods and operators
take it packed, (N, L, 64), as latents are (`packed`); looks take a weight for each token (`token_weights`).
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flux.sampling import pack, unpack

CHANNELS = 16


def packed(grid: Tensor) -> Tensor:
    """A mask on the latent's grid, (N, 2 h, 2 w), as latents are packed: (N, h w, 64)."""
    return pack(grid[:, None].expand(-1, CHANNELS, -1, -1))


def unpacked(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A packed mask, (N, L, 64), of a picture of `size` (h, w) tokens, on its grid: (N, 2 h, 2 w)."""
    return unpack(mask, 16 * size[0], 16 * size[1]).mean(dim=1)


def token_weights(mask: Tensor) -> Tensor:
    """One weight for each token, (N, L), of a packed mask (N, L, 64): the mean over the token's positions."""
    return mask.mean(dim=-1)


def own_mask(
    clean: Tensor,
    edit: Tensor,
    size: tuple[int, int],
    spread: float = 1.0,
    *,
    threshold: float = 0.2,
    peak: float = 0.3,
    whole: float = 0.75,
    softness: float = 0.15,
    shown: Tensor | None = None,
) -> Tensor:
    """Where an edit changed its source, packed, from both clean latents, packed too (N, L, 64).

    The change r of a position is the root of the 3 x 3 mean of the squared change, averaged over channels.
    The mask is sigmoid((ln r - ln limit) / softness). The limit is `threshold` times `spread`, the latents'
    standard deviation, and at least `peak` times the largest r of the picture: where much was changed, what
    changed a little beside it was not asked for. Not so where the mask by the threshold alone has more than
    `whole` for its mean: there the scene was to change, and its quiet parts belong to it. By percentiles it
    would eat into edits. size: (h, w) in tokens. shown: how much each position counts in that mean, and
    whether in the largest r, (N, 2 h, 2 w) in [0, 1]: 0 for a photo's padding; None for all alike.
    """
    squared = unpack((edit - clean) ** 2, 16 * size[0], 16 * size[1]).mean(dim=1)
    change = mean_around(squared, 3).clamp(min=1e-20).sqrt()
    everywhere = _above(threshold * spread, change, softness)
    if shown is None:
        largest, share = change.amax(dim=(1, 2), keepdim=True), everywhere.mean(dim=(1, 2), keepdim=True)
    else:
        largest = (change * (shown > 0)).amax(dim=(1, 2), keepdim=True)
        share = (everywhere * shown).sum(dim=(1, 2), keepdim=True) / shown.sum(dim=(1, 2), keepdim=True)
    narrower = _above((peak * largest).clamp(min=threshold * spread), change, softness)
    return packed(torch.where(share > whole, everywhere, narrower))


def _above(limit: Tensor | float, change: Tensor, softness: float) -> Tensor:
    return torch.sigmoid((change / limit).log() / softness)


def mean_around(grid: Tensor, side: int) -> Tensor:
    """The mean over the side x side positions around each, of which those in the picture count; (N, H, W)."""
    return functional.avg_pool2d(grid[:, None], side, 1, side // 2, count_include_pad=False)[:, 0]


def summed_mask(
    change: Tensor, size: tuple[int, int], *, threshold: float = 0.55, softness: float = 0.08
) -> Tensor:
    """Where velocities part, packed, from their differences, added up over steps: (N, L, 64), packed too.

    The norm over channels of a position, averaged over 5 x 5, is scaled so that each picture's 10th
    percentile is 0 and its 90th is 1; the mask is sigmoid((that - threshold) / softness). arXiv 2609.34237,
    which keeps more by a threshold of .55 and finds the region best by .40.
    """
    around = mean_around(unpack(change, 16 * size[0], 16 * size[1]).norm(dim=1), 5)
    low, high = torch.quantile(around.flatten(1), torch.tensor([0.1, 0.9]).to(around), dim=1)[..., None, None]
    scaled = ((around - low) / (high - low).clamp(min=1e-8)).clamp(0, 1)
    return packed(torch.sigmoid((scaled - threshold) / softness))


def feathered(mask: Tensor, size: tuple[int, int], pixels: float) -> Tensor:
    """A packed mask with soft edges: blurred by a Gaussian of that standard deviation, in pixels."""
    grids = unpacked(mask, size).cpu().numpy()
    blurred = [cv2.GaussianBlur(grid, (0, 0), pixels / 8) if pixels else grid for grid in grids]
    return packed(torch.from_numpy(np.stack(blurred))).to(mask)
