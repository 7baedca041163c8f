"""Where edits look at their sources: a role for each layer.

    look = look_at_source([Role(("all",), "outside"), Role((1, 11))], models.spec.layers)
    task = replace(task, field=replace(task.field, look=look))

In a layer with a role an edit's image tokens take keys, values or both from its source, in so far as the role
says: on which side of the mask, which tokens, at which steps, how much. `flux/hooks/looking.py` injects.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from flux.hooks import Hooks, LayerName
from flux.hooks.looking import LookAtSource
from flux.hooks.plan import Select
from flux.methods.field import Look
from flux.methods.masks import token_weights
from flux.methods.tables import SIDES
from flux.models import Layers

Curve = Callable[[float], float]
"""Takes how far a window of steps has come, 0 at its first step and 1 at its last; returns a strength."""


def constant(value: float) -> Curve:
    return lambda progress: value


def linear(first: float, last: float) -> Curve:
    return lambda progress: first + (last - first) * progress


def cosine(first: float, last: float) -> Curve:
    """From first to last along half a cosine: slowly, fast in the middle, slowly."""
    return lambda progress: first + (last - first) * (1 - math.cos(math.pi * progress)) / 2


def listed(values: Sequence[float]) -> Curve:
    """One value a step where there are as many of them as steps; else these, evenly spread, lines between."""

    def curve(progress: float) -> float:
        place = progress * (len(values) - 1)
        below = min(int(place + 1e-9), len(values) - 1)
        above = min(below + 1, len(values) - 1)
        return values[below] + (values[above] - values[below]) * max(0.0, place - below)

    return curve


@dataclass(frozen=True)
class Role:
    """How edits look at their sources in some layers.

    layers: names as `Layers.expand` reads them. side: "everywhere", "outside" or "inside" the mask, or "off".
    Without a mask all of the picture may change: it is all inside. keys, values: what is taken.
    strength: 0 (an edit's own) to 1 (its source's), one for all steps or a curve over those of the window.
    steps: window (start, stop) of sampling steps, start included, stop not; None for all.
    select: which tokens, by the source's attention; None for all; see `TopRatio`, `AboveThreshold`.
    Raises ValueError for another side, a strength outside [0, 1], and a window that ends before it starts.
    """

    layers: tuple[LayerName, ...]
    side: str = "everywhere"
    keys: bool = True
    values: bool = True
    strength: float | Curve = 1.0
    steps: tuple[int, int] | None = None
    select: Select | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(SIDES)}; got {self.side!r}")
        if not callable(self.strength) and not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength must be between 0 and 1; got {self.strength}")
        if self.steps is not None and not 0 <= self.steps[0] <= self.steps[1]:
            raise ValueError(f"steps must be (start, stop) with 0 <= start <= stop; got {self.steps}")

    def strength_at(self, step: int, steps: int) -> float:
        """The strength at a step, from 0, of `steps`; 0 outside the window."""
        start, stop = (0, steps) if self.steps is None else self.steps
        if not start <= step < stop:
            return 0.0
        if not callable(self.strength):
            return self.strength
        return self.strength((step - start) / max(1, stop - 1 - start))


def look_at_source(roles: Sequence[Role], layers: Layers) -> Look:
    """The look of a field: each layer has the last of the roles that name it, and none looks nowhere.

    Raises ValueError for layers that the model does not have.
    """
    by_layer = {index: role for role in roles for index in layers.indices(role.layers)}
    by_layer = {index: role for index, role in by_layer.items() if role.side != "off"}

    def look(of: tuple[int, ...], sources: int, mask: Tensor | None) -> Hooks:
        rows = (*range(sources), *of)
        inside = None if mask is None else pad(token_weights(mask), (0, 0, sources, 0))
        given = {role: _injection(role, rows, inside) for role in set(by_layer.values())}
        return Hooks(inject={index: given[role] for index, role in by_layer.items() if given[role]})

    return look


def _injection(role: Role, of: tuple[int, ...], inside: Tensor | None) -> LookAtSource | None:
    """The injection of a role, None where it has nothing to look at. inside: the mask by token, (B, L)."""
    if role.side == "outside" and inside is None:
        return None
    weight = {"everywhere": None, "inside": inside, "outside": None if inside is None else 1 - inside}
    return LookAtSource(of, weight[role.side], role.keys, role.values, role.strength_at, role.select)
