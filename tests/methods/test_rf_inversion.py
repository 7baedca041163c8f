"""RF-Inversion against the formula written out, with what its two pulls promise at their ends."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.rf_inversion import rf_inversion


def plainly(task, pair: int, *, gamma, eta, stop, inversion_guidance, guidance) -> torch.Tensor:
    """arXiv 2410.10792, algorithms 1 and 2, for one source and edit, step by step."""
    n, source = len(task.times) - 1, task.field.of[pair]
    y0, y1 = task.clean[source].double(), task.noise(0)[source].double()
    y = y0
    for i in range(n - 1):
        v = velocity_of(task, y, i / n, "empty", pair, inversion_guidance)
        y = y + (v + gamma * ((y1 - y) / (1 - i / n) - v)) / n
    for i in range(n):
        sigma, step = task.times[i], task.times[i] - task.times[i + 1]
        v = -velocity_of(task, y, sigma, "edit", pair, guidance)
        y = y + step * (v + (eta if i < round(stop * n) else 0) * ((y0 - y) / sigma - v))
    return y


@pytest.mark.parametrize("changes", [{}, {"gamma": 0.0, "eta": 0.7, "stop": 0.5}, {"gamma": 1.0, "stop": 0}])
def test_it_is_the_papers_formula(changes):
    task, settings = small_task(), defaults("rf-inversion") | changes
    *_, last = rf_inversion(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, **settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-4, atol=1e-4)


def test_pulled_all_the_way_it_ends_at_the_picture():
    task = small_task()
    *_, last = rf_inversion(task, **defaults("rf-inversion") | {"eta": 1.0, "stop": 1.0})
    torch.testing.assert_close(last.edit, task.field.of_edits(task.clean), rtol=0, atol=1e-5)


def test_pulled_to_the_noise_alone_the_inversion_is_a_straight_line():
    task = small_task()
    steps = [step for step in rf_inversion(task, **defaults("rf-inversion") | {"gamma": 1.0})]
    inverted = [step for step in steps if step.phase == "invert"][-1]
    line = 0.25 * task.clean + 0.75 * task.noise(0)
    torch.testing.assert_close(inverted.source, line, rtol=0, atol=1e-5)
