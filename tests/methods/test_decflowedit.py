"""DecFlowEdit against the formula written out."""

import pytest
import torch
from helpers_methods import small_task, velocity_of
from torch.nn import functional

from flux.methods import defaults
from flux.methods.decflowedit import decflowedit
from flux.methods.tables import MASKS, build, part_record
from flux.sampling import pack, unpack


def mask_by_hand(task, pair: int, settings) -> torch.Tensor:
    """Stage 1, position by position; (4, 6)."""
    x = task.clean[task.field.of[pair]].double()
    z, steps = x, task.steps
    first = round(settings["start"] * steps)
    count = max(1, round(settings["search"] * (steps - first)))
    summed = 0
    for k in range(count):
        i, following = (first + round((k + j) * (steps - first) / count) for j in (0, 1))
        t, t_next = task.times[i], task.times[following]
        z_source = (1 - t) * x + t * task.noise(i)[task.field.of[pair]].double()
        change = velocity_of(task, z + z_source - x, t, "edit", pair, 1)
        change = change - velocity_of(task, z_source, t, "source", pair, 1)
        z = z + (t_next - t) * change
        if count // 4 <= k < max(3 * count // 4, 1):
            summed = summed + change
    norm = unpack(summed[None], 32, 48)[0].square().sum(dim=0).sqrt()
    around = torch.zeros(4, 6, dtype=torch.float64)
    for row in range(4):
        for column in range(6):
            square = norm[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            around[row, column] = square.mean()
    low, high = torch.quantile(around, 0.1), torch.quantile(around, 0.9)
    scaled = ((around - low) / max(high - low, 1e-8)).clamp(0, 1)
    return 1 / (1 + torch.exp(-(scaled - settings["threshold"]) / settings["softness"]))


def plainly(task, pair: int, settings) -> torch.Tensor:
    x = task.clean[task.field.of[pair]].double()
    grid = mask_by_hand(task, pair, settings)
    mask = pack(grid.expand(1, 16, -1, -1))[0]
    weight = settings["strength"] + (1 - settings["strength"]) * mask
    z, steps = x, task.steps
    for i in range(round(settings["start"] * steps), steps):
        t, t_next = task.times[i], task.times[i + 1]
        z_source = (1 - t) * x + t * task.noise(i)[task.field.of[pair]].double()
        v_edit = velocity_of(task, z + z_source - x, t, "edit", pair, settings["guidance"])
        v_source = velocity_of(task, z_source, t, "source", pair, settings["source_guidance"])
        z = z + (t_next - t) * weight * (v_edit - v_source)
    return z


@pytest.mark.parametrize("changes", [{}, {"search": 1.0}, {"search": 0.5, "strength": 0.3, "start": 0.25}])
def test_it_is_the_papers_formula(changes):
    task, settings = small_task(steps=8), defaults("decflowedit") | changes
    *_, last = decflowedit(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-3, atol=1e-3)


def test_no_share_of_the_change_passes_a_mask_that_was_given():
    """The weight is given (l + (1 - l) M): in the mask as without one, outside it nothing."""
    task, settings = small_task(steps=8), defaults("decflowedit") | {"strength": 0.3}
    given = torch.zeros_like(task.field.of_edits(task.clean))
    given[:, :3] = 1
    *_, free = decflowedit(task, **settings)
    *_, last = decflowedit(task.with_mask(given), **settings)
    clean = task.field.of_edits(task.clean)
    assert torch.equal(last.edit[:, 3:], clean[:, 3:]) and not torch.equal(free.edit[:, 3:], clean[:, 3:])
    assert not torch.equal(last.edit[:, :3], clean[:, :3])
    assert torch.equal(last.mask, free.mask)


def test_an_edit_does_not_depend_on_those_beside_it():
    settings = defaults("decflowedit") | {"search": 1.0}
    *_, together = decflowedit(small_task(), **settings)
    *_, alone = decflowedit(small_task().rows([2, 0]), **settings)
    torch.testing.assert_close(alone.edit, together.edit[[2, 0]], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone.mask, together.mask[[2, 0]], rtol=1e-3, atol=1e-4)


def test_evaluations_are_counted():
    task = small_task(steps=14)
    steps = list(decflowedit(task, **defaults("decflowedit")))
    assert [step.phase for step in steps] == ["mask"] * 3 + ["edit"] * 12
    assert task.field.counts == [30, 30, 30]


def test_the_first_stage_finds_masks_for_other_methods():
    settings = defaults("decflowedit")
    find = build(part_record(MASKS, "velocity"))
    mask = find(small_task(steps=8))
    for pair in range(3):
        grid = unpack(mask[pair : pair + 1], 32, 48)[0, 0]
        expected = mask_by_hand(small_task(steps=8), pair, settings)
        torch.testing.assert_close(grid.double(), expected, rtol=1e-3, atol=1e-3)


def test_a_mask_that_is_given_counts_on_top():
    settings = defaults("decflowedit") | {"search": 1.0}
    half = functional.one_hot(torch.tensor([0, 3]), 6).sum(dim=0).float()[:, None].expand(3, 6, 64)
    task = small_task().with_mask(half)
    *_, last = decflowedit(task, **settings)
    outside = half == 0
    torch.testing.assert_close(last.edit[outside], task.field.of_edits(task.clean)[outside])
    assert not torch.allclose(last.edit, task.field.of_edits(task.clean), atol=1e-3)
