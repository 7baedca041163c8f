"""From pictures to noise and back: trajectories, latent nudging, and replays that are pinned to them.

    trajectory = yield from invert(task, integrator="midpoint")
    yield from replay(task, trajectory, guidances=(1, 3.5))

Both yield a `MethodStep` for each step. Nudging (arXiv 2411.14430, 3.4) multiplies latents by a number a
little above 1 before they are inverted, by which plain Euler inversions end nearer to noise of variance 1.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flux.hooks import Hooks
from flux.integrators import (
    Evaluation,
    IntegratorChoice,
    IntegratorRecord,
    Pin,
    Step,
    Velocity,
    integrator_record,
)
from flux.methods import EXACT_BY
from flux.methods.task import EditTask, MethodStep


@dataclass(frozen=True)
class Trajectory:
    """The way of sources from their latents to noise, both ends included.

    points: noise level and latents (S, L, 64), from the cleanest level to the noisiest. nudge: what the first
    latents were multiplied by. integrator: what found the way.
    """

    points: tuple[tuple[float, Tensor], ...]
    nudge: float
    integrator: IntegratorRecord

    @property
    def noise(self) -> Tensor:
        """The latents at the noisy end, (S, L, 64)."""
        return self.points[-1][1]

    @property
    def back(self) -> tuple[tuple[float, Tensor], ...]:
        """The points from noise to clean."""
        return self.points[::-1]


def invert(
    task: EditTask,
    *,
    integrator: IntegratorChoice = "euler",
    guidance: float = 1.0,
    nudge: float = 1.0,
    first: int = 0,
    hooks: Hooks | None = None,
) -> Generator[MethodStep, None, Trajectory]:
    """Follow the sources' velocity from their latents to noise; yields every step, returns the trajectory.

    nudge: what latents are multiplied by first; 1 for off. first: how many steps are left out at the noisy
    end. hooks: of the sources' evaluations.
    """
    record, times = integrator_record(integrator), task.times[first:][::-1]

    def velocity(z: Tensor, t: float, at: Evaluation) -> Tensor:
        return task.field.source(z, t, at, guidance, hooks)

    points = [(times[0], task.clean * nudge)]
    for step in record.function(velocity, points[0][1], times):
        points.append((step.t_next, step.after))
        yield MethodStep("invert", step.index, step.steps, step.t, step.t_next, source=step.after)
    return Trajectory(tuple(points), nudge, record)


def replay(
    task: EditTask,
    trajectory: Trajectory,
    *,
    guidances: tuple[float, float],
    pinning: str = "right",
    undo_nudge: bool = True,
) -> Iterator[MethodStep]:
    """Go back from the noise of a trajectory, each edit beside its source, and yield every step.

    guidances: the sources' and the edits'. undo_nudge: whether latents are divided by the nudge when they are
    yielded. pinning, of the sources behind every step:
    - right: to the trajectory's latent at that noise level, so that a source ends at the picture itself;
    - released: to the one that Stable Flow's released code takes, for comparison;
    - free: not at all;
    - exact: right, and the model is asked where the inversion asked it, an edit as far from the trajectory
      there as it is here (DirectEdit); an edit that asks for nothing new is then the picture, step by step.
      Raises ValueError for inversions that are not Euler's.
    """
    # Operators that lead back to the source lead to where its own way ends, a nudge and all.
    count, field = len(task.clean), replace(task.field, clean=trajectory.points[0][1])
    asked = _ahead(task, trajectory) if pinning == "exact" else _here

    def velocity(z: Tensor, t: float, at: Evaluation) -> Tensor:
        where, level = asked(z, t, at)
        here = z[:count], z[count:], t
        return torch.cat(field.pair(where[:count], where[count:], level, at, guidances, here=here))

    pinned = _pins(trajectory, pinning)
    pin = None if pinned is None else lambda index, both: torch.cat((pinned(index), both[count:]))
    start = torch.cat((trajectory.noise, field.of_edits(trajectory.noise)))
    undo = trajectory.nudge if undo_nudge else 1.0
    for step in _follow_back(trajectory, velocity, start, pin):
        source, edit = step.after[:count] / undo, step.after[count:] / undo
        yield MethodStep("edit", step.index, step.steps, step.t, step.t_next, edit, source)


def reconstruct(
    task: EditTask,
    *,
    integrator: IntegratorChoice = "euler",
    guidance: float = 1.0,
    nudge: float = 1.0,
    undo_nudge: bool = True,
) -> Iterator[MethodStep]:
    """Invert the sources and let them come back freely: how well a method that inverts could keep them.

    The last step's `source` is what became of the sources' latents, (S, L, 64).
    """
    trajectory = yield from invert(task, integrator=integrator, guidance=guidance, nudge=nudge)

    def velocity(z: Tensor, t: float, at: Evaluation) -> Tensor:
        return task.field.source(z, t, at, guidance)

    undo = nudge if undo_nudge else 1.0
    for step in _follow_back(trajectory, velocity, trajectory.noise, None):
        yield MethodStep("reconstruct", step.index, step.steps, step.t, step.t_next, source=step.after / undo)


def _follow_back(
    trajectory: Trajectory, velocity: Velocity, start: Tensor, pin: Pin | None
) -> Iterator[Step]:
    """Steps from the trajectory's noise to its clean end, by the integrator that goes its way back."""
    follow = integrator_record(trajectory.integrator.replay).function
    yield from follow(velocity, start, [t for t, _ in trajectory.back], pin=pin)


def _pins(trajectory: Trajectory, pinning: str) -> Callable[[int], Tensor] | None:
    """The sources' latents behind step `index` of a replay, (S, L, 64); None where they are not pinned."""
    if pinning == "free":
        return None
    latents = [latent for _, latent in trajectory.points]
    if pinning == "released":
        # It indexes the latents behind each step of the inversion by -index: behind its first step a nearly
        # clean one, from then on that of two levels ago.
        return lambda index: latents[1:][-index]
    return lambda index: trajectory.back[index + 1][1]


def _here(z: Tensor, t: float, at: Evaluation) -> tuple[Tensor, float]:
    return z, t


def _ahead(task: EditTask, trajectory: Trajectory) -> Callable[..., tuple[Tensor, float]]:
    """From a place to the one from which the inversion came here, as far from the trajectory as here."""
    name = trajectory.integrator.name
    if name not in EXACT_BY:
        raise ValueError(f'pinning "exact" takes integrator {" or ".join(EXACT_BY)}; got {name}')

    def ahead(z: Tensor, t: float, at: Evaluation) -> tuple[Tensor, float]:
        (_, here), (t_next, there) = trajectory.back[at.index : at.index + 2]
        offset = torch.cat((there - here, task.field.of_edits(there - here)))
        return z + offset, t_next if name == "euler" else t

    return ahead
