"""FlowEdit against the formula written out, and what every method owes: rows by themselves, counts."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.flowedit import flowedit


def plainly(task, pair: int, settings) -> torch.Tensor:
    """arXiv 2412.08629, algorithm 1, for one source and edit, step by step."""
    x = task.clean[task.field.of[pair]].double()
    z, steps = x, len(task.times) - 1
    first = round(settings["start"] * steps)
    plain = steps - round(settings["last"] * steps)
    for i in range(first, steps):
        t, dt = task.times[i], task.times[i + 1] - task.times[i]
        noises = [
            task.noise(i * settings["draws"] + d)[task.field.of[pair]].double()
            for d in range(settings["draws"])
        ]
        if i >= plain:
            if i == plain:
                z = z + (1 - t) * x + t * noises[0] - x
            z = z + dt * velocity_of(task, z, t, "edit", pair, settings["guidance"])
            continue
        change = 0
        for noise in noises:
            z_source = (1 - t) * x + t * noise
            v_edit = velocity_of(task, z + z_source - x, t, "edit", pair, settings["guidance"])
            change += v_edit - velocity_of(task, z_source, t, "source", pair, settings["source_guidance"])
        z = z + dt * change / len(noises)
    return z


@pytest.mark.parametrize("changes", [{}, {"last": 0.5}, {"draws": 2}, {"start": 0.5}])
def test_it_is_the_papers_formula(changes):
    task, settings = small_task(), defaults("flowedit") | changes
    *_, last = flowedit(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-4, atol=1e-4)


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
