"""Where image-to-image starts: how many steps of a schedule are left out for a strength. Imports no torch."""

from collections.abc import Callable, Mapping

START_RULES: Mapping[str, Callable[[int, float], int]] = {
    "upstream": lambda steps, strength: int((1 - strength) * steps),
    "diffusers": lambda steps, strength: int(max(steps - min(steps * strength, steps), 0)),
}
"""The step that sampling starts with, by whose rule. They differ where a product is rounded: of 10 steps at
strength 0.9, upstream's page takes 10, and the diffusers library 9."""


def first_step(steps: int, strength: float, rule: str = "upstream") -> int:
    """The step, from 0, that sampling starts with; 0 at strength 1.

    strength: in [0, 1], the share of the steps that is taken. rule: a name of `START_RULES`.
    Raises ValueError for a strength outside, one that leaves no step, and a rule that does not exist.
    """
    if rule not in START_RULES:
        raise ValueError(f"rule {rule!r} does not exist: choose from {', '.join(START_RULES)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be between 0 and 1; got {strength}")
    first = START_RULES[rule](steps, strength)
    if first >= steps:
        raise ValueError(f"strength {strength:g} leaves no step of {steps}: 1 takes all, smaller ones fewer")
    return first
