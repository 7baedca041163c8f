"""KV-Edit (arXiv 2502.17363): only what is masked is made anew, before the keys and values of the rest."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from flux.hooks import Hooks
from flux.hooks.looking import LookAtSource
from flux.hooks.weighing import WeighedTokens
from flux.methods.field import Look
from flux.methods.inversion import invert
from flux.methods.task import EditTask, MethodStep, begin
from flux.sampling import Evaluation


def kv_edit(
    task: EditTask, *, start: float, origin: str, background: float, source_guidance: float, guidance: float
) -> Iterator[MethodStep]:
    """Go back from the source's inversion, outside the mask as the source; the mask is the task's.

    The paper keeps the inversion's keys and values of all layers and steps (65.8 GB at 768 x 768 pixels) and
    asks for masked and text tokens alone. Here the source stands beside its edits, pinned to its inversion,
    and outside the mask they take its keys and values in all layers. What an edit makes there reaches no
    masked token then, so these are as if they alone had been asked for, at no memory and one evaluation more
    a step; and the keys are those of the very noise level, where the paper's were found one level nearer to
    the picture.

    start: the share of steps left out at the noisy end. background: how many times the source's tokens count
    in the edits' attention. origin: what edits start from: "inverted" pictures; pictures "noised" afresh,
    which forgets more of what is masked; "straight": the source, too, goes the straight line between its
    picture and noise, which takes no inversion, 2 T (1 - start) evaluations in all.
    A look of the task's own is taken in the place of this one. Raises ValueError for a task without a mask.
    """
    field, (first, steps) = task.field, (begin(task.times, start), task.steps)
    if field.mask is None:
        raise ValueError("kv-edit needs a mask of where the edit may change its source")
    if field.look is None:
        field = replace(field, look=_look_outside(background))
    noised = [(1 - t) * task.clean + t * task.noise(0) for t in task.times[first:]]
    sources = noised
    if origin != "straight":
        trajectory = yield from invert(task, guidance=source_guidance, first=first)
        sources = [latent for _, latent in trajectory.back]

    edit = field.of_edits((sources if origin == "inverted" else noised)[0])
    edit = torch.lerp(field.of_edits(sources[0]), edit, field.mask)
    for index in range(first, steps):
        t, t_next = task.times[index], task.times[index + 1]
        here, there = sources[index - first : index - first + 2]
        _, v = field.pair(here, edit, t, Evaluation(index, steps), (source_guidance, guidance))
        edit = torch.lerp(field.of_edits(there), edit + (t_next - t) * v, field.mask)
        yield MethodStep("edit", index - first, steps - first, t, t_next, edit, there)


def _look_outside(background: float) -> Look:
    """All layers look at the source where no channel of a token is masked, so that a mask may be fine."""

    def look(of: tuple[int, ...], sources: int, mask: Tensor) -> Hooks:
        outside = 1 - mask.amax(dim=-1)  # (N, L)
        outside = torch.cat((torch.zeros(sources, outside.shape[1]).to(outside), outside))
        at_source = LookAtSource((*range(sources), *of), outside)
        if background == 1:
            return Hooks(inject={"all": at_source})
        weighed = WeighedTokens(1 + outside * (background - 1))
        return Hooks(inject={"all": at_source}, attend={"all": weighed})

    return look
