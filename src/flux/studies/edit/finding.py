"""Masks of edits side by side that are found: by a first run of what they are found in."""

from collections.abc import Generator
from dataclasses import replace
from functools import partial

from torch import Tensor

from flux.generate import encode
from flux.methods import METHODS
from flux.methods.counting import count_evaluations
from flux.methods.stable_flow import EditRequest, Pass, Row, edit_steps
from flux.methods.task import open_task
from flux.placement.work import at_work
from flux.sampling import pack
from flux.studies.edit.jobs import FoundMask
from flux.studies.edit.requests import edit_of, found_mask_of, items_of
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.ways import change_mask, found_mask
from flux.studies.picture_run import Progress
from flux.weights.load import Models


def first_run(spec: EditSpec, request: EditRequest, each: Pass) -> Pass | None:
    """What is run before a pass to find the masks of its edits; None where none are to be found.

    Their own changes are found in the pass itself, without them; other masks in the source alone.
    """
    wanted = _wanted(spec, request, each).values()
    if not wanted:
        return None
    return each if any(mask.where == "auto" for mask in wanted) else Pass((Row("source"),))


def evaluations_to_find(spec: EditSpec, mask: FoundMask | None) -> int:
    """How many evaluations of one row an edit's mask takes, beside a first run that makes the edit."""
    if mask is None or mask.where == "auto":
        return 0
    row = METHODS[0]  # a mask takes the same by every method, and without one
    count = partial(count_evaluations, row, spec.steps, row.defaults)
    return count(mask=mask.where, of_mask=dict(mask.settings)) - count()


def with_found_masks(
    spec: EditSpec, models: Models, request: EditRequest, each: Pass
) -> Generator[Progress, None, EditRequest]:
    """The request with the masks of a pass's edits, which are found here; steps come on the way."""
    first = first_run(spec, request, each)
    if first is None:
        return request
    for step in edit_steps(models, request, [first]):
        yield Progress(step.step.index, steps=step.step.steps, phase="mask")
    latents = {row: pack(latent[None]).to(models.device) for row, latent in step.latents.items()}
    edits = list(request.edits)
    for index, mask in _wanted(spec, request, each).items():
        found = _found(models, request, index, mask, latents)
        edits[index] = edit_of(spec, items_of(spec, request.seed)[index][1], found.cpu())
    return replace(request, edits=tuple(edits))


def _wanted(spec: EditSpec, request: EditRequest, each: Pass) -> dict[int, FoundMask]:
    """The masks that are to be found for edits of a pass, by the edit's number in the request."""
    items = items_of(spec, request.seed)
    rows = (row.index for row in each.rows if row.kind == "edit")
    return {index: mask for index in rows if (mask := found_mask_of(spec, items[index][1])) is not None}


def _found(
    models: Models, request: EditRequest, index: int, mask: FoundMask, latents: dict[Row, Tensor]
) -> Tensor:
    """A mask, packed, (1, L, 64). latents: of the first run, packed."""
    clean, edit, sampling = latents[Row("source")], request.edits[index], request.sampling
    if mask.where == "auto":
        size = sampling.height // 16, sampling.width // 16
        return change_mask(mask, clean, latents[Row("edit", index)], size, models.spec.latent_spread)
    prompts = [request.source, edit.prompt, "", *(region.prompt for region in edit.regions)]
    texts = encode(models, prompts, offload=request.offload, seconds=request.seconds)
    task = open_task(
        models,
        texts,
        [request.source],
        [edit.prompt],
        [0],
        clean,
        [request.seed],
        sampling,
        request.reference,
        ([()], [edit.regions]),
        request.regional,
        request.seconds,
    )
    with at_work(models.device, request.offload, models.flow, times=task.times):
        return found_mask(mask, task)
