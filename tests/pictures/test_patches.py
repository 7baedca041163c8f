"""Patch-by-patch similarity, against the rule written out."""

import numpy as np
import torch

from flux.pictures.patches import RIDGE, Whitening, alike


def tokens(count: int = 6, seed: int = 0) -> torch.Tensor:
    """(count, 5, 4), with directions of unlike variance and a mean away from 0."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, 4, generator=draw) * torch.tensor([9.0, 1.0, 0.1, 3.0]) + 2


def cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_it_is_the_mean_cosine_of_patches_at_the_same_place():
    first, *others = tokens(4)
    found = alike(first, torch.stack(others))
    for value, other in zip(found, others, strict=True):
        plain = np.mean([cosine(a, b) for a, b in zip(first.numpy(), other.numpy(), strict=True)])
        assert abs(value - plain) < 1e-6
    assert alike(first, first[None]) == [1.0] or abs(alike(first, first[None])[0] - 1) < 1e-6


def test_whitened_is_the_formula():
    references = tokens(16, seed=1)
    flat = references.reshape(-1, 4).numpy().astype(np.float64)
    mean = flat.mean(axis=0)
    values, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    matrix = np.diag((values + RIDGE * values.mean()) ** -0.5) @ vectors.T
    first, other = tokens(2, seed=2)
    plain = np.mean(
        [
            cosine(matrix @ (a - mean), matrix @ (b - mean))
            for a, b in zip(first.numpy(), other.numpy(), strict=True)
        ]
    )
    whitening = Whitening.of(references)
    (found,) = alike(first, other[None], whitening)
    assert abs(found - plain) < 1e-4 and abs(found - alike(first, other[None])[0]) > 0.02
    spread = whitening(references).flatten(0, 1)
    covariance = spread.T @ spread / len(spread)
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 1e-3
    assert covariance.diagonal().max() <= 1 + 1e-3


def test_tokens_without_any_variance_give_numbers():
    flat = torch.ones(3, 5, 4)
    (found,) = alike(flat[0], flat[1:2], Whitening.of(flat))
    assert np.isfinite(found)
