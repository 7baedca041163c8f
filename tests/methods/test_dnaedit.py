"""DNAEdit against the formula written out."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.dnaedit import dnaedit


def plainly(task, pair: int, *, start, weight, source_guidance, guidance) -> torch.Tensor:
    """DNAEdit for one source and edit, step by step."""
    n, source = len(task.times) - 1, task.field.of[pair]
    x, e = task.clean[source].double(), task.noise(0)[source].double()
    reference, kept = x, []
    for i in range(n - 1, round(start * n) - 1, -1):
        sigma, noisier = task.times[i + 1], task.times[i]
        d = noisier - sigma
        p = x + d / (1 - sigma) * (e - x)
        v = velocity_of(task, p, noisier, "source", pair, source_guidance)
        difference = (p - x) / d - v
        x = p - difference * d
        e = e - difference * (1 - sigma)
        kept.append((noisier, d, difference, v))
    z = x
    for sigma, d, difference, v in reversed(kept):
        v_tar = velocity_of(task, z + d * difference, sigma, "edit", pair, guidance)
        reference = reference - d * (v_tar - v)
        z = z - d * (weight * v_tar + (1 - weight) * (z - reference) / sigma)
    return z


@pytest.mark.parametrize("changes", [{}, {"start": 0.0, "weight": 1.0}, {"start": 0.5, "weight": 0.3}])
def test_it_is_the_papers_formula(changes):
    task, settings = small_task(), defaults("dnaedit") | changes
    *_, last = dnaedit(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, **settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-4, atol=1e-4)


def test_the_source_prompt_gives_back_the_source():
    task = small_task(edits=("a dog", "a dog", "a cat"))
    *_, last = dnaedit(task, **defaults("dnaedit") | {"weight": 1.0, "guidance": 1.0})
    torch.testing.assert_close(last.edit[0], task.clean[0], rtol=0, atol=1e-4)
    assert not torch.allclose(last.edit[2], task.clean[1], atol=1e-2)
