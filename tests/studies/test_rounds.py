"""Stopping when it is decided: boundaries as published, error rates, and what is no ordinary sample."""

import math
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("scipy")

from flux.studies.sweep.rounds import boundaries, critical, interval, plan_rounds  # noqa: E402

PUBLISHED = {
    # Two-sided alpha 0.05; Lan & DeMets (1983), DeMets & Lan (Statistics in Medicine 13, 1994).
    ("obrien-fleming", 4): (4.333, 2.963, 2.359, 2.014),
    ("obrien-fleming", 5): (4.877, 3.357, 2.680, 2.290, 2.031),
    ("pocock", 4): (2.368, 2.368, 2.358, 2.350),
    ("pocock", 5): (2.438, 2.427, 2.410, 2.397, 2.386),
}
LOOKS = [8, 16, 32, 64]


def decisions(rounds, table: np.ndarray) -> list:
    """The decision about each column of a table (prompts, columns)."""
    found = []
    for column in table.T:
        each = (rounds.decide(column[: look.prompts], i) for i, look in enumerate(rounds.looks))
        found.append(next(decision for decision in each if decision))
    return found


def left_at(table: np.ndarray, rounds) -> np.ndarray:
    """The look at which 0 is first outside the interval of each column, or the number of looks."""
    at = np.full(table.shape[1], len(rounds.looks))
    for i, look in reversed(list(enumerate(rounds.looks))):
        values = table[: look.prompts]
        low, high = interval(values, critical(look.level, look.prompts), skewed=rounds.skewed)
        at[(low > 0) | (high < 0)] = i
    return at


# Boundaries


@pytest.mark.parametrize(("spending", "looks"), PUBLISHED)
def test_boundaries_are_the_published_ones(spending, looks):
    found = boundaries([(i + 1) / looks for i in range(looks)], 0.05, spending)
    assert found == pytest.approx(PUBLISHED[spending, looks], abs=0.0006)


def test_one_look_is_the_plain_test():
    for spending in ("pocock", "obrien-fleming"):
        assert boundaries([1.0], 0.05, spending) == pytest.approx([1.959964], abs=1e-5)


@pytest.mark.parametrize("spending", ["pocock", "obrien-fleming"])
@pytest.mark.parametrize("fractions", [(0.125, 0.25, 0.5, 1.0), (0.3, 0.32, 0.9, 1.0)])
def test_a_walk_leaves_unequal_looks_with_probability_alpha(spending, fractions):
    bounds = boundaries(fractions, 0.05, spending)
    steps = np.diff([0, *fractions])[:, None] ** 0.5
    walk = np.cumsum(steps * np.random.default_rng(0).standard_normal((len(fractions), 400_000)), axis=0)
    out = np.abs(walk) > (np.array(bounds) * np.sqrt(fractions))[:, None]
    assert out.any(axis=0).mean() == pytest.approx(0.05, abs=0.0015)


def test_looks_close_together_and_far_tails():
    many = boundaries([(i + 1) / 60 for i in range(60)], 0.05)
    assert len(many) == 60 and all(2 < bound < 4 for bound in many)
    first, *_, last = boundaries([0.001, 0.999, 0.9999, 1.0], 1e-6, "obrien-fleming")
    assert first == 37 and 4 < last < 6


def test_boundaries_fall_as_alpha_grows_and_rise_with_looks():
    fractions = [0.25, 0.5, 0.75, 1.0]
    strict, loose = boundaries(fractions, 0.01), boundaries(fractions, 0.1)
    assert all(a > b for a, b in zip(strict, loose, strict=True))
    assert boundaries([0.5, 1.0], 0.05)[-1] < boundaries(fractions, 0.05)[-1]
    falling = boundaries(fractions, 0.05, "obrien-fleming")
    assert falling == sorted(falling, reverse=True)


# Plans


def test_looks_are_the_rounds_below_all_prompts_and_all():
    def counts(prompts):
        return [look.prompts for look in plan_rounds(0.95, 0.95, LOOKS, prompts).looks]

    assert counts(64) == LOOKS
    assert counts(100) == [*LOOKS, 100]
    assert counts(40) == [8, 16, 32, 40]
    assert counts(1) == [1]
    assert plan_rounds(0.95, 0.95, LOOKS, 64).patience == 29


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confidence": 1.0}, "confidence must be between 0 and 1; got 1.0"),
        ({"confidence": math.nan}, "confidence"),
        ({"threshold": math.nan}, "threshold must be a finite number"),
        ({"rounds": []}, "rounds must be ascending"),
        ({"rounds": [8, 8]}, r"got \[8, 8\]"),
        ({"rounds": [0, 8]}, "ascending"),
        ({"prompts": 0}, "a prompt at least"),
        ({"spending": "all"}, "pocock, obrien-fleming; got 'all'"),
    ],
)
def test_what_is_no_plan_is_refused(changes, words):
    arguments = {"threshold": 0.95, "confidence": 0.95, "rounds": LOOKS, "prompts": 64, **changes}
    with pytest.raises(ValueError, match=words):
        plan_rounds(**arguments)


def test_without_scipy_the_extra_is_named():
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "from flux.studies.sweep.rounds import plan_rounds\n"
        "plan_rounds(0.95, 0.95, [8], 64)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'needs scipy: pip install "flux[similarity]"' in done.stderr.splitlines()[-1]


# Decisions


def test_the_plain_t_test_has_its_error_rate():
    table = np.random.default_rng(1).standard_normal((64, 20_000))
    for spending in ("pocock", "obrien-fleming"):
        rounds = plan_rounds(0, 0.95, LOOKS, 64, spending=spending, skewed=False)
        assert (left_at(table, rounds) < 4).mean() == pytest.approx(0.05, abs=0.005)


def test_allowing_for_skewness_costs_nothing_in_error():
    rounds = plan_rounds(0, 0.95, LOOKS, 64)
    table = np.random.default_rng(1).standard_normal((64, 20_000))
    assert (left_at(table, rounds) < 4).mean() < 0.05


def test_skewed_similarities_are_called_above_too_often_only_by_the_plain_test():
    skewed = -np.random.default_rng(2).lognormal(0, 1.5, (64, 20_000))
    skewed += math.exp(1.5**2 / 2)  # the mean is at the threshold, 0
    plain, hull = (plan_rounds(0, 0.95, LOOKS, 64, skewed=skewed) for skewed in (False, True))
    often, rarely = ((left_at(skewed, rounds) < 3).mean() for rounds in (plain, hull))
    assert often > 0.3 and rarely < often / 2


def test_the_decision_is_that_of_the_full_table():
    rng = np.random.default_rng(3)
    means = np.linspace(0.85, 1.0, 300)
    table = means - 0.05 * (rng.lognormal(0, 1, (64, 300)) - math.exp(0.5)) / 2.16
    found = decisions(plan_rounds(0.95, 0.95, LOOKS, 64), table)
    above = np.array([decision.verdict == "above" for decision in found])
    assert (above != (table.mean(axis=0) >= 0.95)).mean() <= 0.01
    assert np.mean([decision.prompts for decision in found]) < 50
    assert all(decision.prompts >= 29 for decision in found if decision.verdict == "above")


def test_a_clear_layer_is_decided_early():
    rounds = plan_rounds(0.95, 0.95, LOOKS, 64)
    low = rounds.decide([0.5, 0.6, 0.4, 0.55, 0.3, 0.62, 0.5, 0.45], look=0)
    assert (low.verdict, low.decided, low.prompts, low.n) == ("below", True, 8, 8)
    assert low.low < low.mean < low.high < 0.95
    high = [0.99, 0.991, 0.992, 0.993] * 8
    assert rounds.decide(high[:16], look=1) is None
    assert rounds.decide(high, look=2).verdict == "above"


def test_farther_from_the_threshold_never_later():
    rng = np.random.default_rng(4)
    shape = 0.1 * rng.standard_normal(64)
    for direction in (1, -1):
        shifts = [direction * shift for shift in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)]
        table = np.stack([0.95 + shift + shape - shape.mean() for shift in shifts], axis=1)
        prompts = [each.prompts for each in decisions(plan_rounds(0.95, 0.95, LOOKS, 64), table)]
        assert prompts == sorted(prompts, reverse=True) and prompts[0] == 64 > prompts[-1]


def test_intervals_hold_the_mean_and_grow_with_the_critical_value():
    values = np.random.default_rng(5).lognormal(0, 1, (16, 500))
    for skewed in (True, False):
        ends = [interval(values, c, skewed=skewed) for c in (0.5, 2.0, 4.0)]
        lows, highs = np.array([low for low, _ in ends]), np.array([high for _, high in ends])
        assert (np.diff(lows, axis=0) <= 0).all() and (np.diff(highs, axis=0) >= 0).all()
        assert (lows < values.mean(0)).all() and (highs > values.mean(0)).all()


def test_halls_ends_are_where_his_statistic_is_critical():
    values = np.random.default_rng(6).lognormal(0, 1, 16)[:, None]
    n, c = 16, 2.5
    sd = values.std(ddof=1)
    g = ((values - values.mean()) ** 3).mean() / sd**3

    def statistic(mu):
        u = (values.mean() - mu) / sd
        return math.sqrt(n) * (u + g * u**2 / 3 + g**2 * u**3 / 27 + g / (6 * n))

    low, high = interval(values, c)
    plain = interval(values, c, skewed=False)
    # Skewed to the right, Hall's interval reaches farther up, Student's farther down.
    assert statistic(high[0]) == pytest.approx(-c) and low == plain[0] and high > plain[1]


# What is no ordinary sample


def test_without_variance_the_interval_is_a_point():
    rounds = plan_rounds(0.95, 0.95, LOOKS, 64)
    assert rounds.decide([0.5] * 8, look=0).decided
    assert rounds.decide([1.0] * 32, look=2).verdict == "above"
    assert rounds.decide([0.95] * 32, look=2) is None
    assert rounds.decide([0.95 - 1e-8] * 32, look=2) is None


def test_exactly_at_the_threshold_is_above_and_undecided():
    at = plan_rounds(0.95, 0.95, LOOKS, 64).decide([0.95] * 64, look=3)
    assert (at.verdict, at.decided) == ("above", False)
    beside = plan_rounds(0.5, 0.95, LOOKS, 64).decide([0.25, 0.75] * 32, look=3)
    assert (beside.verdict, beside.decided) == ("above", False)


def test_undecided_at_the_end_falls_to_the_mean():
    values = [0.9, 0.99] * 32
    last = plan_rounds(0.95, 0.95, LOOKS, 64).decide(values, look=3)
    assert (last.verdict, last.decided, last.mean) == ("below", False, pytest.approx(0.945))


def test_one_value_decides_nothing_by_itself():
    rounds = plan_rounds(0.95, 0.95, [1, 2], 4)
    assert rounds.looks[0].level == 0 and rounds.decide([0.1], look=0) is None
    only = plan_rounds(0.95, 0.95, LOOKS, 1).decide([0.1], look=0)
    assert (only.verdict, only.decided, only.low) == ("below", False, -math.inf)
    assert only.as_json()["low"] is None and only.as_json()["mean"] == 0.1
    # As where all but one cell of a round have failed.
    assert plan_rounds(0.95, 0.95, LOOKS, 64).decide([0.1], look=0) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="must be finite numbers; got"):
        plan_rounds(0.95, 0.95, LOOKS, 64).decide([0.5, value], look=0)


def test_no_value_is_refused():
    with pytest.raises(ValueError, match="at least one number"):
        plan_rounds(0.95, 0.95, LOOKS, 64).decide([], look=0)
