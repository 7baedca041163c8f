"""Image to image (SDEdit, arXiv 2108.01073): noise the picture to a strength, then sample the edit."""

from collections.abc import Iterator

from flux.methods.task import EditTask, MethodStep, begin
from flux.sampling import Evaluation


def noise(task: EditTask, *, strength: float, guidance: float) -> Iterator[MethodStep]:
    """Noise each source to the level at which `strength` of all steps are left, then sample the edit from it.

    strength: 1 starts from noise alone, so that nothing is kept of the source but its prompt.
    """
    first, steps = begin(task.times, 1 - strength), task.steps
    level = task.times[first]
    edit = task.field.of_edits((1 - level) * task.clean + level * task.noise(0))
    for index in range(first, steps):
        t, t_next = task.times[index], task.times[index + 1]
        edit = edit + (t_next - t) * task.field.edit(edit, t, Evaluation(index, steps), guidance)
        yield MethodStep("edit", index - first, steps - first, t, t_next, edit)
