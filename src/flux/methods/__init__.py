"""How is a picture edited? One file per method, all of one contract; what a spec must know of them is here.

Imports no torch. There are two ways to edit. Stable Flow's edits of generated pictures start from the noise
of their source (`stable_flow.py`). All others start from the source's latent, whether it was photographed or
generated: a method is then a function over a `EditTask`, see `task.py`, over velocities, see `field.py`, and
orthogonal to it are where an edit looks at its source (`looks.py`), masks (`masks.py`), what becomes of its
velocities (`operators.py`), and guidance (`guidance.py`). Each method has a row in METHODS below.

Stable Flow is a function over models and a request that yields a step (such as `EditStep`) for every step of
sampling it takes, with the step's index and, when they are done, pictures by row:

    for step in edit_steps(models, request):
        show(step.step.index)                       # the caller owns progress
        for row, picture in step.pictures.items():  # and saves pictures as they come
            save(row, picture)

The request is frozen and says all that decides the pictures: prompts, seed, sampling, and how each edit looks
at its source. The method writes nothing and prints nothing; how it injects is a plan of hooks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flux.integrators import INTEGRATORS
from flux.limits import MOST_GUIDANCE, MOST_PIXELS
from flux.strength import START_RULES

MOST_TOKENS = (MOST_PIXELS // 16) ** 2


@dataclass(frozen=True)
class Parameter:
    """The number a strategy needs; it is called like the strategy. lowest, highest: its bounds."""

    about: str
    lowest: float
    highest: float | None = None


@dataclass(frozen=True)
class StrategyRecord:
    """To which image tokens an injection copies from the source."""

    name: str
    about: str
    parameter: Parameter | None = None


STRATEGIES = (
    StrategyRecord("copy", "to all image tokens"),
    StrategyRecord(
        "ratio",
        "to the share of them that receive most attention in the source",
        Parameter("a larger one keeps more of the source", 0, 1),
    ),
    StrategyRecord(
        "threshold",
        "to those that receive at least so many times the uniform share",
        Parameter("1 is the attention a token would receive if all received the same", 0, MOST_TOKENS),
    ),
)


@dataclass(frozen=True)
class Setting:
    """A number that a method takes: its default, the paper's, and its bounds. about: in words.

    A default that is a whole number takes whole numbers only.
    """

    default: float
    lowest: float
    highest: float
    about: str


@dataclass(frozen=True)
class Choice:
    """What a method takes that is no number: its default, the paper's, and all it may be. about: in words."""

    default: str | bool
    choices: tuple[str | bool, ...]
    about: str


@dataclass(frozen=True)
class IntegratorSetting(Choice):
    """By which integrator: its name, one of the choices, or that with settings, `{"name": ..., ...}`."""


@dataclass(frozen=True)
class MethodRecord:
    """What is known of a method before it runs.

    function: its dotted name, `package.module:name`; it takes a `EditTask` and these settings by name.
    source: the paper. steps: the paper's number of them. settings: at the paper's defaults; numbers of steps
    are shares of all steps, so that they hold for any number. evaluations: how many of one row an edit
    takes, as a formula over T steps, in words. again: how many more where a method tries a second time.
    fewest: steps below which it makes no picture. draws: whether the noise of a seed reaches edits of photos.
    pairs: whether source and edit are evaluated side by side, so that looks and operators apply.
    inverts: whether it goes from the picture to noise first; integrator: how, where that is no setting.
    needs_mask: whether it does nothing without one.
    needs_guidance: whether it is of no use to a model without guidance, and with few steps, such as schnell.
    layers: the set in which its edits look at their sources where nobody says; empty for none.
    own_mask: whether it multiplies its changes by the task's mask itself.
    """

    name: str
    about: str
    function: str
    source: str
    steps: int
    evaluations: str
    settings: Mapping[str, Setting | Choice] = field(default_factory=dict)
    pairs: bool = True
    inverts: bool = False
    integrator: str = "euler"
    needs_mask: bool = False
    needs_guidance: bool = False
    layers: str = ""
    own_mask: bool = False
    again: str = ""
    fewest: int = 1
    draws: bool = True

    @property
    def defaults(self) -> dict[str, float | str | bool]:
        return {key: setting.default for key, setting in self.settings.items()}

    @property
    def limitable(self) -> bool:
        """Whether the operator `masked` limits its edits to a mask, and not the method itself."""
        return self.pairs and not (self.needs_mask or self.own_mask)


def _guidance(default: float, whose: str = "the edit's") -> Setting:
    return Setting(default, 0, MOST_GUIDANCE, f"{whose} guidance")


def _share(default: float, about: str) -> Setting:
    return Setting(default, 0, 1, about)


PINNINGS = ("right", "released", "free", "exact")
"""How a replay of an inversion holds its sources to it, see `flux.methods.inversion.replay`."""

EXACT_BY = ("euler", "euler-released")
"""Integrators that a replay pinned "exact" knows to ask the model where the inversion asked it."""

ORIGINS = ("inverted", "noised", "straight")
"""What KV-Edit's edits start from, see `flux.methods.kv_edit`."""

DEFAULT_METHOD = "gentle"
"""For photos, where nobody names one."""

METHODS: tuple[MethodRecord, ...] = (
    MethodRecord(
        "stable-flow",
        "inversion of the nudged source, then edits that look at it in vital layers",
        "flux.methods.stable_flow_real:stable_flow_real",
        "arXiv 2411.14430",
        steps=50,
        evaluations="3 T",  # by Euler; by midpoint 6 T
        settings={
            "integrator": IntegratorSetting(
                "euler", tuple(row.name for row in INTEGRATORS), "how it is inverted"
            ),
            "nudge": Setting(1.15, 0.5, 2, "times the source's latent before it is inverted; 1 for off"),
            "undo_nudge": Choice(True, (True, False), "whether latents are divided by the nudge at the end"),
            "pinning": Choice("right", PINNINGS, "how the source is held to its inversion"),
            "source_guidance": _guidance(1.0, "the source's"),
            "guidance": _guidance(3.0),
        },
        inverts=True,
        draws=False,
        layers="default",
    ),
    MethodRecord(
        "rf-solver",
        "inversion and edit by midpoint steps; early steps take the inversion's values",
        "flux.methods.rf_solver:rf_solver",
        "arXiv 2411.04746",
        steps=25,
        evaluations="4 T",
        settings={
            # As in the scripts that are released with it; its command's own defaults are 20 / 25 and 5.
            "inject": _share(3 / 25, "share of steps that take the inversion's values"),
            "after": _share(20 / 38, "share of single blocks that never do"),
            "source_guidance": _guidance(1.0, "the inversion's"),
            "guidance": _guidance(2.0),
        },
        pairs=False,
        inverts=True,
        draws=False,
        integrator="midpoint",
    ),
    MethodRecord(
        "fireflow",
        "the same by steps of second order that take one evaluation each",
        "flux.methods.fireflow:fireflow",
        "arXiv 2412.07517",
        steps=8,
        evaluations="2 (T + 1)",
        settings={
            "inject": _share(1 / 8, "share of steps that take the inversion's values"),
            "source_guidance": _guidance(1.0, "the inversion's"),
            "guidance": _guidance(2.0),
        },
        pairs=False,
        inverts=True,
        draws=False,
        integrator="fireflow",
    ),
    MethodRecord(
        "flowedit",
        "the difference of two velocities, without inversion",
        "flux.methods.flowedit:flowedit",
        "arXiv 2412.08629",
        steps=28,
        evaluations="2 T (1 - start)",
        settings={
            "start": _share(4 / 28, "share of steps left out at the noisy end"),
            "last": _share(0.0, "share of steps at the clean end that sample plainly"),
            "draws": Setting(1, 1, 64, "noises per step"),
            "source_guidance": _guidance(1.5, "the source's"),
            "guidance": _guidance(5.5),
        },
    ),
    MethodRecord(
        "decflowedit",
        "FlowEdit within a soft mask that a first, weaker FlowEdit finds",
        "flux.methods.decflowedit:decflowedit",
        "arXiv 2609.34237",
        steps=28,
        evaluations="2 T (1 - start) (1 + search)",
        settings={
            "start": _share(4 / 28, "share of steps left out at the noisy end"),
            "search": _share(0.25, "share of the other steps that look for the mask; the paper's too: 1"),
            "threshold": _share(0.55, "where the mask begins; .4 finds the region best, .55 keeps more"),
            "softness": Setting(0.08, 0.001, 1, "how slowly the mask rises there"),
            "strength": _share(0.0, "share of the change that is let through outside the mask"),
            "source_guidance": _guidance(1.5, "the source's"),
            "guidance": _guidance(5.5),
        },
        own_mask=True,
    ),
    MethodRecord(
        "flowalign",
        "the difference of two velocities, with guidance between the prompts and a pull to the source",
        "flux.methods.flowalign:flowalign",
        "FlowAlign, Kim et al.",
        steps=28,
        evaluations="3 T (1 - start)",
        settings={
            "start": _share(4 / 28, "share of steps left out at the noisy end"),
            "scale": Setting(5.5, 0, MOST_GUIDANCE, "guidance from the source's prompt to the edit's"),
            "pull": _share(0.01, "how much of the foreseen change is taken back at each step"),
            "guidance": _guidance(1.0, "the model's own"),
        },
    ),
    MethodRecord(
        "rf-inversion",
        "inversion under the empty prompt, pulled to noise, and back, at first pulled to the picture",
        "flux.methods.rf_inversion:rf_inversion",
        "arXiv 2410.10792",
        steps=28,
        evaluations="2 T - 1",
        settings={
            "gamma": _share(0.5, "the inversion's pull to its noise"),
            "eta": _share(0.9, "the edit's pull to the picture"),
            "stop": _share(7 / 28, "share of steps with that pull"),
            "inversion_guidance": _guidance(0.0, "the inversion's"),
            "guidance": _guidance(3.5),
        },
        pairs=False,
        inverts=True,
        fewest=2,
    ),
    MethodRecord(
        "uniedit",
        "inversion through a part of the steps, and back by the velocities' difference, exaggerated",
        "flux.methods.uniedit:uniedit",
        "UniEdit-Flow, Jiao et al.",
        steps=15,
        evaluations="3 T depth + 1",
        settings={
            "depth": _share(0.6, "share of steps inverted; the paper's too: 0.8, which changes more"),
            "weight": Setting(5.0, 0, 100, "by how much the difference is exaggerated"),
            "source_guidance": _guidance(1.0, "the source's"),
            "guidance": _guidance(1.0),
        },
        inverts=True,
        draws=False,
        needs_guidance=True,
        integrator="uni-inv",
    ),
    MethodRecord(
        "dnaedit",
        "noise aligned to the picture, and back with what the inversion missed",
        "flux.methods.dnaedit:dnaedit",
        "DNAEdit, Xie et al.",
        steps=28,
        evaluations="2 T (1 - start)",
        settings={
            "start": _share(4 / 28, "share of steps left out at the noisy end"),
            "weight": _share(0.8, "share of the edit's velocity against the way from its reference"),
            "source_guidance": _guidance(1.0, "the source's"),
            "guidance": _guidance(2.5),
        },
        pairs=False,
        inverts=True,
    ),
    MethodRecord(
        "gentle",
        "ours: FlowEdit at guidance 1, gated; what the model does not find made is tried again with more",
        "flux.methods.gentle:gentle",
        "ours, after arXiv 2412.08629",
        steps=12,
        evaluations="2 T (1 - start) + 2",
        again="2 T (1 - again_start) + 2",
        settings={
            "shift": Setting(1.45, 0.1, 10, "by how much steps are moved towards noise"),
            "start": _share(2 / 12, "share of steps left out at the noisy end"),
            "limit": _share(0.85, "the source's share of both velocities from which on nothing changes"),
            "source_guidance": _guidance(1.0, "the source's"),
            "guidance": _guidance(1.0),
            "level": _share(0.8, "the noise level at which the model is asked whether the edit is there"),
            "doubt": Setting(0.02, -10, 10, "an edit that its prompt fits by less is tried again"),
            "again_start": _share(0.0, "start, of the second try"),
            "again_guidance": _guidance(3.0, "the second try's"),
            "gain": Setting(0.02, 0, 10, "by how much better than the first the second try has to fit"),
        },
    ),
    MethodRecord(
        "noise",
        "image to image: noised to a strength, then sampled with the edit's prompt",
        "flux.methods.noise:noise",
        "arXiv 2108.01073",
        steps=28,
        evaluations="T strength",
        settings={
            "strength": _share(0.6, "share of steps sampled; 1 keeps nothing but the prompt"),
            "guidance": _guidance(3.5),
        },
        pairs=False,
    ),
    MethodRecord(
        "inpaint",
        "inpainting: the same inside a mask; outside, the source is put back behind every step",
        "flux.methods.inpaint:inpaint",
        "arXiv 2201.09865",
        steps=28,
        evaluations="T strength",
        settings={
            "strength": _share(1.0, "share of steps sampled; 1 keeps nothing of what is masked"),
            "rule": Choice("upstream", tuple(START_RULES), "whose rule says at which step a strength starts"),
            "guidance": _guidance(3.5),
        },
        pairs=False,
        needs_mask=True,
    ),
    MethodRecord(
        "kv-edit",
        "inversion, and back with the source's keys and values outside a mask, so that only the mask changes",
        "flux.methods.kv_edit:kv_edit",
        "arXiv 2502.17363",
        steps=28,
        evaluations="3 T (1 - start)",
        settings={
            "start": _share(4 / 28, "share of steps left out at the noisy end"),
            "origin": Choice("inverted", ORIGINS, "what edits start from"),
            "background": Setting(1.0, 0.01, 100, "how many times the source's tokens count in attention"),
            "source_guidance": _guidance(1.5, "the source's"),
            "guidance": _guidance(5.5),
        },
        inverts=True,
        needs_mask=True,
    ),
)


def method_record(name: str) -> MethodRecord:
    """The row of a method; KeyError for a name that no method has."""
    return {row.name: row for row in METHODS}[name]


def defaults(name: str) -> dict[str, float | str | bool]:
    """The settings of a method, at their defaults."""
    return method_record(name).defaults
