"""Attention in which each region of a picture reads a text of its own.

The text of a call is then several texts behind each other: that of the whole picture, and one for each
region, all of one length. What sees what is a mask; attention is as ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from flux.hooks.plan import Hooks, Site
from flux.math import apply_rope
from flux.models import LayerName, Layers


@dataclass(frozen=True, eq=False)
class RegionAttention:
    """An attention by the regions of a picture.

    inside: which image tokens lie in which region, bool (B or 1, R, L_img). A row may have empty regions:
    nothing reads their texts.
    obey: image tokens in a region read its text beside the whole picture's; those in several read all of
    theirs. Otherwise all read the whole picture's.
    alone: those in a region do not read the whole picture's text. apart: those in a region see no image
    tokens of other regions; those in none see all.

    A region's text sees itself and the image tokens of its region, the whole picture's sees itself and all
    image tokens. Reference tokens are seen by all, and see all but the texts of regions.
    """

    inside: Tensor
    obey: bool = True
    alone: bool = False
    apart: bool = False
    _seen: dict[tuple, Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        seen = self.seen(site, k.shape[2], k.device)[:, None]
        return rearrange(scaled_dot_product_attention(q, k, v, attn_mask=seen), "B H L D -> B L (H D)")

    def seen(self, site: Site, length: int, device: torch.device) -> Tensor:
        """Whether a query sees a key, bool (B or 1, L, L), of a sequence of `length`; rows are queries.

        Raises ValueError for regions of another picture than the one that is made.
        """
        key = site.txt_len, site.img_len(length), length, device
        if key not in self._seen:
            self._seen.clear()
            self._seen[key] = self._mask(site, length).to(device)
        return self._seen[key]

    def _mask(self, site: Site, length: int) -> Tensor:
        inside, tokens = self.inside.cpu().bool(), site.img_len(length)
        rows, regions, given = inside.shape
        if given != tokens or site.txt_len % (regions + 1):
            raise ValueError(
                f"attend[{site.layer}]: regions of {given} tokens and {regions + 1} texts do not fit a "
                f"picture of {tokens} tokens and {site.txt_len} of text"
            )
        # What each token reads and shows, by text: (B, L, 1 + R). Text i is shown to those that read i.
        texts = torch.eye(regions + 1).bool().repeat_interleave(site.txt_len // (regions + 1), dim=0)
        texts = texts.expand(rows, -1, -1)
        anywhere = torch.ones(rows, 1, tokens, dtype=torch.bool)
        some = inside.any(dim=1, keepdim=True)
        whole = ~some if self.alone and self.obey else anywhere
        reads = torch.cat((whole, inside if self.obey else torch.zeros_like(inside)), dim=1).transpose(1, 2)
        shown = torch.cat((anywhere, inside), dim=1).transpose(1, 2)
        between = torch.ones(rows, tokens, tokens, dtype=torch.bool)
        if self.apart and self.obey:
            own, free = inside.transpose(1, 2), ~some.transpose(1, 2)
            between = _meet(own, own) | free | free.transpose(1, 2)
        after = torch.ones(rows, 1, length - site.txt_len - tokens, dtype=torch.bool)  # shown to all
        parts = (
            (_meet(texts, texts), _meet(texts, shown), after.expand(-1, site.txt_len, -1)),
            (_meet(reads, texts), between, after.expand(-1, tokens, -1)),
            (texts[:, None, :, 0], anywhere, after),
        )
        words, picture, references = (torch.cat(part, dim=2) for part in parts)
        return torch.cat((words, picture, references.expand(-1, after.shape[2], -1)), dim=1)


def _meet(queries: Tensor, keys: Tensor) -> Tensor:
    """Whether they have one in common: (B, n, G) and (B, m, G), bool, to (B, n, m)."""
    return (queries.float() @ keys.float().transpose(1, 2)) > 0


def region_hooks(
    inside: Tensor,
    layers: Layers,
    chosen: Iterable[LayerName] = ("all",),
    *,
    alone: bool = False,
    apart: bool = False,
) -> Hooks:
    """The plan of a call whose text is the whole picture's and one for each region.

    layers: those of the model. chosen: those in which regions obey their own texts; in the others they read
    the whole picture's. Arguments otherwise as of `RegionAttention`.
    Raises ValueError for a layer that the model has not.
    """
    obeying = RegionAttention(inside, alone=alone, apart=apart)
    other = RegionAttention(inside, obey=False)
    where = {layer for name in chosen for layer in layers.expand(name)}
    return Hooks(attend={layer: obeying if layer in where else other for layer in layers.expand("all")})
