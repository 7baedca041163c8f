"""Which image tokens an injection changes: by the attention they receive in the source, or by a mask."""

from dataclasses import dataclass

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
    """Image tokens by a given weight, (L_img,) or (h, w) in [0, 1], row by row from the top left."""

    weight: Tensor

    def __call__(self, q: Tensor, k: Tensor, site: Site) -> Tensor:
        weight = self.weight.flatten()
        if len(weight) != site.img_len(k.shape[2]):
            raise ValueError(
                f"the mask has {len(weight)} tokens, the picture {site.img_len(k.shape[2])}: "
                "give one weight per 16 x 16 pixels"
            )
        return weight
