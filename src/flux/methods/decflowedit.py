"""DecFlowEdit (arXiv 2609.34237): FlowEdit within a soft mask that a first, weaker FlowEdit finds."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from flux.methods.field import Beside
from flux.methods.flowedit import flowedit
from flux.methods.masks import summed_mask
from flux.methods.task import EditTask, MethodStep, begin
from flux.sampling import Evaluation


def decflowedit(
    task: EditTask,
    *,
    start: float,
    search: float,
    threshold: float,
    softness: float,
    strength: float,
    source_guidance: float,
    guidance: float,
) -> Iterator[MethodStep]:
    """Find where source and edit part, then walk as FlowEdit does, each change times the mask M.

    start: the share of steps left out at the noisy end. search: the share of the others that look for the
    mask. strength l: changes are taken times l + (1 - l) M. A mask that the task brings counts on top.
    """
    for step in search_steps(task, start=start, search=search, threshold=threshold, softness=softness):
        yield step
    given = 1.0 if task.field.mask is None else task.field.mask
    weight = given * (strength + (1 - strength) * step.mask)

    def limited(v_edit: Tensor, beside: Beside) -> Tensor:
        return beside.v_source + weight * (v_edit - beside.v_source)

    found = task.with_mask(given * step.mask)
    task = replace(found, field=replace(found.field, operators=(*task.field.operators, limited)))
    guidances = {"source_guidance": source_guidance, "guidance": guidance}
    for each in flowedit(task, start=start, last=0.0, draws=1, **guidances):
        yield replace(each, mask=step.mask)


def search_steps(
    task: EditTask, *, start: float, search: float, threshold: float, softness: float
) -> Iterator[MethodStep]:
    """The first stage: FlowEdit at guidance 1 on a path of its own, without a mask; the last step has one.

    It takes the share `search` of the steps from `start` on, evenly spread. The differences of velocities are
    added up between a quarter and three quarters of the way.
    """
    task = task.with_mask(None)
    x, steps = task.clean, task.steps
    edit = task.field.of_edits(x)
    first = begin(task.times, start)
    count = max(1, round(search * (steps - first)))
    indices = [first + round(i * (steps - first) / count) for i in range(count + 1)]
    summed = torch.zeros_like(edit)
    for number in range(count):
        index, t, t_next = indices[number], task.times[indices[number]], task.times[indices[number + 1]]
        z_source = (1 - t) * x + t * task.noise(index)
        z_edit = edit + task.field.of_edits(z_source - x)
        v_source, v_edit = task.field.pair(z_source, z_edit, t, Evaluation(index, steps), (1.0, 1.0))
        change = v_edit - task.field.of_edits(v_source)
        edit = edit + (t_next - t) * change
        if count // 4 <= number < max(3 * count // 4, 1):
            summed = summed + change
        mask = None
        if number == count - 1:
            mask = summed_mask(summed, task.field.size, threshold=threshold, softness=softness)
        yield MethodStep("mask", number, count, t, t_next, mask=mask)


def velocity_mask(
    start: float, search: float, threshold: float, softness: float
) -> Callable[[EditTask], Tensor]:
    """The mask of the first stage for any other method: from a task to its mask, packed, (N, L, 64)."""

    def find(task: EditTask) -> Tensor:
        *_, last = search_steps(task, start=start, search=search, threshold=threshold, softness=softness)
        return last.mask

    return find
