"""Inpainting as pipelines do it: inside a mask the edit is sampled, outside the source is put back."""

from collections.abc import Iterator

from flux.methods.task import EditTask, MethodStep
from flux.sampling import Evaluation, kept_outside, noised
from flux.strength import first_step


def inpaint(task: EditTask, *, strength: float, rule: str, guidance: float) -> Iterator[MethodStep]:
    """Noise each source to a strength and sample the edit; outside the mask the source is blended in.

    Behind every step, outside the task's mask, the latent becomes the source, noised by the same noise to the
    level of the next step. Without a mask it is image to image. strength: the share of the steps that is
    sampled. rule: whose rule says where it starts, see `flux.strength.START_RULES`.
    Raises ValueError for a strength that leaves no step.
    """
    field, times = task.field, task.times[first_step(task.steps, strength, rule) :]
    first, steps = task.steps - (len(times) - 1), task.steps
    clean, noise = field.of_edits(task.clean), field.of_edits(task.noise(0))
    edit = noised(clean, noise, times[0])
    for index in range(steps - first):
        t, t_next = times[index], times[index + 1]
        edit = edit + (t_next - t) * field.edit(edit, t, Evaluation(first + index, steps), guidance)
        if field.mask is not None:
            edit = kept_outside(field.mask, clean, noise, times)(index, edit)
        yield MethodStep("edit", index, steps - first, t, t_next, edit)
