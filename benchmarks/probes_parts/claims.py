"""What others say of layers, tried on flux-tiny: a figure and its interval above 0 where the claim holds."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from probes_parts.edits import EditWay
from probes_parts.ranks import Interval, rank, signed, verdict, with_interval
from probes_parts.sweeps import TOGETHER, Sweeps

METRIC = "dino-whitened"


@dataclass(frozen=True)
class Claim:
    """said: the claim and whose it is. figure: what is above 0 where it holds, in words."""

    said: str
    figure: str
    interval: Interval

    def line(self) -> str:
        return f"{self.said}: {verdict(self.interval)} ({self.figure} {signed(self.interval)})"


def late_layers(count: int, steps: int) -> tuple[EditWay, EditWay]:
    """The last third of the layers, in the first half of the steps, and in all."""
    late = tuple(range(count - count // 3, count))
    return EditWay(late, (0, steps // 2)), EditWay(late)


def routed_layers(count: int, steps: int) -> EditWay:
    """The third quarter of the layers, in the first half of the steps, at .4: layers 30 to 45 of 60."""
    return EditWay(tuple(range(count // 2, count * 3 // 4)), (0, steps // 2), 0.4)


def claims(
    sweeps: Sweeps, alone: np.ndarray, fresh: dict[EditWay, np.ndarray], few: EditWay, steps: int
) -> Iterator[Claim]:
    """alone: (pairs, 1 + layers, 2), made and kept of each layer by itself, first of none.

    fresh: figures of ways on the other half of the pairs. few: the set that was found by trying.
    """
    moved = {name: tables[METRIC] for name, tables in sweeps.moved.items()}

    def mean(rows: np.ndarray) -> float:
        return float(rows.mean())

    yield Claim(
        "emptying a layer's text hurts more than removing the layer (arXiv 2601.02211)",
        "mean over layers of text less skip,",
        with_interval(mean, (moved["text"] - moved["skip"]).mean(axis=1)),
    )
    yield Claim(
        "layers that do not need positions carry the content (FreeFlux)",
        "minus the rank correlation of what a layer loses without positions with dB kept,",
        with_interval(
            lambda table, edits: -rank(table.mean(axis=0), edits.mean(axis=0)[1:, 1]),
            moved["position"],
            alone,
        ),
    )
    early, always = late_layers(alone.shape[1] - 1, steps)
    yield Claim(
        "the last third of the layers in early steps keeps more than a few layers in all steps (AttnRouter)",
        f"dB kept more than by {few.name},",
        with_interval(mean, (fresh[early] - fresh[few])[:, 1]),
    )
    yield Claim(
        "and loses fewer edits than in all steps",
        "made more,",
        with_interval(mean, (fresh[early] - fresh[always])[:, 0]),
    )
    routed = routed_layers(alone.shape[1] - 1, steps)
    yield Claim(
        "the third quarter of the layers in early steps at .4 is enough (AttnRouter, layers 30 to 45 of 60)",
        f"dB kept more than by {few.name},",
        with_interval(mean, (fresh[routed] - fresh[few])[:, 1]),
    )
    runs, apart = (sweeps.together[METRIC][:, part] for part in (slice(0, 3), slice(3, None)))
    assert len(TOGETHER) == 6
    yield Claim(
        "removing neighbours hurts less than as many blocks apart (PPCL)",
        "what those apart move more,",
        with_interval(mean, apart.mean(axis=1) - runs.mean(axis=1)),
    )
    every = EditWay(tuple(range(alone.shape[1] - 1)))
    yield Claim(
        "injecting everywhere edits as well as in a few layers (ConsistEdit)",
        "made more,",
        with_interval(mean, (fresh[every] - fresh[few])[:, 0]),
    )
