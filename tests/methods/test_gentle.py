"""Our method: a first try, what the model says of it, and a second one; each against its formula."""

from dataclasses import replace

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.gentle import fit, gentle

SETTINGS = defaults("gentle")


def levels(task) -> list[float]:
    """Noise levels, moved: their odds t / (1 - t) are times `shift`."""
    odds = [SETTINGS["shift"] * t / (1 - t) for t in task.times[1:]]
    return [1.0, *(each / (1 + each) for each in odds)]


def one_try(task, pair: int, start: float, guidance: float) -> torch.Tensor:
    """FlowEdit with the gate, step by step, in float64: (L, 64)."""
    task = replace(task, times=levels(task))
    x = task.clean[task.field.of[pair]].double()
    z, steps = x, len(task.times) - 1
    for i in range(round(start * steps), steps):
        t, dt = task.times[i], task.times[i + 1] - task.times[i]
        noisy = (1 - t) * x + t * task.noise(i)[task.field.of[pair]].double()
        v = velocity_of(task, noisy, t, "source", pair, SETTINGS["source_guidance"])
        change = velocity_of(task, z + noisy - x, t, "edit", pair, guidance) - v
        z = z + dt * change * (v.abs() < SETTINGS["limit"] * (v.abs() + change.abs()))
    return z


def fit_of(task, z: torch.Tensor, pair: int, level: float) -> float:
    """The error of the source's prompt less that of the edit's, at the noise level nearest to `level`."""
    t = min(task.times[:-1], key=lambda each: abs(each - level))
    noise = task.noise(len(task.times) - 1)[task.field.of[pair]].double()
    at = (1 - t) * z.double() + t * noise
    errors = {
        side: (velocity_of(task, at, t, side, pair, 1.0) - (noise - z)).square().mean()
        for side in ("source", "edit")
    }
    return float(errors["source"] - errors["edit"])


def last_of(task, **changes) -> torch.Tensor:
    *_, last = gentle(task, **SETTINGS | changes)
    return last.edit


def test_an_edit_that_the_model_finds_made_is_the_first_try():
    task = small_task()
    edit = last_of(task, doubt=-10)
    for pair in range(3):
        expected = one_try(task, pair, SETTINGS["start"], SETTINGS["guidance"])
        torch.testing.assert_close(edit[pair].double(), expected, rtol=1e-4, atol=1e-4)
    assert task.field.counts == [2 * 3 + 2] * 3  # start: 2 of 12 is one of 4


def test_of_two_tries_the_one_stays_that_fits_its_prompt_better():
    chosen = set()
    for guidances in ((1.0, 6.0), (6.0, 1.0)):
        task = small_task()
        edit = last_of(task, doubt=10, gain=0.0, guidance=guidances[0], again_guidance=guidances[1])
        for pair in range(3):
            moved = replace(task, times=levels(task))
            starts = SETTINGS["start"], SETTINGS["again_start"]
            tries = [one_try(task, pair, *each) for each in zip(starts, guidances, strict=True)]
            better = max(tries, key=lambda z: fit_of(moved, z, pair, SETTINGS["level"]))
            chosen.add(better is tries[1])
            torch.testing.assert_close(edit[pair].double(), better, rtol=1e-4, atol=1e-4)
        assert task.field.counts == [2 * (3 + 4) + 2 * 2] * 3
    assert chosen == {False, True}


@pytest.mark.parametrize("level", [0.8, 0.3])
def test_the_fit_is_what_the_two_prompts_foresee(level):
    task = small_task()
    edit = torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(1))
    expected = torch.tensor([fit_of(task, edit[pair], pair, level) for pair in range(3)])
    torch.testing.assert_close(fit(task, edit, level), expected, rtol=1e-3, atol=1e-4)


def test_only_those_in_doubt_are_tried_again():
    task = small_task()
    found = fit(replace(task, times=levels(task)), last_of(task, doubt=-10), SETTINGS["level"])
    between = float(found.sort().values[:2].mean())
    task = small_task()
    steps = list(gentle(task, **SETTINGS | {"doubt": between}))
    worst = int(found.argmin())
    assert [count > 8 for count in task.field.counts] == [pair == worst for pair in range(3)]
    again = [step for step in steps if step.phase == "again"]
    assert [step.index for step in again] == list(range(4))
    assert all(step.edit.shape == (3, 6, 64) for step in steps)


def test_the_fit_compares_prompts_alone_whatever_edits_move_away_from():
    task = small_task()
    away = replace(task, field=replace(task.field, away=(task.field.empty, 4.0)))  # they count together
    edit = torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fit(away, edit, 0.8), fit(task, edit, 0.8))
    assert task.field.counts == [2 + 2] * 3
    last_of(away, doubt=-10)
    assert task.field.counts == [2 + 2 + 4 * 3 + 2] * 3, "in the edit itself they do move away"
