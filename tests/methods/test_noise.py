"""Image to image against the rule written out."""

from dataclasses import replace

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.noise import noise


@pytest.mark.parametrize(("strength", "first"), [(0.6, 2), (1.0, 0), (0.25, 3), (0.0, 3)])
def test_it_samples_from_the_noised_picture(strength, first):
    task, settings = small_task(), defaults("noise") | {"strength": strength}
    *_, last = noise(task, **settings)
    for pair, source in enumerate(task.field.of):
        t = task.times[first]
        z = ((1 - t) * task.clean[source] + t * task.noise(0)[source]).double()
        for here, there in zip(task.times[first:], task.times[first + 1 :], strict=False):
            z = z + (there - here) * velocity_of(task, z, here, "edit", pair, settings["guidance"])
        torch.testing.assert_close(last.edit[pair].double(), z, rtol=1e-4, atol=1e-4)


def test_of_the_source_nothing_is_left_at_full_strength():
    task = small_task()
    other = replace(task, field=replace(task.field, clean=torch.zeros_like(task.clean)))
    full = defaults("noise") | {"strength": 1.0}
    *_, one = noise(task, **full)
    *_, two = noise(other, **full)
    torch.testing.assert_close(one.edit, two.edit)
