"""Which sets of layers to edit in: sets along an order, and what to take of those that were tried.

Functions of numbers alone. Of a set two figures count, of both more is better: `made`, how much of the edits
came about, and `kept`, how much of the source stayed, each measured on the same pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Layers = tuple[int, ...]

FREE = {"keep more": 0.15, "balanced": 0.05, "change more": 0.01}
"""By what is wanted: so much less may be made than without injection."""

SIZES = (1, 2, 3, 5, 8, 13, 21, 34, 55)
RESAMPLED = 2000


def sets_along(order: Sequence[int], most: int) -> list[Layers]:
    """At most `most` sets, or one of each size, of layers that follow each other in an order.

    Of each size as many, evenly from the start of the order to its end: the sum of what layers carry tells
    what a set keeps and blocks, so these sets go in small steps from much to little.
    """
    sizes = [size for size in SIZES if size < len(order)] or [1]
    each = max(1, most // len(sizes))
    found: dict[Layers, None] = {}
    for size in sizes:
        last = len(order) - size
        for start in np.unique(np.linspace(0, last, min(each, last + 1)).round().astype(int)):
            found.setdefault(tuple(sorted(order[start : start + size])))
    return list(found)


@dataclass(frozen=True)
class TriedSet:
    """A set and its figures, pair by pair; no layers: no injection."""

    layers: Layers
    made: tuple[float, ...]
    kept: tuple[float, ...]

    @property
    def means(self) -> tuple[float, float]:
        """made, kept"""
        return float(np.mean(self.made)), float(np.mean(self.kept))


def front(tried: Sequence[TriedSet]) -> list[TriedSet]:
    """Those that no other one is better than: in one figure, and not worse in the other; kept ascending."""
    means = {each.layers: each.means for each in tried}

    def beaten(each: TriedSet) -> bool:
        made, kept = means[each.layers]
        return any(m >= made and k >= kept and (m, k) != (made, kept) for m, k in means.values())

    return sorted((each for each in tried if not beaten(each)), key=lambda each: means[each.layers][1])


def recommend(
    tried: Sequence[TriedSet], none: TriedSet, free: Mapping[str, float] = FREE
) -> tuple[dict[str, Layers], list[str]]:
    """By what is wanted the set that keeps most of those that make enough, and notes on what is not so.

    none: without injection. Where no set makes enough it is the one that makes most.
    """
    chosen: dict[str, Layers] = {}
    notes: list[str] = []
    for name, loss in free.items():
        able = [each for each in tried if each.means[0] >= none.means[0] - loss - 1e-9]
        if not able:
            notes.append(f"{name}: every set that was tried lost more than {loss:g} of what is made")
        best = max(able or tried, key=_most_kept if able else _most_made)
        chosen[name] = best.layers
    names = list(chosen)
    for one, other in zip(names, names[1:], strict=False):
        if chosen[one] == chosen[other]:
            notes.append(f"{one} is {other}: none that makes less by up to {free[one]:g} keeps more")
    return chosen, notes


def _most_kept(each: TriedSet) -> tuple[float, float]:
    made, kept = each.means
    return kept, made


def _most_made(each: TriedSet) -> tuple[float, float]:
    return each.means


def paired(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """The mean difference of figures of the same pairs, and its 95 % interval by bootstrap over pairs."""
    differences = np.subtract(values, others)
    draws = np.random.default_rng(0).integers(len(differences), size=(RESAMPLED, len(differences)))
    low, high = np.quantile(differences[draws].mean(axis=1), (0.025, 0.975))
    return float(differences.mean()), float(low), float(high)
