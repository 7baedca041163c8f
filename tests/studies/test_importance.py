"""How much a layer matters, and which layers are vital: numbers against known answers."""

import math

import numpy as np
import pytest
from scipy import stats

from flux.studies.similarity import importance
from flux.studies.similarity.importance import (
    below,
    largest_gap,
    most_important,
    ranked,
    summary,
    told_from_noise,
    vital_set,
)

MEANS = {0: 0.5, 1: 0.99, 2: 0.7, 3: 0.95, 4: 0.98}


@pytest.mark.parametrize("n", [2, 3, 16, 64])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_a_summary_is_students(n, confidence):
    values = np.random.default_rng(n).beta(8, 1, n)
    made = summary(list(values), confidence)
    assert made.n == n and made.vitality == 1 - made.mean
    assert made.mean == pytest.approx(values.mean()) and made.sd == pytest.approx(values.std(ddof=1))
    expected = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (made.low, made.high) == pytest.approx(expected)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    made = [summary(list(rng.normal(0.9, 0.05, 6)), 0.9) for _ in range(1000)]
    assert np.mean([each.low <= 0.9 <= each.high for each in made]) == pytest.approx(0.9, abs=0.03)


def test_few_values():
    one = summary([0.25], 0.95)
    assert (one.n, one.mean, one.sd, one.low, one.high) == (1, 0.25, None, None, None)
    equal = summary([0.5, 0.5, 0.5], 0.95)
    assert (equal.sd, equal.low, equal.high) == (0, 0.5, 0.5)
    with pytest.raises(ValueError, match="no value"):
        summary([], 0.95)


def test_order():
    assert ranked(MEANS) == [0, 2, 3, 4, 1]
    assert ranked({3: 0.5, 1: 0.5, 2: 0.4}) == [2, 1, 3]


def test_below_is_below():
    assert below(MEANS, 0.95) == (0, 2)
    assert below(MEANS, math.nextafter(0.95, 1)) == (0, 2, 3)
    assert below(MEANS, -1) == () and below(MEANS, 2) == (0, 1, 2, 3, 4)


def test_top():
    assert most_important(MEANS, 3) == (0, 2, 3)
    assert most_important(MEANS, 9) == (0, 1, 2, 3, 4)
    assert most_important({5: 0.5, 1: 0.9, 3: 0.9, 2: 0.9}, 2) == (1, 5)


@pytest.mark.parametrize(
    "means, threshold",
    [
        ({0: 0.25, 1: 1.0, 2: 0.5}, 0.75),
        # Of equal gaps the one that leaves fewer layers below it.
        ({0: 0.0, 1: 0.25, 2: 0.5}, 0.125),
        ({0: 0.5, 1: 0.5}, None),
        ({0: 0.5}, None),
        ({}, None),
        # Neighbouring numbers have no middle.
        ({0: 0.5, 1: math.nextafter(0.5, 1)}, math.nextafter(0.5, 1)),
    ],
)
def test_the_largest_gap(means, threshold):
    assert largest_gap(means) == threshold
    vital = vital_set(means, "gap", None, None)
    assert vital.threshold == threshold and vital.layers == (below(means, threshold) if threshold else ())


def test_told_from_noise():
    assert told_from_noise(MEANS, None) == (0, 1, 2, 3, 4)
    assert told_from_noise(MEANS, 0.05) == (0, 2)
    assert told_from_noise({0: 1.0, 1: 1 - 1e-9, 2: 0.999}, 0.0) == (2,)


@pytest.mark.parametrize(
    "rule, value, layers, threshold",
    [
        ("similarity", 0.95, (0, 2), 0.95),
        ("similarity", 0.96, (0, 2, 3), 0.96),
        # 1 - 0.95 is a little above 0.05 in floating point; the layer at 0.95 is not vital by either rule.
        ("vitality", 0.05, (0, 2), 0.95),
        ("top", 1.0, (0,), None),
        ("gap", None, (0, 2), 0.825),
        ("similarity", 0.1, (), 0.1),
    ],
)
def test_rules(rule, value, layers, threshold):
    made = vital_set(MEANS, rule, value, None)
    assert made.layers == layers and made.in_noise == ()
    assert made.threshold == (None if threshold is None else pytest.approx(threshold))


@pytest.mark.parametrize("rule, value", [("similarity", 2.0), ("vitality", 0.001), ("top", 5.0)])
def test_no_layer_is_vital_for_the_noise(rule, value):
    made = vital_set(MEANS, rule, value, 0.04)
    assert made.layers == (0, 2, 3) and made.in_noise == (1, 4)


def test_without_scipy_the_line_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert importance.summary([0.5], 0.95).sd is None
    with pytest.raises(
        ImportError, match=r'a confidence interval needs scipy: pip install "flux\[similarity\]"'
    ):
        importance.summary([0.5, 0.6], 0.95)
