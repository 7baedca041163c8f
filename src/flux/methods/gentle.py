"""Ours: FlowEdit at guidance 1, gated; an edit that the model does not find made is tried again with more."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from flux.methods.flowedit import flowedit
from flux.methods.operators import gate
from flux.methods.task import EditTask, MethodStep
from flux.sampling import Evaluation


def gentle(
    task: EditTask,
    *,
    shift: float,
    start: float,
    limit: float,
    source_guidance: float,
    guidance: float,
    level: float,
    doubt: float,
    again_start: float,
    again_guidance: float,
    gain: float,
) -> Iterator[MethodStep]:
    """Edit gently, ask the model whether the edit is there, and where it is not try again more strongly.

    The first try is FlowEdit without guidance's exaggeration, its velocities' difference set to 0 where it is
    small against the source's velocity (`gate`). An edit that its own prompt then does not fit better than
    its source's by `doubt` (`fit`) is tried again, from `again_start` and with `again_guidance`; the second
    try is taken where it fits better by `gain`. shift: by how much steps are moved towards noise, where the
    edit takes its shape: noise level t becomes shift t / (1 + (shift - 1) t).
    """
    task = replace(task, times=tuple(shift * t / (1 + (shift - 1) * t) for t in task.times))
    gated = replace(task, field=replace(task.field, operators=(gate(limit), *task.field.operators)))
    both = {"last": 0.0, "draws": 1, "source_guidance": source_guidance}
    edit = task.field.of_edits(task.clean)
    for step in flowedit(gated, start=start, guidance=guidance, **both):
        edit = step.edit
        yield step
    found = fit(task, edit, level)
    rows = [row for row, each in enumerate(found.tolist()) if each < doubt]
    if not rows:
        return
    again, second = gated.rows(rows).afresh(), edit[rows]
    for step in flowedit(again, start=again_start, guidance=again_guidance, **both):
        second = step.edit
        yield replace(step, phase="again", edit=edit)
    better = fit(again, second, level) > found[rows] + gain
    chosen = torch.where(better[:, None, None], second, edit[rows])
    edit = edit.index_copy(0, torch.tensor(rows, device=edit.device), chosen)
    yield MethodStep("choose", 0, 1, task.times[-2], task.times[-1], edit)


def fit(task: EditTask, edit: Tensor, level: float) -> Tensor:
    """By how much better the edits' prompts foresee them than their sources' prompts do, (N,).

    The edits, (N, L, 64), are noised to the noise level nearest to `level`; what is compared are the mean
    squared errors of the velocities that the two prompts give there. Two evaluations.
    """
    index = min(range(task.steps), key=lambda each: abs(task.times[each] - level))
    t, noise = task.times[index], task.field.of_edits(task.noise(task.steps))
    z = (1 - t) * edit + t * noise
    bare = {"look": None, "operators": (), "source_schedule": None, "edit_schedule": None, "watch": None}
    # Of a source there is no velocity that moved away from a negative prompt to compare with.
    plain = replace(task.field, **bare, away=None)
    velocities = plain.pair(z, z, t, Evaluation(index, task.steps), (1.0, 1.0), apart=True)
    v_source, v_edit = ((v - (noise - edit)).square().mean(dim=(1, 2)) for v in velocities)
    return v_source - v_edit
