"""How alike two pictures are patch by patch: the mean cosine of tokens that stand at the same place.

A class token sees scenery and little else; corresponding patches grade whatever changes in a part of the
picture. Whitened, the directions in which all patches of a world vary, as by its skies, count no more than
others:

    s(a, b) = mean over patches of cos(W (p_a - mu), W (p_b - mu))
    C = V diag(l) V^T,  W = diag(l + .01 mean l)^(-1/2) V^T

with mu and C the mean and covariance of patch tokens, not scaled to length 1, of some pictures, such as the
references of a sweep.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

RIDGE = 0.01
"""This share of the mean variance is added to each direction's, so that those without any do not count."""


@dataclass(frozen=True)
class Whitening:
    """mean: mu (C,). matrix: W (C, C)."""

    mean: Tensor
    matrix: Tensor

    @staticmethod
    def of(tokens: Tensor) -> "Whitening":
        """Fitted to the patch tokens of pictures, (N, patches, C); 16 pictures suffice."""
        flat = tokens.flatten(0, -2).double()
        mean = flat.mean(dim=0)
        centred = flat - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
        values = values.clamp(min=0)
        scale = (values + RIDGE * values.mean()).clamp(min=1e-12).rsqrt()
        return Whitening(mean.float(), (scale[:, None] * vectors.T).float())

    def __call__(self, tokens: Tensor) -> Tensor:
        """The tokens (..., C), whitened."""
        return (tokens - self.mean) @ self.matrix.T


def alike(first: Tensor, others: Tensor, whitening: Whitening | None = None) -> list[float]:
    """Each of some pictures against one, -1 to 1. first: (patches, C); others: (N, patches, C)."""
    if whitening is not None:
        first, others = whitening(first), whitening(others)
    cosines = F.cosine_similarity(first[None], others, dim=-1)
    return cosines.mean(dim=-1).clamp(-1, 1).tolist()
