"""FlowEdit (arXiv 2412.08629): an edit by the difference of two velocities, without inversion."""

from collections.abc import Iterator

import torch

from flux.methods.task import EditTask, MethodStep, begin
from flux.sampling import Evaluation, kept_outside


def flowedit(
    task: EditTask, *, start: float, last: float, draws: int, source_guidance: float, guidance: float
) -> Iterator[MethodStep]:
    """Walk from source to edit along v_edit - v_source, with the source noised afresh at each step.

    start: the share of steps left out at the noisy end (n_max = 24 of 28: 4 / 28). last: the share of steps
    at the clean end that sample the edit plainly (n_min); where these are all that are left, it is image to
    image. draws: noises per step that are averaged (n_avg).
    In plain steps there is no source beside the edit, and so nothing for looks and operators to do; outside
    the task's mask the latent becomes the source behind each, noised by the noise that they started from.
    """
    x, edit = task.clean, task.field.of_edits(task.clean)
    first, steps = begin(task.times, start), task.steps
    plain_from = max(first, steps - round(last * steps))
    for index in range(first, steps):
        t, t_next = task.times[index], task.times[index + 1]
        at = Evaluation(index, steps)
        if index >= plain_from:
            if index == plain_from:  # from here on the latent is the noisy edit itself
                noise = task.noise(index * draws)
                edit = edit + task.field.of_edits((1 - t) * x + t * noise - x)
            edit = edit + (t_next - t) * task.field.edit(edit, t, at, guidance)
            if (mask := task.field.mask) is not None:
                clean, own = task.field.of_edits(x), task.field.of_edits(noise)
                edit = kept_outside(mask, clean, own, task.times)(index, edit)
        else:
            change = torch.zeros_like(edit)
            for draw in range(draws):
                z_source = (1 - t) * x + t * task.noise(index * draws + draw)
                z_edit = edit + task.field.of_edits(z_source - x)
                v_source, v_edit = task.field.pair(z_source, z_edit, t, at, (source_guidance, guidance))
                change = change + (v_edit - task.field.of_edits(v_source)) / draws
            edit = edit + (t_next - t) * change
        yield MethodStep("edit", index - first, steps - first, t, t_next, edit)
