"""Stable Flow (arXiv 2411.14430) on a picture's latent: invert it, then edit beside the pinned source."""

from collections.abc import Iterator

from flux.integrators import IntegratorChoice
from flux.methods.inversion import invert, replay
from flux.methods.task import EditTask, MethodStep


def stable_flow_real(
    task: EditTask,
    *,
    integrator: IntegratorChoice,
    nudge: float,
    undo_nudge: bool,
    pinning: str,
    source_guidance: float,
    guidance: float,
) -> Iterator[MethodStep]:
    """Invert the nudged sources with their prompts; go back with edits that look at them in vital layers.

    Which layers, and how, is the look of the task's field. integrator, nudge: see `invert`. undo_nudge,
    pinning: see `replay`. source_guidance: of the inversion and of the source beside the edit.
    """
    trajectory = yield from invert(task, integrator=integrator, guidance=source_guidance, nudge=nudge)
    guidances = (source_guidance, guidance)
    yield from replay(task, trajectory, guidances=guidances, pinning=pinning, undo_nudge=undo_nudge)
