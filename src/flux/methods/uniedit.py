"""UniEdit-Flow: an inversion that stops early, and an edit that goes beyond its prompt.

"UniEdit-Flow: Unleashing Inversion and Editing in the Era of Flow Models", Jiao, Huang, Wang, Liao.
"""

from collections.abc import Iterator

from torch import Tensor

from flux.methods.inversion import invert
from flux.methods.task import EditTask, MethodStep, begin
from flux.sampling import Evaluation


def uniedit(
    task: EditTask, *, depth: float, weight: float, source_guidance: float, guidance: float
) -> Iterator[MethodStep]:
    """Invert through the last `depth` of all steps, then edit from there by the velocities' difference.

    The inversion (Uni-Inv) goes ahead with the velocity it has, asks for the one there, and takes its step
    with that. depth: the paper's alpha, .6 for small changes, .8 for large ones. weight: the paper's omega,
    by how much the difference of the edit's and the source's velocity, both at the edit, is exaggerated.
    Where they differ most, by token, the edit moves with its own velocity, elsewhere with its source's.
    """
    first, steps = begin(task.times, 1 - depth), task.steps
    trajectory = yield from invert(task, integrator="uni-inv", guidance=source_guidance, first=first)
    edit = task.field.of_edits(trajectory.noise)
    for index in range(first, steps):
        t, t_next = task.times[index], task.times[index + 1]
        at, guidances = Evaluation(index, steps), (source_guidance, guidance)
        v_source, v_edit = task.field.pair(edit, edit, t, at, guidances, apart=True)
        change = v_edit - v_source
        where = from_least_to_most(change.abs().mean(dim=-1, keepdim=True))
        v = v_source + where * change + weight * (1 + where) * change
        edit = edit + (t_next - t) * v
        yield MethodStep("edit", index - first, steps - first, t, t_next, edit)


def from_least_to_most(x: Tensor) -> Tensor:
    """x, (N, L, 1), stretched to 0 to 1 by row; 0 where a row is the same everywhere."""
    least, most = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
    return (x - least) / (most - least).clamp(min=1e-12)
