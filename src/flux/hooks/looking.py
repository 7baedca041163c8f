"""The injection of edits whose sources stand beside them, each edit with a source of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flux.hooks.copying import select_tokens
from flux.hooks.plan import Injection, Select, Site
from flux.math import among, rows_of

Strength = Callable[[int, int], float]
"""Takes a step, from 0, and the number of steps; returns 0 (an edit's own) to 1 (its source's)."""


@dataclass(frozen=True, eq=False)
class ByLayer:
    """An injection of its own in each layer, for an edit that looks at its source by roles.

    hows: by the layer's number; in others nothing is done. said: what they do, in words.
    """

    hows: Mapping[int, Injection]
    said: str = ""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        how = self.hows.get(site.layer)
        return (q, k, v) if how is None else how(q, k, v, site)


@dataclass(frozen=True, eq=False)
class LookAtSource:
    """Image tokens of each row take keys and values from the row `of` says; queries and text stay their own.

    The general form of `CopySource` (`flux/hooks/copying.py`): many sources, a weight per row and token.

    of: for every row of the batch the row it looks at; a row that looks at itself is left as it is.
    weight: how much each image token takes, (B, L_img) in [0, 1]; None for all of it. strength: times this at
    each step; None for 1. keys, values: what is taken. select: times this, see `TopRatio`, `AboveThreshold`;
    it is asked once for each row that is looked at. heads: in which heads; None for all.
    """

    of: tuple[int, ...]
    weight: Tensor | None = None
    keys: bool = True
    values: bool = True
    strength: Strength | None = None
    select: Select | None = None
    heads: tuple[int, ...] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        strength = 1.0 if self.strength is None else self.strength(site.step, site.steps or 1)
        if strength == 0 or not (self.keys or self.values):
            return q, k, v
        weight = self._weight(q, k, site, strength)
        if self.keys:
            k = torch.lerp(k, rows_of(k, self.of), weight)
        if self.values:
            v = torch.lerp(v, rows_of(v, self.of), weight)
        return q, k, v

    def _weight(self, q: Tensor, k: Tensor, site: Site, strength: float) -> Tensor:
        """How far each token of each row moves to its source, (B, 1, L, 1), or with heads (B, H, L, 1)."""
        batch, length = k.shape[0], k.shape[2]
        if len(self.of) != batch:
            raise ValueError(f"inject[{site.layer}]: {len(self.of)} rows are told where to look, of {batch}")
        tokens = site.img_len(length)
        looking = [row for row, source in enumerate(self.of) if row != source]
        looks = among(looking, torch.arange(batch, device=k.device))
        chosen = (strength * looks[:, None]).expand(-1, tokens)
        if self.weight is not None:
            chosen = chosen * self.weight.to(chosen)
        if self.select is not None:
            chosen = chosen * self._selected(q, k, site).to(chosen)
        after = length - site.txt_len - tokens
        padded = torch.nn.functional.pad(chosen, (site.txt_len, after))
        weight = padded[:, None, :, None].to(k)
        if self.heads is None:
            return weight
        chosen_heads = among(self.heads, torch.arange(k.shape[1], device=k.device))
        return weight * chosen_heads[:, None, None].to(k)

    def _selected(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        """What is selected in the row that each row looks at, (B, L_img); nothing where that is itself."""
        looked_at = dict.fromkeys(source for row, source in enumerate(self.of) if row != source)
        selected = {row: select_tokens(self.select, q, k, site, row) for row in looked_at}
        nothing = torch.zeros(site.img_len(k.shape[2]), device=k.device)
        return torch.stack([selected.get(source, nothing).to(nothing) for source in self.of])
