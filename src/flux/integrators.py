"""Integrators: flat functions that follow a velocity through any list of times, forwards or backwards.

Each takes a velocity, where to start, (B, L_img, 64), and the times, and yields a `Step` per interval; it
knows nothing of models. What is known of them before they run stands in INTEGRATORS. Imports no torch, so
that a spec is checked before it loads.

    for step in midpoint(velocity, noise, [1.0, 0.5, 0.0]):
        show(step.after)

pin: what becomes of the latent behind each step before the next one starts from it; None leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """Where in a run a velocity is asked for: step `index`, from 0, of `steps`.

    substep: 0 at the start of the step, 1 at its midpoint or, with rules that iterate, at their second guess.
    """

    index: int
    steps: int
    substep: int = 0


Velocity = Callable[["Tensor", float, Evaluation], "Tensor"]
"""Takes x (B, L_img, 64), its noise level t, and where in the run that is; returns dx/dt = noise - x_0."""

Pin = Callable[[int, "Tensor"], "Tensor"]
"""Takes a step's index and the latent behind it, (B, L_img, 64); returns the one to go on from."""

Integrator = Callable[..., "Iterator[Step]"]
"""Takes a velocity, a latent (B, L_img, 64), times, and `pin` by name; yields a Step per interval."""


@dataclass(frozen=True)
class Step:
    """One step of a sampling run: from `t` to `t_next`, `before` to `after`, both (B, L_img, 64).

    `pred` is the velocity at (before, t); with rules that do not evaluate there, the one they moved by.
    `steps` is the length of the run, `index` counts from 0.
    """

    index: int
    steps: int
    t: float
    t_next: float
    before: Tensor
    after: Tensor
    pred: Tensor

    @property
    def estimate(self) -> Tensor:
        """The clean latent as the model sees it now: x_0 = x_t - t (noise - x_0)."""
        return self.before - self.t * self.pred


def euler(velocity: Velocity, x: Tensor, times: Sequence[float], *, pin: Pin | None = None) -> Iterator[Step]:
    """Yield Euler steps through `times`, one evaluation each; first order."""
    steps = len(times) - 1
    for index, (t, t_next) in enumerate(pairwise(times)):
        pred = velocity(x, t, Evaluation(index, steps))
        after = _pinned(pin, index, x + (t_next - t) * pred)
        yield Step(index, steps, t, t_next, x, after, pred)
        x = after


def euler_released(
    velocity: Velocity, x: Tensor, times: Sequence[float], *, pin: Pin | None = None
) -> Iterator[Step]:
    """Yield steps that ask for the velocity here at the time they go to, one evaluation each; first order.

    The inversion of Stable Flow's released code; a fixed-point iteration of which only the first is taken.
    """
    steps = len(times) - 1
    for index, (t, t_next) in enumerate(pairwise(times)):
        pred = velocity(x, t_next, Evaluation(index, steps))
        after = _pinned(pin, index, x + (t_next - t) * pred)
        yield Step(index, steps, t, t_next, x, after, pred)
        x = after


def midpoint(
    velocity: Velocity, x: Tensor, times: Sequence[float], *, pin: Pin | None = None
) -> Iterator[Step]:
    """Yield midpoint steps through `times`, two evaluations each; second order.

    RF-Solver (arXiv 2411.04746) integrates by this rule.
    """
    steps = len(times) - 1
    for index, (t, t_next) in enumerate(pairwise(times)):
        pred = velocity(x, t, Evaluation(index, steps))
        halfway = x + (t_next - t) / 2 * pred
        middle = velocity(halfway, (t + t_next) / 2, Evaluation(index, steps, substep=1))
        after = _pinned(pin, index, x + (t_next - t) * middle)
        yield Step(index, steps, t, t_next, x, after, pred)
        x = after


def fireflow(
    velocity: Velocity, x: Tensor, times: Sequence[float], *, pin: Pin | None = None
) -> Iterator[Step]:
    """Yield midpoint steps that find the middle by the last step's velocity; second order (arXiv 2412.07517).

    One evaluation each, and one up front, at the start of the first.
    """
    steps, pred = len(times) - 1, None
    for index, (t, t_next) in enumerate(pairwise(times)):
        if pred is None:
            pred = velocity(x, t, Evaluation(index, steps))
        halfway = x + (t_next - t) / 2 * pred
        pred = velocity(halfway, (t + t_next) / 2, Evaluation(index, steps, substep=1))
        after = _pinned(pin, index, x + (t_next - t) * pred)
        yield Step(index, steps, t, t_next, x, after, pred)
        x = after


def fixed_point(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    *,
    iterations: int = 2,
    tolerance: float = 0.0,
    pin: Pin | None = None,
) -> Iterator[Step]:
    """Yield implicit Euler steps, x_next = x + dt v(x_next, t_next), solved by iteration; first order.

    Where it converges an Euler step from x_next comes back to x (arXiv 2309.04907), which it need not where
    steps are large. iterations: evaluations a step, at most, 1 or more. tolerance: a row whose change,
    relative to its norm, is this small is left as it is; a step ends when all rows are.
    """
    steps = len(times) - 1
    for index, (t, t_next) in enumerate(pairwise(times)):
        guess, pred, settled = x, None, None
        for iteration in range(iterations):
            asked = velocity(guess, t_next, Evaluation(index, steps, substep=iteration))
            better = x + (t_next - t) * asked
            if settled is not None:  # row by row, so that none depends on those beside it
                better, asked = guess.where(settled, better), pred.where(settled, asked)
            settled = _small(better - guess, better, tolerance)
            guess, pred = better, asked
            if tolerance and settled.all():
                break
        after = _pinned(pin, index, guess)
        yield Step(index, steps, t, t_next, x, after, pred)
        x = after


def uni_inv(
    velocity: Velocity, x: Tensor, times: Sequence[float], *, pin: Pin | None = None
) -> Iterator[Step]:
    """Yield steps by the velocity at the end of a step by the last one's; first order.

    From UniEdit-Flow (Jiao et al.). One evaluation each, and one up front, at the start of the first. An
    Euler step back nearly undoes each.
    """
    steps, pred = len(times) - 1, None
    for index, (t, t_next) in enumerate(pairwise(times)):
        if pred is None:
            pred = velocity(x, t, Evaluation(index, steps))
        ahead = x + (t_next - t) * pred
        pred = velocity(ahead, t_next, Evaluation(index, steps, substep=1))
        after = _pinned(pin, index, x + (t_next - t) * pred)
        yield Step(index, steps, t, t_next, x, after, pred)
        x = after


def _pinned(pin: Pin | None, index: int, after: Tensor) -> Tensor:
    return after if pin is None else pin(index, after)


def _small(change: Tensor, x: Tensor, tolerance: float) -> Tensor:
    """Whether a row's change is at most `tolerance` of it, (B, 1, ...)."""
    norms = [each.reshape(len(x), -1).float().norm(dim=1) for each in (change, x)]
    return (norms[0] <= tolerance * norms[1]).reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True)
class IntegratorRecord:
    """What is known of an integrator before it runs.

    source: where the rule is from. order: by which its error falls with the length of steps.
    evaluations: how many of one row it takes, as a formula over T steps, in words; each: in a step; first:
    more, up front. replay: the integrator that goes back the way that this one came; where it is another one,
    this one is for inversions. settings: what it takes besides, by name, with its lowest and highest value;
    whole numbers between whole numbers. given: those that it was given, by which `function` goes.
    """

    name: str
    about: str
    source: str
    order: int
    evaluations: str
    function: Integrator = field(compare=False)
    replay: str
    settings: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False)
    each: int = 1
    first: int = 0
    given: tuple[tuple[str, float], ...] = ()

    def evaluations_in(self, steps: int) -> int:
        """How many of one row so many steps take; with a tolerance, at most."""
        return self.each * steps + (self.first if steps else 0)


INTEGRATORS: tuple[IntegratorRecord, ...] = (
    IntegratorRecord("euler", "steps along the velocity here", "Euler", 1, "T", euler, "euler"),
    IntegratorRecord(
        "euler-released",
        "steps along the velocity here at the time they go to",
        "arXiv 2411.14430, released code",
        1,
        "T",
        euler_released,
        "euler",
    ),
    IntegratorRecord(
        "midpoint",
        "steps along the velocity halfway",
        "arXiv 2411.04746",
        2,
        "2 T",
        midpoint,
        "midpoint",
        each=2,
    ),
    IntegratorRecord(
        "fireflow",
        "the same, halfway by the last velocity",
        "arXiv 2412.07517",
        2,
        "T + 1",
        fireflow,
        "fireflow",
        first=1,
    ),
    IntegratorRecord(
        "fixed-point",
        "steps that an Euler step undoes, found by iteration",
        "arXiv 2309.04907",
        1,
        "iterations T",
        fixed_point,
        "euler",
        {"iterations": (1, 100), "tolerance": (0.0, 1.0)},
        each=2,
    ),
    IntegratorRecord(
        "uni-inv",
        "steps that an Euler step nearly undoes",
        "UniEdit-Flow, Jiao et al.",
        1,
        "T + 1",
        uni_inv,
        "euler",
        first=1,
    ),
)


IntegratorChoice = str | Mapping[str, str | float] | IntegratorRecord
"""An integrator's name, `{"name": name, setting: value}`, or its record."""


def integrator_record(choice: IntegratorChoice) -> IntegratorRecord:
    """The record of an integrator, with its settings.

    ValueError for an integrator or a setting that does not exist, and for one out of its bounds.
    """
    if isinstance(choice, IntegratorRecord):
        return choice
    given = {"name": choice} if isinstance(choice, str) else dict(choice)
    name, records = given.pop("name", None), {row.name: row for row in INTEGRATORS}
    if name not in records:
        raise ValueError(f"integrator {name!r} does not exist: choose from {', '.join(records)}")
    record = records[name]
    for key, value in given.items():
        _require_setting(record, key, value)
    if not given:
        return record
    own = {"given": tuple(sorted(given.items())), "each": given.get("iterations", record.each)}
    return replace(record, function=partial(record.function, **given), **own)


def _require_setting(record: IntegratorRecord, key: str, value: object) -> None:
    if key not in record.settings:
        takes = f"takes {', '.join(record.settings)}" if record.settings else "takes no settings"
        raise ValueError(f"integrator {record.name} has no setting {key!r}: it {takes}")
    lowest, highest = record.settings[key]
    numbers = (int,) if isinstance(lowest, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, numbers) or not lowest <= value <= highest:
        whole = "a whole number" if numbers == (int,) else "a number"
        raise ValueError(
            f"integrator {record.name}: {key} must be {whole} from {lowest} to {highest}; got {value!r}"
        )
