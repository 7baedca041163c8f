"""FlowAlign against the formula written out."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.flowalign import flowalign


def plainly(task, pair: int, *, start, scale, pull, guidance) -> torch.Tensor:
    """FlowAlign for one source and edit, step by step."""
    n, source = len(task.times) - 1, task.field.of[pair]
    x_src = x = task.clean[source].double()
    for i in range(round(start * n), n):
        sigma, d = task.times[i], task.times[i + 1] - task.times[i]
        q = (1 - sigma) * x_src + sigma * task.noise(i)[source].double()
        p = x + q - x_src
        vp = velocity_of(task, p, sigma, "source", pair, guidance)
        vp = vp + scale * (velocity_of(task, p, sigma, "edit", pair, guidance) - vp)
        vq = velocity_of(task, q, sigma, "source", pair, guidance)
        x = x + d * (vp - vq) + pull * (q - sigma * vq - p + sigma * vp)
    return x


@pytest.mark.parametrize("changes", [{}, {"start": 0.0, "scale": 2.0}, {"pull": 0.5}])
def test_it_is_the_papers_formula(changes):
    task, settings = small_task(), defaults("flowalign") | changes
    *_, last = flowalign(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, **settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-4, atol=1e-4)


def test_the_source_prompt_leaves_the_source():
    task = small_task(edits=("a dog", "a dog", "a cat"))
    *_, last = flowalign(task, **defaults("flowalign"))
    torch.testing.assert_close(last.edit[0], task.clean[0], rtol=0, atol=1e-4)
    assert not torch.allclose(last.edit[2], task.clean[1], atol=1e-2)
