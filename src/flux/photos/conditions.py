"""From files and boxes to what sampling takes."""

from collections.abc import Sequence

import torch

from flux.conditions import Conditions, Negative, Region, Regions, Start
from flux.generate import Sampling, encode_pictures
from flux.methods.masks import packed
from flux.photos.sources import to_tensor
from flux.photos.wanted import Wanted
from flux.placement.modes import Offload
from flux.weights.load import Models


def open_conditions(
    models: Models,
    wanted: Wanted,
    sampling: Sampling,
    prompts_2: Sequence[str] | None = None,
    *,
    offload: Offload = False,
) -> Conditions:
    """What is wanted, opened and encoded for pictures of the sampling's size, on the models' device.

    prompts_2: what T5 reads, one for each row. Raises ValueError as of `Wanted.check`.
    """
    size = (sampling.width, sampling.height)
    wanted.check(size, sampling.steps)
    start = wanted.start
    return Conditions(
        prompts_2=None if prompts_2 is None else tuple(prompts_2),
        negative=None
        if wanted.negative_prompt is None
        else Negative(wanted.negative_prompt, wanted.true_cfg, beside=not wanted.two_passes),
        start=None if start is None else _start(models, wanted, size, offload),
        regions=_regions(wanted, size),
    )


def _start(models: Models, wanted: Wanted, size: tuple[int, int], offload: Offload) -> Start:
    start = wanted.start
    picture, grid = start.cut(size)
    clean = encode_pictures(models, to_tensor(picture)[None], offload=offload)
    mask = None if grid is None else packed(torch.from_numpy(grid)[None]).to(clean)
    return Start(clean, start.strength, mask, start.rule)


def _regions(wanted: Wanted, size: tuple[int, int]) -> Regions | None:
    if not wanted.regions:
        return None
    parts = (Region(each.prompt, torch.from_numpy(each.weights(size))) for each in wanted.regions)
    return Regions(tuple(parts), wanted.layers, wanted.alone, wanted.apart)
