"""What a layer carries of the picture that Kontext looks at: it is hidden from all others there."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from flux.hooks import Hooks, Site
from flux.math import apply_rope
from flux.probes import Spot


def hide(spot: Spot) -> Hooks:
    """Queries of text and picture do not see the keys of reference tokens, which see all, as ever."""

    def attend(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        end = site.txt_len + site.img_len(k.shape[2])
        seeing = scaled_dot_product_attention(q[:, :, :end], k[:, :, :end], v[:, :, :end])
        if spot.head is not None:
            here = torch.arange(q.shape[1], device=q.device) == spot.head
            plain = scaled_dot_product_attention(q[:, :, :end], k, v)
            seeing = torch.where(here[:, None, None], seeing, plain)
        behind = scaled_dot_product_attention(q[:, :, end:], k, v)
        return torch.cat((seeing, behind), dim=2).transpose(1, 2).flatten(-2)

    return Hooks(attend={spot.layer: attend})
