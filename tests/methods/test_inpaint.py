"""Inpainting against the rule written out."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.inpaint import inpaint


def masked_task():
    mask = torch.zeros(3, 6, 64)
    mask[0, :3], mask[1, 3:], mask[2, ::2] = 1, 0.5, 1
    return small_task().with_mask(mask)


@pytest.mark.parametrize(("strength", "first"), [(1.0, 0), (0.5, 2)])
@pytest.mark.parametrize("masked", [True, False])
def test_it_blends_the_noised_source_in_behind_every_step(strength, first, masked):
    task = masked_task() if masked else small_task()
    settings = defaults("inpaint") | {"strength": strength}
    *_, last = inpaint(task, **settings)
    for pair, source in enumerate(task.field.of):
        clean, noise = task.clean[source].double(), task.noise(0)[source].double()
        mask = task.field.mask[pair].double() if masked else 1.0
        t = task.times[first]
        z = (1 - t) * clean + t * noise
        for here, there in zip(task.times[first:], task.times[first + 1 :], strict=False):
            z = z + (there - here) * velocity_of(task, z, here, "edit", pair, settings["guidance"])
            z = mask * z + (1 - mask) * ((1 - there) * clean + there * noise)
        torch.testing.assert_close(last.edit[pair].double(), z, rtol=1e-4, atol=1e-4)


def test_a_strength_that_leaves_no_step_is_refused():
    with pytest.raises(ValueError, match="strength 0 leaves no step of 4"):
        next(inpaint(masked_task(), **defaults("inpaint") | {"strength": 0.0}))
