"""How is a picture edited? One file per method, all of one contract; what a spec must know of them is here.

A method is a function over models and a request that yields a step (such as `EditStep`) for every step of
sampling it takes, with the step's index and, when they are done, pictures by row:

    for step in edit_steps(models, request):
        show(step.step.index)                       # the caller owns progress
        for row, picture in step.pictures.items():  # and saves pictures as they come
            save(row, picture)

The request is frozen and says all that decides the pictures: prompts, seed, sampling, and how each edit looks
at its source. The method writes nothing and prints nothing; how it injects is a plan of hooks.
"""

from dataclasses import dataclass

from flux.limits import MOST_PIXELS

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
