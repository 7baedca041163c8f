"""The attention that image tokens receive: computed, and kept layer by layer."""

import torch
from torch import Tensor

from flux.hooks.plan import Site
from flux.math import apply_rope


def received_attention(q: Tensor, k: Tensor, site: Site, *, budget: int = 2**25) -> Tensor:
    """Attention each image token receives: mean over heads and image queries of softmax(q k / sqrt(D)).

    q, k: (B, H, L, D) before RoPE; scored as the model attends, after RoPE, softmax over all keys. Image
    tokens are those of `site.img`, the picture itself.
    Returns float32 (B, L_img). Queries are taken in slices of about `budget` scores (128 MiB by default), two
    of which are held while softmax runs, whatever the size of the picture.
    """
    q, k = apply_rope(q, k, site.pe)
    q = q[:, :, site.img]
    batch, heads, queries, dim = q.shape
    total = torch.zeros(batch, k.shape[2], dtype=torch.float32, device=k.device)
    for part in q.split(max(1, budget // (batch * heads * k.shape[2])), dim=2):
        # Unnamed and scaled in place: a name would keep each slice alive beside the next.
        total = total + (part @ k.transpose(-1, -2)).float().mul_(dim**-0.5).softmax(dim=-1).sum(dim=(1, 2))
    return total[:, site.img] / (heads * queries)


class AttentionMaps:
    """An injection that changes nothing and keeps the attention image tokens receive, by (layer, step).

    `maps[layer, step]` is float32 (B, L_img) on the CPU, divided by the uniform share: 1 is what a token
    would receive if attention were spread evenly. Of a step that evaluates the model twice it is the first.
    Use one object per call.
    """

    def __init__(self) -> None:
        self.maps: dict[tuple[int, int], Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        if site.substep == 0:
            received = received_attention(q, k, site) * k.shape[2]
            self.maps[site.layer, site.step] = received.cpu()
        return q, k, v
