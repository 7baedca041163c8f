"""What is orthogonal to methods, as data: what becomes of velocities and of guidance, where edits may change
their sources, and how they look at them.

Imports no torch, so that a spec is checked before it loads. A row's settings are numbers with bounds, as
those of methods are; `build` makes what the row stands for.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flux.methods import Setting


@dataclass(frozen=True)
class PartRecord:
    """What is known of a part before it is made.

    function: its dotted name, `package.module:name`; it takes these settings by name. source: the paper,
    empty where it is ours.
    """

    name: str
    about: str
    function: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    source: str = ""

    @property
    def defaults(self) -> dict[str, float]:
        return {key: setting.default for key, setting in self.settings.items()}


def build(record: PartRecord, **settings: float) -> Any:
    """What a row stands for: an operator, a schedule or a curve. Settings left out are at their defaults."""
    return pkgutil.resolve_name(record.function)(**record.defaults | settings)


def _share(default: float, about: str) -> Setting:
    return Setting(default, 0, 1, about)


OPERATORS: tuple[PartRecord, ...] = (
    PartRecord(
        "masked",
        "the change times the mask",
        "flux.methods.operators:masked",
        {"strength": _share(0.0, "share of the change that is let through outside the mask")},
        "arXiv 2609.34237",
    ),
    PartRecord(
        "gate",
        "only what changes much against the source's velocity, channel by channel",
        "flux.methods.operators:gate",
        {"limit": _share(0.85, "the source's share of both from which on nothing changes")},
    ),
    PartRecord(
        "velo-edit",
        "the gate against the velocity that leads straight back to the source",
        "flux.methods.operators:velo_edit",
        {"limit": _share(0.85, "the reference's share of both from which on it is taken")},
        "VeloEdit",
    ),
    PartRecord(
        "perpendicular",
        "the part of the change that is perpendicular to the source's velocity, token by token",
        "flux.methods.operators:perpendicular",
        {"share": _share(1.0, "share of the parallel part that is left out")},
        "arXiv 2609.06288",
    ),
    PartRecord(
        "blend",
        "the edit's velocity mixed with the source's",
        "flux.methods.operators:blend",
        {"share": _share(0.2, "the source's share")},
    ),
)
"""What becomes of an edit's velocity. They are applied in the order in which a spec names them."""

_RATE = Setting(0.9, -5, 5, "how fast guidance grows from noise to picture")

SCHEDULES: tuple[PartRecord, ...] = (
    PartRecord("constant", "as the method asks for it", "flux.methods.guidance:constant"),
    PartRecord(
        "exponential",
        "times exp(rate (1 - 2 t)), t being 1 in noise",
        "flux.methods.guidance:exponential",
        {"rate": _RATE},
    ),
    PartRecord(
        "vags",
        "times exp(rate (1 - 2 t) c), c being the cosine of the velocities of source and edit one evaluation "
        "before; of a source the same as exponential",
        "flux.methods.guidance:vags",
        {"rate": _RATE},
        "arXiv 2605.15661",
    ),
)
"""What becomes of guidance."""

MASKS: tuple[PartRecord, ...] = (
    PartRecord(
        "auto",
        "the edit's own change, which a first run finds",
        "flux.methods.masks:own_mask",
        {
            "threshold": Setting(0.2, 0.01, 10, "where it begins, as a share of the latents' spread"),
            "peak": _share(0.3, "where it begins at the least, as a share of the largest change"),
            "whole": _share(0.75, "the mean from which on it is a whole scene's, and peak does not count"),
            "softness": Setting(0.15, 0.001, 10, "how slowly it rises there"),
        },
    ),
    PartRecord(
        "velocity",
        "where the velocities of source and edit part, in a first run without guidance",
        "flux.methods.decflowedit:velocity_mask",
        {
            "start": _share(4 / 28, "share of steps left out at the noisy end"),
            "search": _share(0.25, "share of the other steps that look for it"),
            "threshold": _share(0.55, "where it begins, between the 10th percentile, 0, and the 90th, 1"),
            "softness": Setting(0.08, 0.001, 1, "how slowly it rises there"),
        },
        "arXiv 2609.34237",
    ),
    PartRecord(
        "words",
        "where the picture looks at the words in which the two prompts differ",
        "flux.methods.word_masks:word_mask",
        {
            "at": _share(11 / 15, "share of the steps at whose noise it is looked for"),
            "steepness": Setting(3.0, 0.01, 100, "how steeply attention becomes weight"),
            "blur": Setting(0.72, 0, 64, "by how many tokens it is blurred"),
        },
        "LayerVerse, ECCV 2026",
    ),
)
"""Where an edit may change its source, besides a picture or a box. `auto` is a function of both latents, the
others are built as functions of a task, before it is run."""

SIDES: Mapping[str, str] = MappingProxyType(
    {
        "everywhere": "at all image tokens",
        "outside": "at those outside the mask only",
        "inside": "at those inside the mask only",
        "off": "nowhere",
    }
)
"""Where an edit looks at its source in a layer. Without a mask all is inside."""

CURVES: tuple[PartRecord, ...] = (
    PartRecord(
        "constant",
        "the same at every step",
        "flux.methods.looks:constant",
        {"value": _share(1.0, "at every step")},
    ),
    PartRecord(
        "linear",
        "along a line from the window's first step to its last",
        "flux.methods.looks:linear",
        {"first": _share(1.0, "at the first step"), "last": _share(0.0, "at the last")},
    ),
    PartRecord(
        "cosine",
        "the same along half a cosine",
        "flux.methods.looks:cosine",
        {"first": _share(1.0, "at the first step"), "last": _share(0.0, "at the last")},
    ),
)
"""How the strength of a look goes over the steps. A list of values does too, see `looks.listed`."""


def part_record(rows: tuple[PartRecord, ...], name: str) -> PartRecord:
    """The row of that name; KeyError where there is none."""
    return {row.name: row for row in rows}[name]
