"""A generated source and its edits from the same noise, side by side, as demo 4 edits generated pictures."""

from collections.abc import Iterator

import torch

from flux.methods.task import EditTask, MethodStep
from flux.sampling import Evaluation, get_noise, pack


def beside(task: EditTask, *, guidance: float = 3.5) -> Iterator[MethodStep]:
    """Sample edits beside their sources, from these' own noise; the field's look says where they look."""
    size, device, steps = [16 * side for side in task.field.size], task.clean.device, task.steps
    noise = [get_noise(1, *size, device, torch.bfloat16, seed) for seed in task.seeds]
    source = pack(torch.cat(noise)).to(task.clean)
    edit = task.field.of_edits(source)
    for index in range(steps):
        t, t_next = task.times[index], task.times[index + 1]
        at = Evaluation(index, steps)
        v_source, v_edit = task.field.pair(source, edit, t, at, (guidance, guidance))
        source, edit = source + (t_next - t) * v_source, edit + (t_next - t) * v_edit
        yield MethodStep("edit", index, steps, t, t_next, edit, source)
