"""How much each layer matters, and which layers are vital: functions of numbers alone.

A similarity is that of a picture made without a layer to its reference, 1 for equal pictures. A layer's
vitality is 1 minus the mean of its similarities (Stable Flow, arXiv 2411.14430).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flux.extras import need

ROUNDING = 1e-6
"""Differences up to this are those of single precision."""


@dataclass(frozen=True)
class Summary:
    """What was measured of one layer: mean, standard deviation and interval of n similarities.

    The interval is Student's t for the mean. With one value there is neither deviation nor interval: None.
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def vitality(self) -> float:
        return 1 - self.mean


def summary(values: Sequence[float], confidence: float) -> Summary:
    """The summary of at least one value. confidence: of the interval, between 0 and 1."""
    n = len(values)
    if n == 0:
        raise ValueError("there is no value to take the mean of")
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    t = need("scipy.stats", "similarity", "a confidence interval").t.ppf((1 + confidence) / 2, n - 1)
    half = float(t) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def ranked(means: Mapping[int, float]) -> list[int]:
    """Layers from the most to the least important; of equal ones the lower number first."""
    return sorted(means, key=lambda layer: (means[layer], layer))


def below(means: Mapping[int, float], threshold: float) -> tuple[int, ...]:
    """The layers whose mean similarity is below the threshold; one that equals it is not."""
    return tuple(sorted(layer for layer, mean in means.items() if mean < threshold))


def most_important(means: Mapping[int, float], count: int) -> tuple[int, ...]:
    """The `count` layers of lowest similarity, or all if there are fewer; of equal ones the lower numbers."""
    return tuple(sorted(ranked(means)[:count]))


def largest_gap(means: Mapping[int, float]) -> float | None:
    """The middle of the largest gap between neighbours in the sorted means; None where all are equal.

    Of equal gaps the one that leaves fewer layers below it.
    """
    ordered = sorted(means.values())
    gaps = [(high - low, low, high) for low, high in zip(ordered, ordered[1:], strict=False)]
    width, low, high = max(gaps, key=lambda gap: gap[0], default=(0.0, 0.0, 0.0))
    if width == 0:
        return None
    middle = (low + high) / 2
    return middle if low < middle else high


def told_from_noise(means: Mapping[int, float], floor: float | None) -> tuple[int, ...]:
    """The layers whose difference, 1 minus the mean, exceeds the noise floor; None: it was not measured."""
    if floor is None:
        return tuple(sorted(means))
    return tuple(sorted(layer for layer, mean in means.items() if 1 - mean > floor + ROUNDING))


@dataclass(frozen=True)
class Vital:
    """The vital layers, ascending.

    threshold: the similarity below which layers count as vital; None where the rule knows none.
    in_noise: layers that the rule names, but that differ from the reference no more than a repeat does.
    """

    layers: tuple[int, ...]
    threshold: float | None
    in_noise: tuple[int, ...] = ()


def vital_set(means: Mapping[int, float], rule: str, value: float | None, floor: float | None) -> Vital:
    """The vital layers by one of four rules; means: mean similarity by layer.

    similarity: below `value`. vitality: 1 - mean above `value`. top: the `value` most important. gap: those
    below the largest gap.
    """
    if rule == "top":
        threshold, named = None, most_important(means, int(value))
    else:
        threshold = _threshold(means, rule, value)
        named = () if threshold is None else below(means, threshold)
    told = set(told_from_noise(means, floor))
    return Vital(
        tuple(layer for layer in named if layer in told),
        threshold,
        tuple(layer for layer in named if layer not in told),
    )


def _threshold(means: Mapping[int, float], rule: str, value: float | None) -> float | None:
    if rule == "gap":
        return largest_gap(means)
    # A vitality is turned into a similarity, so that both mean the same to the last digit.
    return value if rule == "similarity" else 1 - value
