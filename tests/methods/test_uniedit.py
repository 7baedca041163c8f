"""UniEdit-Flow against the formula written out."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.uniedit import uniedit


def plainly(task, pair: int, *, depth, weight, source_guidance, guidance) -> torch.Tensor:
    """UniEdit-Flow, algorithms 1 and 2, for one source and edit, step by step."""
    n = round(depth * (len(task.times) - 1))
    levels = list(task.times[::-1])[: n + 1]  # from the picture's
    z = task.clean[task.field.of[pair]].double()
    v = velocity_of(task, z, 0.0, "source", pair, source_guidance)
    for here, there in zip(levels, levels[1:], strict=False):
        v = velocity_of(task, z + (there - here) * v, there, "source", pair, source_guidance)
        z = z + (there - here) * v
    levels.reverse()
    for here, there in zip(levels, levels[1:], strict=False):
        v_src = velocity_of(task, z, here, "source", pair, source_guidance)
        v_tar = velocity_of(task, z, here, "edit", pair, guidance)
        by_token = (v_tar - v_src).abs().mean(dim=1)
        spread = by_token.max() - by_token.min()
        m = ((by_token - by_token.min()) / spread if spread > 0 else by_token)[:, None]
        z = z + (there - here) * (m * v_tar + (1 - m) * v_src)
        z = z + (there - here) * weight * (1 + m) * (v_tar - v_src)
    return z


@pytest.mark.parametrize("changes", [{}, {"depth": 1.0, "weight": 0.0}, {"depth": 0.75, "guidance": 2.0}])
def test_it_is_the_papers_formula(changes):
    task, settings = small_task(), defaults("uniedit") | changes
    *_, last = uniedit(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, **settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-4, atol=2e-4)


def test_the_source_prompt_gives_back_the_source_the_better_the_finer_the_steps():
    missed = []
    for steps in (5, 10, 20):
        task = small_task(steps=steps, edits=("a dog", "a dog", "a fish"))
        *_, last = uniedit(task, **defaults("uniedit"))
        missed.append((last.edit - task.field.of_edits(task.clean)).square().mean().sqrt())
    assert missed[0] < 0.1 * task.clean.std()
    assert missed[1] < missed[0] / 2.5
    assert missed[2] < missed[1] / 2.5  # near second order: Euler there and back would only halve


def test_it_stops_early():
    steps = list(uniedit(small_task(steps=10), **defaults("uniedit")))
    assert [step.phase for step in steps] == ["invert"] * 6 + ["edit"] * 6
    assert steps[5].t_next == steps[6].t == small_task(steps=10).times[4]
