"""Attention in which some image tokens count for more, or for less, than others."""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from flux.hooks.plan import Site
from flux.math import apply_rope


@dataclass(frozen=True, eq=False)
class WeighedTokens:
    """An attention to each image token as if it stood there `weight` times; text counts once.

    weight: (B, L_img), above 0. Its logarithm is added to the logits of every query.
    """

    weight: Tensor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        after = k.shape[2] - site.txt_len - self.weight.shape[1]
        bias = pad(self.weight.log(), (site.txt_len, after))[:, None, None].to(q)  # (B, 1, 1, L)
        return rearrange(scaled_dot_product_attention(q, k, v, attn_mask=bias), "B H L D -> B L (H D)")
