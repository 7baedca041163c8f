"""How large a number may be that is asked for, and seeds: the same in every spec and on every command line.

The bounds are far beyond what is of use, and near enough that no slip of the finger fills a memory or a week.
"""

import os

MOST_STEPS = 1000
MOST_PIXELS = 8192  # of a side
MOST_GUIDANCE = 100
MOST_ROWS = 1024  # side by side
MOST_PROMPTS = 100_000
MOST_SEEDS = 1000  # in one list
MOST_PICTURES = 1_000_000  # of one run
MOST_SEED = 2**63 - 1

DRAW = -1
"""The seed that stands for one that is drawn."""

SEED_RANGE = f"between 0 and {MOST_SEED}, or {DRAW} to draw one"


class Drawn(int):
    """A seed that nobody chose: it has to be shown, or the picture cannot be made again."""


def draw_seed() -> Drawn:
    return Drawn(int.from_bytes(os.urandom(4), "big"))
