"""FlowAlign: FlowEdit by guidance between two prompts, held to its source by a pull.

"FlowAlign: Trajectory-Regularized, Inversion-Free Flow-based Image Editing", Kim, Hong, Park, Ye.
"""

from collections.abc import Iterator

from flux.methods.task import EditTask, MethodStep, begin
from flux.sampling import Evaluation


def flowalign(
    task: EditTask, *, start: float, scale: float, pull: float, guidance: float
) -> Iterator[MethodStep]:
    """Walk from source to edit along velocities at two places: the noised source and the same moved.

    At the moved one the edit's prompt is guided away from the source's by `scale`; the source's velocity
    comes off at the other. pull: how much of the difference of the two clean pictures foreseen is taken back
    at each step. start: the share of steps left out at the noisy end. guidance: of the model itself, for all.
    """
    x, edit = task.clean, task.field.of_edits(task.clean)
    first, steps = begin(task.times, start), task.steps
    for index in range(first, steps):
        t, t_next = task.times[index], task.times[index + 1]
        at = Evaluation(index, steps)
        noised = (1 - t) * x + t * task.noise(index)
        moved = edit + task.field.of_edits(noised - x)
        v_noised = task.field.of_edits(task.field.source(noised, t, at, guidance))
        v_source, v_edit = task.field.pair(moved, moved, t, at, (guidance, guidance), apart=True)
        v_moved = v_source + scale * (v_edit - v_source)
        foreseen = task.field.of_edits(noised) - t * v_noised - (moved - t * v_moved)
        edit = edit + (t_next - t) * (v_moved - v_noised) + pull * foreseen
        yield MethodStep("edit", index - first, steps - first, t, t_next, edit)
