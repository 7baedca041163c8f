"""Guidance schedules against their formulas; what a field tells them."""

import math

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.methods import defaults
from flux.methods.decflowedit import decflowedit
from flux.methods.flowedit import flowedit
from flux.methods.gentle import gentle
from flux.methods.guidance import constant, exponential, vags
from flux.methods.tables import SCHEDULES, build

SETTINGS = {**defaults("flowedit"), "source_guidance": 2.0, "guidance": 5.0}


def test_schedules_are_their_formulas():
    assert constant()(3.0, 0.9, 0.5) == 3.0
    assert exponential(0.9)(3.0, 0.9, 0.5) == pytest.approx(3 * math.exp(-0.72))
    assert vags(0.9)(3.0, 0.9, 0.5) == pytest.approx(3 * math.exp(-0.36))
    assert vags(0.9)(3.0, 0.25, -1.0) == pytest.approx(3 * math.exp(-0.45))


def plainly(task, pair: int, used: list[float]) -> torch.Tensor:
    """FlowEdit under VAGS for the edit and an exponential for the source, for one pair, step by step.

    used: the guidance of its edit at each step, which is held against the formula and then gone on with: the
    model takes sines of a thousand times it, where the last digit of a float32 shows.
    """
    x = task.clean[task.field.of[pair]].double()
    z, alike = x, 1.0
    for i in range(round(SETTINGS["start"] * task.steps), task.steps):
        t, t_next = task.times[i], task.times[i + 1]
        z_source = (1 - t) * x + t * task.noise(i)[task.field.of[pair]].double()
        guidance = used[i - round(SETTINGS["start"] * task.steps)]
        assert guidance == pytest.approx(5 * math.exp(0.9 * (1 - 2 * t) * alike), rel=1e-6)
        v_edit = velocity_of(task, z + z_source - x, t, "edit", pair, guidance)
        v_source = velocity_of(task, z_source, t, "source", pair, 2 * math.exp(0.5 * (1 - 2 * t)))
        alike = float((v_edit * v_source).sum() / v_edit.norm() / v_source.norm())
        z = z + (t_next - t) * (v_edit - v_source)
    return z


def test_an_edit_is_told_how_alike_the_velocities_were_before():
    used = []

    def schedule(guidance: float, t: float, alike: float) -> float:
        used.append(vags(0.9)(guidance, t, alike))
        return used[-1]

    task = small_task(edit_schedule=schedule, source_schedule=exponential(0.5))
    *_, last = flowedit(task, **SETTINGS)
    for pair in range(3):  # which are asked for in turn
        plain = plainly(task, pair, used[pair::3])
        torch.testing.assert_close(last.edit[pair].double(), plain, rtol=1e-4, atol=1e-4)


def test_a_second_run_does_not_remember_the_first():
    task = small_task(edit_schedule=vags(0.9))
    *_, first = flowedit(task, **SETTINGS)
    *_, second = flowedit(task.with_mask(None), **SETTINGS)
    assert torch.equal(first.edit, second.edit)


def told(run, **settings) -> list[float]:
    """How alike the velocities of one pair are said to be, evaluation by evaluation."""
    said = []

    def listen(guidance: float, t: float, alike: float) -> float:
        said.append(alike)
        return guidance

    for _ in run(small_task(edit_schedule=listen).rows([0]), **settings):
        pass
    return said


def test_a_run_within_a_method_does_not_remember_the_one_before_it():
    """Where it starts at the very level at which that ended."""
    one_step = {"start": 0.75, "search": 0.01}
    assert told(decflowedit, **defaults("decflowedit") | one_step) == [1.0, 1.0]
    again = {"start": 0.75, "doubt": 10.0, "again_start": 0.75}
    assert told(gentle, **defaults("gentle") | again) == [1.0, 1.0]


@pytest.mark.parametrize("record", SCHEDULES, ids=lambda record: record.name)
def test_rows_do_not_see_each_other(record):
    task = small_task(edit_schedule=build(record))
    *_, together = flowedit(task, **SETTINGS)
    *_, alone = flowedit(task.rows([2, 0]), **SETTINGS)
    torch.testing.assert_close(alone.edit, together.edit[[2, 0]], rtol=1e-4, atol=1e-5)
