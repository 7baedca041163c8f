"""RF-Inversion (arXiv 2410.10792): there and back by a flow that a controller pulls to where it shall end."""

from collections.abc import Iterator

from flux.methods.task import EditTask, MethodStep
from flux.sampling import Evaluation


def rf_inversion(
    task: EditTask, *, gamma: float, eta: float, stop: float, inversion_guidance: float, guidance: float
) -> Iterator[MethodStep]:
    """Invert under the empty prompt while pulled to a draw of noise; sample the edit, at first pulled back.

    gamma: the pull to the noise, 0 for plain inversion, 1 for a straight line. eta: the pull to the picture,
    during the first `stop` of all steps; 1 in all steps ends at the picture itself.
    The inversion takes one step less than the edit, at even levels: at the last of them, 1, the pull has no
    finite strength. No layer is touched, and the source's prompt is not looked at.
    """
    steps, target = task.steps, task.noise(0)
    z = task.clean
    for index in range(steps - 1):
        t, t_next = index / steps, (index + 1) / steps
        v = task.field.unprompted(z, t, Evaluation(index, steps), inversion_guidance)
        z = z + (t_next - t) * ((1 - gamma) * v + gamma * (target - z) / (1 - t))
        yield MethodStep("invert", index, steps - 1, t, t_next, source=z)

    picture, edit = task.field.of_edits(task.clean), task.field.of_edits(z)
    for index in range(steps):
        t, t_next = task.times[index], task.times[index + 1]
        pull = eta if index < round(stop * steps) else 0.0
        v = task.field.edit(edit, t, Evaluation(index, steps), guidance)
        edit = edit + (t_next - t) * ((1 - pull) * v + pull * (edit - picture) / t)
        yield MethodStep("edit", index, steps, t, t_next, edit)
