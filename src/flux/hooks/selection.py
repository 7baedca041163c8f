"""Which image tokens an injection changes: by the attention they receive in the source, or by a mask."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flux.hooks.attention import received_attention
from flux.hooks.plan import Site


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
    """Image tokens that receive at least `threshold` times the uniform share, 1 / L of all L tokens."""

    threshold: float

    def __post_init__(self) -> None:
        if not self.threshold >= 0.0:
            raise ValueError(f"threshold must be 0 or more; got {self.threshold}")

    def __call__(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        return (received_attention(q, k, site)[0] * k.shape[2] >= self.threshold).float()


@dataclass(frozen=True, eq=False)
class Mask:
    """Image tokens by a given weight, (L_img,) or (h, w) in [0, 1], row by row from the top left.

    Raises ValueError for other shapes, and for weights outside [0, 1].
    """

    weight: Tensor
    _there: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Tensor) or self.weight.ndim not in (1, 2):
            got = tuple(self.weight.shape) if isinstance(self.weight, Tensor) else type(self.weight).__name__
            raise ValueError(f"a mask must be a tensor (L_img,) or (h, w); got {got}")
        wrong = ~((self.weight >= 0) & (self.weight <= 1))  # NaN is wrong too
        if wrong.any():
            first = tuple(wrong.nonzero()[0].tolist())
            at = f"token {first[0]}" if len(first) == 1 else f"row {first[0]}, column {first[1]}"
            raise ValueError(
                f"mask weights must be between 0 and 1; got {self.weight[first].item():g} at {at}"
            )

    def __call__(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        weight, tokens = self.weight.flatten(), site.img_len(k.shape[2])
        if len(weight) != tokens:
            raise ValueError(
                f"inject[{site.layer}]: the mask has {len(weight)} tokens, the picture {tokens}: "
                "give one weight per 16 x 16 pixels"
            )
        if k.device not in self._there:  # once: it is asked for in every layer
            self._there[k.device] = weight.to(k.device)
        return self._there[k.device]
