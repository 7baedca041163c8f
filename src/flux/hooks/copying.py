"""The injection of edits: image tokens take their keys and values from the source."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flux.hooks.plan import Select, Site
from flux.math import among


@dataclass(frozen=True)
class CopySource:
    """Edits take their image tokens' keys and values from row 0, the source (arXiv 2411.14430, 3.2).

    Queries, text tokens and reference tokens (as of Kontext) stay the row's own.
    keys, values: what is copied. strength: 0 (own) to 1 (the source's), linear between.
    select: which image tokens, None for all; see `TopRatio`, `AboveThreshold`, `Mask`.
    steps: window (start, stop) of sampling steps, start included, stop not; None for all.
    rows: the edits this applies to, None for all rows but row 0.
    references: copy those of reference tokens too, all of them.
    """

    keys: bool = True
    values: bool = True
    strength: float = 1.0
    select: Select | None = None
    steps: tuple[int, int] | None = None
    rows: tuple[int, ...] | None = None
    references: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength must be between 0 and 1; got {self.strength}")
        if self.rows is not None and any(row < 1 for row in self.rows):
            raise ValueError(f"row 0 is the source and cannot be an edit; rows count from 1, got {self.rows}")
        if self.steps is not None and not 0 <= self.steps[0] <= self.steps[1]:
            raise ValueError(f"steps must be (start, stop) with 0 <= start <= stop; got {self.steps}")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        self._require_rows(len(k), site.layer)
        if not self.acts_at(site.step):
            return q, k, v
        weight = self._weight(q, k, site)
        if self.keys:
            k = torch.lerp(k, k[:1].expand_as(k), weight.to(k.dtype))
        if self.values:
            v = torch.lerp(v, v[:1].expand_as(v), weight.to(v.dtype))
        return q, k, v

    def acts_at(self, step: int) -> bool:
        """Whether it changes anything at a step."""
        within = self.steps is None or self.steps[0] <= step < self.steps[1]
        return within and self.strength != 0 and (self.keys or self.values)

    def _require_rows(self, batch: int, layer: int) -> None:
        missing = [row for row in self.rows or () if row >= batch]
        if missing:
            edits = f"edits are 1 to {batch - 1}" if batch > 1 else "there are no edits"
            raise ValueError(
                f"inject[{layer}]: CopySource names row {missing[0]}, but the batch has {batch} rows: "
                f"0 is the source, {edits}"
            )

    def _weight(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        """How far each token of each row moves to the source, (B, 1, L, 1)."""
        chosen = None if self.select is None else select_tokens(self.select, q, k, site)
        row = torch.arange(len(k), device=k.device)
        edits = row > 0 if self.rows is None else among(self.rows, row)
        return edits[:, None, None, None] * self.token_weight(chosen, site, k.shape[2], k.device)

    def token_weight(self, chosen: Tensor | None, site: Site, length: int, device: torch.device) -> Tensor:
        """How far each token of an edit moves to the source, (1, L, 1). chosen: those selected, (L_img,)."""
        other = torch.zeros(length, device=device)
        chosen = torch.ones_like(other[site.img]) if chosen is None else chosen.to(other)
        end = site.txt_len + site.img_len(length)
        behind = other[end:] + float(self.references)
        return self.strength * torch.cat((other[: site.txt_len], chosen, behind))[:, None]


def select_tokens(select: Select, q: Tensor, k: Tensor, site: Site, row: int = 0) -> Tensor:
    """What `select` returns for a row of a batch; ValueError unless it is a weight per token, (L_img,)."""
    # The row's own RoPE table too: the batch's would have its attention computed once per row.
    own = slice(0, 1) if len(site.pe) == 1 else slice(row, row + 1)
    weight = select(q[row : row + 1], k[row : row + 1], replace(site, pe=site.pe[own]))
    tokens = site.img_len(k.shape[2])
    if not isinstance(weight, Tensor) or weight.shape != (tokens,):
        got = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(
            f"inject[{site.layer}]: select must return a weight per token of the picture, ({tokens},); "
            f"got {got}"
        )
    return weight
