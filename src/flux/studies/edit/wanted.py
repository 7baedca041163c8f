"""What demo 4's pictures are made from beside their prompts: second prompts, a negative one, regions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from flux.conditions import Negative, Region, Regions
from flux.photos.wanted import RegionPlace
from flux.studies.edit.conflicts import items_of
from flux.studies.edit.items import EditItem
from flux.studies.edit.jobs import EditJob
from flux.studies.layers import layer_numbers
from flux.studies.wanted import RegionHow

if TYPE_CHECKING:
    from flux.studies.edit.spec import EditSpec


def negative_of(spec: "EditSpec") -> Negative | None:
    """What edits move away from; side by side their source does too."""
    if spec.negative_prompt is None:
        return None
    return Negative(spec.negative_prompt, spec.true_cfg, beside=not spec.two_passes)


def regions_of(job: EditJob) -> tuple[Region, ...]:
    """The parts of a job's edit that have prompts of their own."""
    return tuple(Region(prompt, torch.from_numpy(weights)) for prompt, weights in job.region_weights())


def own_regions(spec: "EditSpec", item: EditItem) -> tuple[Region, ...]:
    """The same of an edit side by side."""
    size = (spec.width, spec.height)
    places = (RegionPlace(each.prompt, each.where) for each in item.regions or ())
    return tuple(Region(each.prompt, torch.from_numpy(each.weights(size))) for each in places)


def regional_of(spec: "EditSpec") -> Regions:
    """How they obey."""
    how = spec.regional or RegionHow()
    return Regions((), layer_numbers(how.layers, spec.model), how.alone, how.apart)


def looking_notes(spec: "EditSpec") -> tuple[str, ...]:
    """What `--dry-run` says of what the model looks at."""
    seen = dict.fromkeys(each.reference.in_words for each in spec.pictures if each.reference is not None)
    return tuple(f"  {words}" for words in seen)


def more_prompts(spec: "EditSpec") -> Iterator[str]:
    """All texts that are encoded beside the prompts."""
    yield from spec.seconds.values()
    if spec.negative_prompt is not None:
        yield spec.negative_prompt
    for _, item in items_of(spec):
        yield from (each.prompt for each in item.regions or ())
