"""Rank correlations of what probes say with what copying in edits does, and their intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLED = 1000
SINGLE = slice(4, None)
"""The single blocks among the layers."""

Interval = list[float]


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; 0 where all of one side are equal."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def with_interval(statistic: Callable[..., float], *tables: np.ndarray) -> Interval:
    """A figure of tables, each (rows, ...), and its 95 % interval by bootstrap over the rows of each."""
    rng = np.random.default_rng(0)
    drawn = [
        statistic(*(table[rng.integers(len(table), size=len(table))] for table in tables))
        for _ in range(RESAMPLED)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [round(float(value), 3) for value in (statistic(*tables), low, high)]


def correlations(moved: np.ndarray, edits: np.ndarray) -> dict[str, Interval]:
    """How layers rank by a probe and by what they keep, and lose, when copied alone.

    moved: (prompts, layers). edits: (pairs, 1 + layers, 2), made and kept, first without injection.
    """

    def of(layers: slice, figure: Callable[[np.ndarray], np.ndarray]) -> Interval:
        def statistic(moved: np.ndarray, edits: np.ndarray) -> float:
            return rank(np.nanmean(moved, axis=0)[layers], figure(edits.mean(axis=0))[layers])

        return with_interval(statistic, moved, edits)

    kept: Callable[[np.ndarray], np.ndarray] = lambda means: means[1:, 1]  # noqa: E731
    lost: Callable[[np.ndarray], np.ndarray] = lambda means: -means[1:, 0]  # noqa: E731
    return {
        "kept, all layers": of(slice(None), kept),
        "kept, single blocks": of(SINGLE, kept),
        "edits lost, all layers": of(slice(None), lost),
        "edits lost, single blocks": of(SINGLE, lost),
    }


def against(figures: np.ndarray, others: np.ndarray) -> dict[str, Interval]:
    """Paired differences of made and kept, (pairs, 2) each."""
    return {
        name: with_interval(lambda rows: float(rows.mean()), (figures - others)[:, i])
        for i, name in enumerate(("made", "kept"))
    }


def verdict(interval: Interval) -> str:
    """Of a claim that says that a figure is above 0."""
    _, low, high = interval
    return "holds" if low > 0 else "does not" if high < 0 else "cannot be told"


def signed(interval: Interval, digits: int = 2) -> str:
    value, low, high = interval
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def order_by(moved: np.ndarray) -> list[int]:
    """Layers from the one that moved most."""
    means = np.nanmean(moved, axis=0)
    return sorted(range(len(means)), key=lambda layer: (-means[layer], layer))


Table = dict[str, Any]
Sets = dict[str, Sequence[int]]
