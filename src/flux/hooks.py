"""Hooks: which layers of a FLUX model are skipped, and where queries, keys and values are changed.

A plan is made per call and handed to `Flux.forward(..., hooks=plan)` or `denoise(..., hooks=plan)`; nothing
is kept on the model, so two calls with different plans do not disturb each other:

    Hooks(skip=[17, "single.9"])                                  # leave two layers out
    Hooks(inject=dict.fromkeys([0, 1, 17, 18], CopySource()))     # rows 1, 2, ... look at row 0

Layers are numbered as in Stable Flow (arXiv 2411.14430): double blocks first, then single blocks, 0-56 for
FLUX.1.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from flux.math import apply_rope
from flux.models import VITAL_LAYERS, LayerName, Layers
from flux.modules.layers import Inject

__all__ = [
    "VITAL_LAYERS",
    "AboveThreshold",
    "AttentionMaps",
    "CopySource",
    "Hooks",
    "LayerName",
    "Layers",
    "Mask",
    "Site",
    "TopRatio",
    "received_attention",
]


@dataclass(frozen=True)
class Site:
    """Where and when a hook is called. `pe` is the RoPE table of the sequence, as `attention` takes it."""

    layer: int
    txt_len: int
    pe: Tensor
    step: int = 0
    steps: int | None = None


Injection = Callable[[Tensor, Tensor, Tensor, Site], tuple[Tensor, Tensor, Tensor]]
"""Takes q, k, v, each (B, H, L_txt + L_img, D), after QK-norm and before RoPE, and returns new ones."""

Select = Callable[[Tensor, Tensor, Site], Tensor]
"""Takes the source row's q and k, each (1, H, L, D), and returns a weight in [0, 1] per image token."""


@dataclass(frozen=True)
class Hooks:
    """A plan: layers to skip, and for each layer an injection or a sequence of injections, applied in order.

    Layers are numbers or `double.i` / `single.i`; they are checked against the model when the plan first
    meets it.
    `step` and `steps` say where in a sampling run the plan stands; `denoise` sets them with `at`.
    """

    skip: Iterable[LayerName] = ()
    inject: Mapping[LayerName, Injection | Iterable[Injection]] = field(default_factory=dict)
    step: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        skip = (self.skip,) if isinstance(self.skip, int | str) else self.skip
        object.__setattr__(self, "skip", frozenset(skip))
        chains = {name: (fs,) if callable(fs) else tuple(fs) for name, fs in dict(self.inject).items()}
        for name, chain in chains.items():
            for f in chain:
                if not callable(f):
                    raise TypeError(
                        f"inject[{name!r}] must be callable or a sequence of callables; got {f!r}"
                    )
        object.__setattr__(self, "inject", MappingProxyType(chains))

    def resolve(self, layers: Layers) -> "Hooks":
        """The same plan with every layer as its number; ValueError if one is not in the model."""
        inject: dict[int, tuple[Injection, ...]] = {}
        for name, chain in self.inject.items():
            index = layers.index(name)
            inject[index] = inject.get(index, ()) + chain
        return replace(self, skip=frozenset(map(layers.index, self.skip)), inject=inject)

    def at(self, step: int, steps: int) -> "Hooks":
        """The same plan at step `step` (from 0) of `steps`."""
        return replace(self, step=step, steps=steps)

    def for_block(self, layer: int, txt_len: int, pe: Tensor) -> dict:
        """Keyword arguments for the block at `layer`; empty where the plan leaves it alone."""
        if layer in self.skip:
            return {"skip": True}
        chain = self.inject.get(layer)
        if not chain:
            return {}
        return {"inject": _bind(chain, Site(layer, txt_len, pe, self.step, self.steps))}


def _bind(chain: tuple[Injection, ...], site: Site) -> Inject:
    def inject(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for f in chain:
            q, k, v = f(q, k, v, site)
        return q, k, v

    return inject


@dataclass(frozen=True)
class CopySource:
    """Edits take their image tokens' keys and values from row 0, the source (arXiv 2411.14430, 3.2).

    Queries and text tokens stay the row's own.
    keys, values: what is copied. strength: 0 (own) to 1 (the source's), linear between.
    select: which image tokens, None for all; see `TopRatio`, `AboveThreshold`, `Mask`.
    steps: window (start, stop) of sampling steps, start included, stop not; None for all.
    rows: the edits this applies to, None for all rows but row 0.
    """

    keys: bool = True
    values: bool = True
    strength: float = 1.0
    select: Select | None = None
    steps: tuple[int, int] | None = None
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength must be between 0 and 1; got {self.strength}")
        if self.rows is not None and any(row < 1 for row in self.rows):
            raise ValueError(f"row 0 is the source and cannot be an edit; rows count from 1, got {self.rows}")
        if self.steps is not None and not 0 <= self.steps[0] <= self.steps[1]:
            raise ValueError(f"steps must be (start, stop) with 0 <= start <= stop; got {self.steps}")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        if self.strength == 0 or not (self.keys or self.values) or not self._in_window(site.step):
            return q, k, v
        weight = self._weight(q, k, site)
        if self.keys:
            k = torch.lerp(k, k[:1].expand_as(k), weight.to(k.dtype))
        if self.values:
            v = torch.lerp(v, v[:1].expand_as(v), weight.to(v.dtype))
        return q, k, v

    def _in_window(self, step: int) -> bool:
        return self.steps is None or self.steps[0] <= step < self.steps[1]

    def _weight(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        """How far each token of each row moves to the source, (B, 1, L, 1)."""
        batch, length = k.shape[0], k.shape[2]
        token = torch.zeros(length, device=k.device)
        chosen = 1.0 if self.select is None else self._chosen(q, k, site).to(token)
        token = torch.cat((token[: site.txt_len], token[site.txt_len :] + chosen))
        row = torch.arange(batch, device=k.device)
        edits = row > 0 if self.rows is None else torch.isin(row, row.new_tensor(self.rows))
        return self.strength * edits[:, None, None, None] * token[:, None]

    def _chosen(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        # The source's own RoPE table too: the batch's would have its attention computed once per row.
        return self.select(q[:1], k[:1], replace(site, pe=site.pe[:1]))


@dataclass(frozen=True)
class TopRatio:
    """The share of image tokens, rounded to whole ones, that receive most attention in the source."""

    ratio: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio <= 1.0:
            raise ValueError(f"ratio must be between 0 and 1; got {self.ratio}")

    def __call__(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        received = received_attention(q, k, site)[0]
        # A stable sort, so that ties go to the earlier token on every device.
        order = received.argsort(descending=True, stable=True)
        chosen = torch.zeros_like(received)
        return chosen.scatter(0, order[: round(self.ratio * len(order))], 1.0)


@dataclass(frozen=True)
class AboveThreshold:
    """Image tokens that receive at least `threshold` times the uniform share of 1 / (L_txt + L_img)."""

    threshold: float

    def __post_init__(self) -> None:
        if not self.threshold >= 0.0:
            raise ValueError(f"threshold must be 0 or more; got {self.threshold}")

    def __call__(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        return (received_attention(q, k, site)[0] * k.shape[2] >= self.threshold).float()


@dataclass(frozen=True, eq=False)
class Mask:
    """Image tokens by a given weight, (L_img,) or (h, w) in [0, 1], row by row from the top left."""

    weight: Tensor

    def __call__(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        weight = self.weight.flatten()
        if len(weight) != k.shape[2] - site.txt_len:
            raise ValueError(
                f"the mask has {len(weight)} tokens, the picture {k.shape[2] - site.txt_len}: "
                "give one weight per 16 x 16 pixels"
            )
        return weight


class AttentionMaps:
    """An injection that changes nothing and keeps the attention image tokens receive, by (layer, step).

    `maps[layer, step]` is float32 (B, L_img) on the CPU, divided by the uniform share: 1 is what a token
    would receive if attention were spread evenly. Use one object per call.
    """

    def __init__(self) -> None:
        self.maps: dict[tuple[int, int], Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        received = received_attention(q, k, site) * k.shape[2]
        self.maps[site.layer, site.step] = received.cpu()
        return q, k, v


def received_attention(q: Tensor, k: Tensor, site: Site, *, budget: int = 2**25) -> Tensor:
    """Attention each image token receives: mean over heads and image queries of softmax(q k / sqrt(D)).

    q, k: (B, H, L, D) before RoPE; scored as the model attends, after RoPE, softmax over text and image keys.
    Returns float32 (B, L_img). Queries are taken in slices of about `budget` scores (128 MiB by default), two
    of which are held while softmax runs, whatever the size of the picture.
    """
    q, k = apply_rope(q, k, site.pe)
    q = q[:, :, site.txt_len :]
    batch, heads, queries, dim = q.shape
    total = torch.zeros(batch, k.shape[2], dtype=torch.float32, device=k.device)
    for part in q.split(max(1, budget // (batch * heads * k.shape[2])), dim=2):
        # Unnamed and scaled in place: a name would keep each slice alive beside the next.
        total = total + (part @ k.transpose(-1, -2)).float().mul_(dim**-0.5).softmax(dim=-1).sum(dim=(1, 2))
    return total[:, site.txt_len :] / (heads * queries)
