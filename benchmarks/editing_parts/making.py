"""Runs a row's method over a task set, and finishes its latents to pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from editing_parts.cost import Cost, measured
from editing_parts.remembering import Remembering
from editing_parts.rows import STEPS, Named, Row, Run
from editing_parts.tasks import TaskSet, decoded, to_model
from flux.hooks.selection import AboveThreshold, TopRatio
from flux.methods.looks import Role, look_at_source
from flux.methods.lookup import find_method, load_function
from flux.methods.masks import own_mask, packed, unpacked
from flux.methods.tables import CURVES, MASKS, OPERATORS, SCHEDULES, PartRecord, build, part_record
from flux.methods.task import EditTask
from flux.models import Layers
from flux.photos.framing import Frame
from flux.photos.paste import PASTE_BELOW, paste
from flux.weights.load import Models


@dataclass(frozen=True)
class Outcome:
    """What a run made of a task set.

    latents: packed (N, L, 64). mask: that of the run, like them; None without one. evaluations: by pair.
    spread: of the task, to which masks are relative.
    """

    latents: Tensor
    mask: Tensor | None
    evaluations: tuple[int, ...]
    spread: float
    cost: Cost

    def first(self, count: int) -> "Outcome":
        mask = None if self.mask is None else self.mask[:count]
        return replace(self, latents=self.latents[:count], mask=mask, evaluations=self.evaluations[:count])


def run_over(
    models: Models, tasks: TaskSet, run: Run, steps: int = STEPS, *, unchanged: bool = False
) -> Outcome:
    """Run a method over all pairs. unchanged: each edit's prompt is its source's."""
    latents, given, evaluations, flow = [], [], [], models.flow
    saved = flow.saved if isinstance(flow, Remembering) else 0.0
    with measured(models.device) as cost:
        for rows in tasks.batches():
            task = tasks.open(models, rows, run.steps or steps, unchanged=unchanged)
            task = prepared(task, run, tasks, rows, models.spec.layers)
            latents.append(_last(task, run))
            given.append(task.field.mask)
            evaluations += task.field.counts
    if isinstance(flow, Remembering):
        cost.seconds += flow.saved - saved
    mask = None if given[0] is None else torch.cat(given)
    return Outcome(torch.cat(latents), mask, tuple(evaluations), task.spread, cost)


def _last(task: EditTask, run: Run) -> Tensor:
    """The edits' latents behind the last step; settings that a run leaves out are the method's own."""
    record = find_method(run.method)
    for step in load_function(record.function)(task, **record.defaults | run.settings):  # noqa: B007
        pass
    return step.edit


def prepared(task: EditTask, run: Run, tasks: TaskSet, rows: slice, layers: Layers) -> EditTask:
    """The task with what a run puts beside its method: looks, operators, schedules, and last its mask."""
    field = replace(
        task.field,
        look=look_at_source([_role(each) for each in run.look], layers) if run.look else None,
        operators=tuple(_built(OPERATORS, each) for each in run.operators),
        source_schedule=_built(SCHEDULES, run.schedules[0]),
        edit_schedule=_built(SCHEDULES, run.schedules[1]),
    )
    task = replace(task, field=field)
    if run.mask == "true":
        return task.with_mask(true_mask(tasks.differs[rows]).to(task.clean))
    if run.mask == "own":
        first = _last(replace(task, field=replace(field, look=None)), run)
        clean = task.field.of_edits(task.clean)
        return task.with_mask(own_mask(clean, first, task.field.size, task.spread))
    return task if run.mask is None else task.with_mask(_built(MASKS, run.mask)(task))


def _built(table: tuple[PartRecord, ...], named: Named | None):
    return None if named is None else build(part_record(table, named[0]), **named[1])


def _role(given: Mapping[str, Any]) -> Role:
    """A role from a row's data: `strength` may be a curve with its settings, `select` a strategy's number."""
    given = dict(given) | {"layers": tuple(given["layers"])}
    if isinstance(given.get("strength"), list | tuple):
        given["strength"] = _built(CURVES, given["strength"])
    if "select" in given:
        name, number = given["select"]
        given["select"] = {"ratio": TopRatio, "threshold": AboveThreshold}[name](number)
    return Role(**given)


def true_mask(differs: np.ndarray) -> Tensor:
    """Where two pictures differ, bool (N, H, W), as a mask: positions of the latent that show any of it."""
    grid = functional.max_pool2d(torch.from_numpy(differs).float()[:, None], 8)[:, 0]
    return packed(grid)


def finish(models: Models, tasks: TaskSet, outcome: Outcome, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of a row, uint8 (N, H, W, 3), and the share of each that its mask covers, (N,)."""
    size = (tasks.size[0] // 16, tasks.size[1] // 16)
    clean, latents = tasks.clean.to(outcome.latents), outcome.latents

    def own(threshold: float) -> Tensor:
        settings = {"threshold": threshold, "peak": row.peak, "whole": row.whole}
        return own_mask(clean, outcome.latents, size, outcome.spread, **settings)

    if row.blend is not None:
        latents = clean + own(row.blend) * (latents - clean)
    mask = own(row.threshold) if outcome.mask is None else outcome.mask
    grids = unpacked(mask, size).cpu()
    share = grids.mean(dim=(1, 2)).numpy()
    pictures = decoded(models, latents, tasks.size, tasks.batch)
    if row.paste is False:
        return pictures, share
    pasted = _pasted(tasks, grids, pictures, row.residual)
    kept = share < (PASTE_BELOW if row.paste == "auto" else np.inf)
    return np.where(kept[:, None, None, None], pasted, pictures), share


def _pasted(
    tasks: TaskSet, grids: Tensor, pictures: np.ndarray, residual: bool | Literal["auto"]
) -> np.ndarray:
    height, width = tasks.size
    frame = Frame((width, height), (width, height), (0, 0, width, height))
    photos, edits, alone = map(Image.fromarray, tasks.photos), to_model(pictures), to_model(tasks.rebuilt)
    made = [
        paste(photo, frame, grid, edit, plain, residual)
        for photo, grid, edit, plain in zip(photos, grids, edits, alone, strict=True)
    ]
    return np.stack([np.asarray(picture) for picture in made])
