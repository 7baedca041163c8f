"""FlowEdit against the formula written out, and what every method owes: rows by themselves, counts."""

from itertools import pairwise

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.flowedit import flowedit
from flux.methods.noise import noise
from flux.methods.operators import masked


def plainly(task, pair: int, settings) -> torch.Tensor:
    """arXiv 2412.08629, algorithm 1, for one source and edit: the walk by differences, then plain steps."""
    x = task.clean[task.field.of[pair]].double()
    z, steps = x, len(task.times) - 1
    first, plain = round(settings["start"] * steps), round(settings["last"] * steps)

    def noise(step: int, draw: int = 0) -> torch.Tensor:
        return task.noise(step * settings["draws"] + draw)[task.field.of[pair]].double()

    for i in range(first, steps - plain):
        t, dt = task.times[i], task.times[i + 1] - task.times[i]
        change = 0
        for draw in range(settings["draws"]):
            z_source = (1 - t) * x + t * noise(i, draw)
            v_edit = velocity_of(task, z + z_source - x, t, "edit", pair, settings["guidance"])
            change += v_edit - velocity_of(task, z_source, t, "source", pair, settings["source_guidance"])
        z = z + dt * change / settings["draws"]
    if not plain:
        return z
    begun = max(first, steps - plain)
    level = task.times[begun]
    z = z - x + (1 - level) * x + level * noise(begun)
    for t, t_next in pairwise(task.times[begun:]):
        z = z + (t_next - t) * velocity_of(task, z, t, "edit", pair, settings["guidance"])
    return z


OVERLAPPING = ({"last": 1.0}, {"start": 0.5, "last": 0.75}, {"start": 0.0, "last": 1.0})


@pytest.mark.parametrize("changes", [{}, {"last": 0.5}, {"draws": 2}, {"start": 0.5}, *OVERLAPPING])
def test_it_is_the_papers_formula(changes):
    task, settings = small_task(), defaults("flowedit") | changes
    *_, last = flowedit(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-4, atol=1e-4)


def test_plain_steps_alone_are_image_to_image():
    settings = defaults("flowedit") | {"start": 0.0, "last": 1.0}
    *_, last = flowedit(small_task(), **settings)
    *_, sampled = noise(small_task(), strength=1.0, guidance=settings["guidance"])
    torch.testing.assert_close(last.edit, sampled.edit, rtol=0, atol=1e-5)


@pytest.mark.parametrize("start", [0.0, 0.75])
def test_outside_a_mask_plain_steps_leave_the_source(start):
    mask = torch.zeros(3, 6, 64)
    mask[:, :2] = 1
    task = small_task(operators=(masked(),)).with_mask(mask)
    steps = list(flowedit(task, **defaults("flowedit") | {"start": start, "last": 0.5, "draws": 2}))
    begun = max(2, round(4 * start))
    clean, drawn = (task.field.of_edits(each)[:, 2:] for each in (task.clean, task.noise(2 * begun)))
    for step in steps[-2:]:
        expected = (1 - step.t_next) * clean + step.t_next * drawn
        torch.testing.assert_close(step.edit[:, 2:], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(step.edit[:, :2], task.field.of_edits(task.clean)[:, :2], atol=1e-2)


def test_an_edit_does_not_depend_on_those_beside_it():
    task, settings = small_task(), defaults("flowedit")
    *_, together = flowedit(task, **settings)
    *_, alone = flowedit(small_task().rows([2, 0]), **settings)
    torch.testing.assert_close(alone.edit, together.edit[[2, 0]], rtol=1e-4, atol=1e-5)


def test_the_source_prompt_leaves_the_source():
    task = small_task(edits=("a dog", "a dog", "a cat"))
    *_, last = flowedit(task, **defaults("flowedit") | {"guidance": 1.5})
    torch.testing.assert_close(last.edit[0], task.clean[0], rtol=0, atol=1e-4)
    assert not torch.allclose(last.edit[2], task.clean[1], atol=1e-2)


def test_evaluations_are_counted():
    task = small_task(steps=7)
    assert len(list(flowedit(task, **defaults("flowedit")))) == 6
    assert task.field.counts == [12, 12, 12]
