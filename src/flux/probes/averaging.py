"""What a layer's image tokens say beyond their average."""

import torch
from torch import Tensor

from flux.hooks import Hooks, Site
from flux.probes import Spot


def mean(spot: Spot) -> Hooks:
    """Values of the picture's own tokens become their mean over these tokens, head by head."""

    def inject(q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        own = v[:, :, site.img]
        average = own.mean(dim=2, keepdim=True).expand_as(own)
        if spot.head is not None:
            here = torch.arange(v.shape[1], device=v.device) == spot.head
            average = torch.where(here[:, None, None], average, own)
        end = site.txt_len + own.shape[2]
        return q, k, torch.cat((v[:, :, : site.txt_len], average, v[:, :, end:]), dim=2)

    return Hooks(inject={spot.layer: inject})
