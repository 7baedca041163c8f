"""DNAEdit: noise aligned to the picture, and an edit that gives back what that missed.

"DNAEdit: Direct Noise Alignment for Text-Guided Rectified Flow Editing", Xie, Li, Li, Wu, Yi, Zhang.
"""

from collections.abc import Iterator

from flux.methods.task import EditTask, MethodStep, begin
from flux.sampling import Evaluation


def dnaedit(
    task: EditTask, *, start: float, weight: float, source_guidance: float, guidance: float
) -> Iterator[MethodStep]:
    """Go to noise by what the model says ahead, keep how far off the line was, and add it in the edit.

    At each level the line to the noise is followed to the next one and the model asked there. What differs,
    times the step, moves the latent; and the noise, so that the line leads on where the model points.
    start: the share of steps left out at the noisy end. weight: of the edit's velocity; the rest goes to the
    way from a reference that starts as the picture and moves with the difference of the velocities.
    The edit is its own source, exactly, at weight 1 with the source's prompt and guidance.
    """
    first, steps = begin(task.times, start), task.steps
    z, toward = task.clean, task.noise(0)
    missed, said = {}, {}  # by the step of the edit, both (S, L, 64)
    for index in reversed(range(first, steps)):
        t, t_next = task.times[index + 1], task.times[index]
        line = (toward - z) / (1 - t)
        said[index] = task.field.source(
            z + (t_next - t) * line, t_next, Evaluation(index, steps), source_guidance
        )
        missed[index] = line - said[index]
        z = z + (t_next - t) * said[index]
        toward = toward - (1 - t) * missed[index]
        yield MethodStep("invert", steps - 1 - index, steps - first, t, t_next, source=z)

    of_edits = task.field.of_edits
    edit, reference = of_edits(z), of_edits(task.clean)
    for index in range(first, steps):
        t, t_next = task.times[index], task.times[index + 1]
        where = edit + (t - t_next) * of_edits(missed.pop(index))
        v = task.field.edit(where, t, Evaluation(index, steps), guidance)
        reference = reference + (t_next - t) * (v - of_edits(said.pop(index)))
        edit = edit + (t_next - t) * (weight * v + (1 - weight) * (edit - reference) / t)
        yield MethodStep("edit", index - first, steps - first, t, t_next, edit)
