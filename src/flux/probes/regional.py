"""Which layers obey a text that is meant for a part of the picture: its lower half reads a stranger's.

How far that half moves towards the stranger says how well the layer follows regional prompts.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from flux.hooks import Hooks, Site
from flux.math import apply_rope
from flux.probes import Spot


def region(spot: Spot) -> Hooks:
    """The lower half of row B + i reads the text of row i in the place of its own, for B = `spot.sources`.

    The lower half: the later half of the picture's own tokens, which stand row by row.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        plain = F.scaled_dot_product_attention(q, k, v)
        tokens = site.img_len(k.shape[2])
        lower = slice(site.txt_len + tokens // 2, site.txt_len + tokens)
        strangers = torch.arange(spot.sources, device=k.device).repeat(2)
        keys, values = (
            torch.cat((x[strangers][:, :, : site.txt_len], x[:, :, site.txt_len :]), dim=2) for x in (k, v)
        )
        reading = F.scaled_dot_product_attention(q[:, :, lower], keys, values)
        if spot.head is not None:
            here = torch.arange(q.shape[1], device=q.device) == spot.head
            reading = torch.where(here[:, None, None], reading, plain[:, :, lower])
        both = torch.cat((plain[:, :, : lower.start], reading, plain[:, :, lower.stop :]), dim=2)
        return both.transpose(1, 2).flatten(-2)

    return Hooks(attend={spot.layer: attend})
