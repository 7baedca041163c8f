"""A small task with random weights, and its velocities asked for one by one."""

from dataclasses import replace
from functools import cache

import torch
from helpers_demos import small_models

from flux.generate import Sampling, encode
from flux.methods.task import EditTask, open_task
from flux.sampling import image_ids

_models = cache(small_models)


def small_task(
    steps=4,
    sources=("a dog", "a fish"),
    edits=("a cat", "a bird", "a boat"),
    of=(0, 0, 1),
    size=(2, 3),
    **parts,
) -> EditTask:
    """Two sources of 32 x 48 pixels and three edits, of the first and of the second.

    size: in tokens. parts: of the field, such as its look or operators.
    """
    models = _models()
    texts = encode(models, [*sources, *edits, ""])
    clean = torch.randn(len(sources), size[0] * size[1], 64, generator=torch.Generator().manual_seed(3))
    seeds = [5 + i for i in range(len(sources))]
    task = open_task(
        models, texts, sources, edits, of, clean, seeds, Sampling(steps, None, 16 * size[1], 16 * size[0])
    )
    return replace(task, field=replace(task.field, **parts))


def velocity_of(task: EditTask, z, t, side, pair, guidance, hooks=None):
    """The velocity at z, float64 (L, 64), of one row: side "source" or "edit" of an edit, or "empty"."""
    field = task.field
    texts, row = {
        "source": (field.sources, field.of[pair]),
        "edit": (field.edits, pair),
        "empty": (field.empty, 0),
    }[side]
    txt, vec = texts.txt[row : row + 1], texts.vec[row : row + 1]
    with torch.no_grad():
        return field.flow(
            img=z[None].float(),
            img_ids=image_ids(*field.size)[None],
            txt=txt,
            txt_ids=torch.zeros(1, txt.shape[1], 3),
            y=vec,
            timesteps=torch.tensor([t]),
            guidance=torch.tensor([float(guidance)]),
            hooks=hooks,
        )[0].double()
