"""What becomes of a method's guidance on the way from noise, t = 1, to the picture, t = 0.

A schedule takes the guidance a method asks for, the noise level t, and how alike the velocities of source and
edit were at the evaluation before (`Schedule`, `field.py`); it returns the guidance for this evaluation.
"""

import math

from flux.methods.field import Schedule


def constant() -> Schedule:
    """The guidance as it is."""
    return lambda guidance, t, alike: guidance


def exponential(rate: float) -> Schedule:
    """Less guidance in noise and more near the picture: times exp(rate (1 - 2 t))."""
    return lambda guidance, t, alike: guidance * math.exp(rate * (1 - 2 * t))


def vags(rate: float) -> Schedule:
    """The same, the less so the less source and edit go the same way: times exp(rate (1 - 2 t) cosine).

    arXiv 2605.15661. The cosine is of the evaluation before, so that it costs none; at the first one it is 1.
    """
    return lambda guidance, t, alike: guidance * math.exp(rate * (1 - 2 * t) * alike)
