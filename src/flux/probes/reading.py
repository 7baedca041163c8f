"""How a layer's image tokens read the text: not at all, or as loudly as one says."""

import torch
from torch import Tensor
from torch.nn import functional as F

from flux.hooks import Hooks, Site
from flux.math import apply_rope
from flux.probes import Spot


def text(spot: Spot) -> Hooks:
    """Queries of image tokens see the keys of image tokens alone; text tokens see all, as ever."""

    def attend(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        start = site.txt_len
        blind = F.scaled_dot_product_attention(q[:, :, start:], k[:, :, start:], v[:, :, start:])
        return _merged(q, k, v, start, _of_head(spot, blind, q, k, v, start))

    return Hooks(attend={spot.layer: attend})


def text_scale(spot: Spot, *, scale: float) -> Hooks:
    """Queries of image tokens see the values of text tokens times `scale`; their attention stays as it is."""

    def attend(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        start = site.txt_len
        scaled = torch.cat((v[:, :, :start] * scale, v[:, :, start:]), dim=2)
        seen = F.scaled_dot_product_attention(q[:, :, start:], k, scaled)
        return _merged(q, k, v, start, _of_head(spot, seen, q, k, v, start))

    return Hooks(attend={spot.layer: attend})


def _of_head(spot: Spot, changed: Tensor, q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    """What image tokens attend to, (B, H, L_img, D), changed in the spot's head alone."""
    if spot.head is None:
        return changed
    plain = F.scaled_dot_product_attention(q[:, :, start:], k, v)
    here = torch.arange(q.shape[1], device=q.device) == spot.head
    return torch.where(here[:, None, None], changed, plain)


def _merged(q: Tensor, k: Tensor, v: Tensor, start: int, image: Tensor) -> Tensor:
    """Text tokens as ever, then image tokens: (B, L, H * D)."""
    words = F.scaled_dot_product_attention(q[:, :, :start], k, v)
    return torch.cat((words, image), dim=2).transpose(1, 2).flatten(-2)
