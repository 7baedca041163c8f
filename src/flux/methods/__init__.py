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

from flux.limits import MOST_GUIDANCE, MOST_PIXELS

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
class MethodRecord:
    """What is known of a method before it runs.

    function: its dotted name, `package.module:name`; it takes a `EditTask` and these settings by name.
    source: the paper. steps: the paper's number of them. settings: at the paper's defaults; numbers of steps
    are shares of all steps, so that they hold for any number. evaluations: how many of one row an edit
    takes, as a formula over T steps, in words.
    pairs: whether source and edit are evaluated side by side, so that looks and operators apply.
    inverts: whether it goes from the picture to noise first. needs_mask: whether it does nothing without one.
    needs_guidance: whether it is of no use to a model without guidance, such as schnell.
    """

    name: str
    about: str
    function: str
    source: str
    steps: int
    evaluations: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    pairs: bool = True
    inverts: bool = False
    needs_mask: bool = False
    needs_guidance: bool = False


def _guidance(default: float, whose: str = "the edit's") -> Setting:
    return Setting(default, 0, MOST_GUIDANCE, f"{whose} guidance")


def _share(default: float, about: str) -> Setting:
    return Setting(default, 0, 1, about)


METHODS: tuple[MethodRecord, ...] = (
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
)


def method_record(name: str) -> MethodRecord:
    """The row of a method; KeyError for a name that no method has."""
    return {row.name: row for row in METHODS}[name]


def defaults(name: str) -> dict[str, float]:
    """The settings of a method, at their defaults."""
    return {key: setting.default for key, setting in method_record(name).settings.items()}
