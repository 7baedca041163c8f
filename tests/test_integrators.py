"""Integrators on flows whose solutions are known: order, evaluations, places, and what undoes them."""

import math
import subprocess
import sys

import pytest
import torch

from flux import sampling
from flux.integrators import (
    INTEGRATORS,
    euler,
    fireflow,
    fixed_point,
    integrator_record,
    midpoint,
    uni_inv,
)

NAMES = [record.name for record in INTEGRATORS]


def along(x, t, at):
    """dx/dt = (1 + t) x, whose solutions are multiples of exp(t + t^2 / 2)."""
    return (1 + t) * x


def bent(x, t, at):
    """dx/dt = (1 + x^2) / 2, whose solutions are tan(t / 2 + c): a velocity that is not linear in x."""
    return (1 + x**2) / 2


FLOWS = {
    "linear": (along, lambda t: math.exp(t + t**2 / 2)),
    "bent": (bent, lambda t: math.tan(t / 2)),
}


def error_of(integrator, flow: str, steps: int, start: float, stop: float, warp: float) -> float:
    velocity, solution = FLOWS[flow]
    times = [start + (stop - start) * (i / steps) ** warp for i in range(steps + 1)]
    first = torch.tensor([[solution(start)]], dtype=torch.float64)
    *_, last = integrator(velocity, first, times)
    return abs(last.after.item() - solution(stop))


@pytest.mark.parametrize("ends", [(1.0, 0.0), (0.0, 1.0), (0.2, 0.9)], ids=str)
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("warp", [1.0, 1.5], ids=["even", "uneven"])
@pytest.mark.parametrize("name", NAMES)
def test_an_integrator_is_of_its_order_in_both_directions(name, flow, ends, warp):
    record = integrator_record(name)
    coarse, fine = (error_of(record.function, flow, steps, *ends, warp) for steps in (256, 512))
    assert math.log2(coarse / fine) == pytest.approx(record.order, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_evaluations_are_as_many_as_the_table_says(name):
    asked, record, steps = [], integrator_record(name), 5

    def velocity(x, t, at):
        asked.append(at)
        return along(x, t, at)

    taken = list(record.function(velocity, torch.ones(2, 3, 4), [1 - i / steps for i in range(steps + 1)]))
    counts = {"T": steps, "2 T": 2 * steps, "T + 1": steps + 1, "iterations T": 2 * steps}
    assert len(asked) == counts[record.evaluations]
    assert {at.steps for at in asked} == {steps} and len(set(asked)) == len(asked), "each has a place"
    assert [step.index for step in taken] == list(range(steps))
    assert all(torch.equal(a.after, b.before) for a, b in zip(taken, taken[1:], strict=False))
    assert list(record.function(velocity, torch.ones(1, 1), [1.0])) == []


PLACES = {
    "euler": [(0.0, 0, 0), (0.4, 1, 0)],
    "euler-released": [(0.4, 0, 0), (1.0, 1, 0)],
    "midpoint": [(0.0, 0, 0), (0.2, 0, 1), (0.4, 1, 0), (0.7, 1, 1)],
    "fireflow": [(0.0, 0, 0), (0.2, 0, 1), (0.7, 1, 1)],
    "fixed-point": [(0.4, 0, 0), (0.4, 0, 1), (1.0, 1, 0), (1.0, 1, 1)],
    "uni-inv": [(0.0, 0, 0), (0.4, 0, 1), (1.0, 1, 1)],
}


@pytest.mark.parametrize("name", NAMES)
def test_an_integrator_says_where_it_evaluates(name):
    asked = []

    def record(x, t, at):
        asked.append((round(t, 3), at.index, at.substep))
        return torch.zeros_like(x)

    steps = list(integrator_record(name).function(record, torch.ones(1, 1), [0.0, 0.4, 1.0]))
    assert asked == PLACES[name]
    assert [(step.t, step.t_next) for step in steps] == [(0.0, 0.4), (0.4, 1.0)]


def test_a_rule_written_out():
    """Two steps of each by hand, of dx/dt = (1 + t) x from 1 at 0 by 0.5 and 0.25."""
    x0, a, b, c = 1.0, 0.0, 0.5, 0.75

    def v(x, t):
        return (1 + t) * x

    released = x0 + 0.5 * v(x0, b)
    fire_middle = v(x0 + 0.25 * v(x0, a), 0.25)
    fire = x0 + 0.5 * fire_middle
    half = x0 + 0.5 * v(x0, b)
    fixed = x0 + 0.5 * v(half, b)
    uni_old = v(x0 + 0.5 * v(x0, a), b)
    uni = x0 + 0.5 * uni_old
    by_hand = {
        "euler-released": released + 0.25 * v(released, c),
        "fireflow": fire + 0.25 * v(fire + 0.125 * fire_middle, 0.625),
        "fixed-point": fixed + 0.25 * v(fixed + 0.25 * v(fixed, c), c),
        "uni-inv": uni + 0.25 * v(uni + 0.25 * uni_old, c),
    }
    for name, expected in by_hand.items():
        first = torch.tensor([[x0]], dtype=torch.float64)
        *_, last = integrator_record(name).function(along, first, [a, b, c])
        assert last.after.item() == pytest.approx(expected, rel=1e-12), name


def test_an_euler_step_undoes_a_fixed_point():
    times = [0.0, 0.2, 0.5, 1.0]
    x = torch.tensor([[0.3], [-0.4]], dtype=torch.float64)
    there = list(fixed_point(bent, x, times, iterations=100, tolerance=1e-14))[-1].after
    back = list(euler(bent, there, times[::-1]))[-1].after
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)
    assert (list(euler(bent, x, times))[-1].after - there).abs().min() > 1e-2


def test_a_row_settles_by_itself():
    """One row is done at once, the other takes many guesses: neither changes the other."""
    asked = []

    def velocity(x, t, at):
        asked.append(at)
        return 0.9 * torch.tensor([[0.0], [1.0]][: len(x)]) * (1 + x)

    both = list(fixed_point(velocity, torch.ones(2, 1), [0.0, 1.0], iterations=50, tolerance=1e-3))[-1].after
    assert 10 < len(asked) < 50
    asked.clear()
    alone = list(fixed_point(velocity, torch.ones(1, 1), [0.0, 1.0], iterations=50, tolerance=1e-3))[-1].after
    assert torch.equal(alone, both[:1]) and len(asked) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_pin_decides_where_the_next_step_starts(name):
    places = {0: torch.full((1, 2), 3.0), 1: torch.full((1, 2), -1.0)}
    steps = list(
        integrator_record(name).function(
            along, torch.ones(1, 2), [0.0, 0.5, 1.0], pin=lambda index, after: places[index]
        )
    )
    assert torch.equal(steps[0].after, places[0]) and torch.equal(steps[1].before, places[0])
    assert torch.equal(steps[1].after, places[1])


def test_names_lead_to_records():
    assert list(dict.fromkeys(NAMES)) == NAMES and all(record.replay in NAMES for record in INTEGRATORS)
    asked = []
    record = integrator_record({"name": "fixed-point", "iterations": 4})
    list(record.function(lambda x, t, at: asked.append(at) or x, torch.ones(1, 1), [0.0, 1.0]))
    assert len(asked) == 4 and integrator_record(record) is record
    assert (sampling.euler, sampling.midpoint) == (euler, midpoint)


@pytest.mark.parametrize(
    "choice, message",
    [
        ("rk4", "integrator 'rk4' does not exist: choose from euler, euler-released, midpoint, fireflow, "),
        ({"name": "euler", "iterations": 3}, "integrator euler has no setting 'iterations': it takes no set"),
        ({"name": "fixed-point", "order": 3}, "no setting 'order': it takes iterations, tolerance"),
        ({"name": "fixed-point", "iterations": 0}, "iterations must be a whole number from 1 to 100; got 0"),
        ({"name": "fixed-point", "iterations": 2.5}, "iterations must be a whole number from 1 to 100; got"),
        ({"name": "fixed-point", "tolerance": -1}, "tolerance must be a number from 0.0 to 1.0; got -1"),
        ({"name": "fixed-point", "tolerance": True}, "tolerance must be a number from 0.0 to 1.0; got True"),
        ({}, "integrator None does not exist"),
    ],
)
def test_what_does_not_exist_is_said(choice, message):
    with pytest.raises(ValueError, match=message):
        integrator_record(choice)


def test_the_table_takes_no_torch():
    code = "import flux.integrators, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fewer_evaluations_of_the_same_order():
    """What the rules of one evaluation are for: the middle by the last velocity errs about as little."""
    ours, theirs, plain = (error_of(each, "bent", 32, 1.0, 0.0, 1.0) for each in (fireflow, midpoint, euler))
    assert ours < 10 * theirs < plain
    assert error_of(uni_inv, "bent", 32, 1.0, 0.0, 1.0) < 2 * plain


@pytest.mark.parametrize(
    "choice", [*NAMES, {"name": "fixed-point", "iterations": 5, "tolerance": 0.0}], ids=str
)
def test_evaluations_are_known_before(choice):
    record = integrator_record(choice)
    for steps in (0, 1, 4):
        asked = []
        times = [1 - i / max(steps, 1) for i in range(steps + 1)]
        list(
            record.function(
                lambda x, t, at, asked=asked: asked.append(t) or along(x, t, at), torch.ones(1, 2), times
            )
        )
        assert len(asked) == record.evaluations_in(steps)


def test_records_are_equal_by_what_they_were_given():
    three = {"name": "fixed-point", "iterations": 3}
    assert integrator_record(three) == integrator_record(three) != integrator_record("fixed-point")
    assert len({integrator_record(three), integrator_record(three | {"tolerance": 0.1})}) == 2
