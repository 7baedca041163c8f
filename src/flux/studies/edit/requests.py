"""A spec's edits as requests to the method, one per seed, and the file of each of their pictures."""

from torch import Tensor

from flux.hooks import CopySource
from flux.methods.stable_flow import Edit, EditRequest, Row
from flux.studies.edit.items import MaskChoice
from flux.studies.edit.jobs import FoundMask, frame_of, way_of
from flux.studies.edit.spec import EditItem, EditSpec
from flux.studies.edit.wanted import negative_of, own_regions, regional_of
from flux.studies.edit.ways import injection_of, mask_grid, operators_of, schedules_of, select_of
from flux.studies.run import sampling_of


def requests(spec: EditSpec) -> list[EditRequest]:
    """The edits of a spec, by seed, in the order in which the seeds first appear."""
    seeds = dict.fromkeys(seed for item in spec.edits for seed in seeds_of(spec, item))
    masked = any(mask_choice(spec, item) is not None for item in spec.edits)
    return [
        EditRequest(
            source=spec.source.prompt,
            edits=tuple(edit_of(spec, item) for _, item in items_of(spec, seed)),
            sampling=sampling_of(spec),
            seed=seed,
            batch=spec.batch,
            compare=spec.compare,
            # Of one seed is enough: it measures the machine.
            repeat=index == 0,
            offload=spec.model.offload,
            seconds=spec.seconds,
            negative=negative_of(spec),
            regional=regional_of(spec),
            keep=spec.kept_source,
            operators=operators_of(spec, masked),
            **schedules_of(spec),
        )
        for index, seed in enumerate(seeds)
    ]


def seeds_of(spec: EditSpec, item: EditItem) -> tuple[int, ...]:
    return item.seeds or (spec.seed,)


def items_of(spec: EditSpec, seed: int) -> list[tuple[int, EditItem]]:
    """The edits that are made from a seed, in the order of its request, with their numbers, from 1."""
    return [(number, item) for number, item in enumerate(spec.edits, start=1) if seed in seeds_of(spec, item)]


def mask_choice(spec: EditSpec, item: EditItem) -> MaskChoice | None:
    """Where an edit may change its source, as the spec says."""
    return spec.mask if item.mask is None else item.mask


def edit_of(spec: EditSpec, item: EditItem, found: Tensor | None = None) -> Edit:
    """An edit with all it takes from the spec. found: its mask, packed, where that is one that is found."""
    choice = mask_choice(spec, item)
    way, mask = way_of(spec, item, choice), found
    if way.mask is None and choice is not None:
        mask = mask_grid(choice, frame_of(spec, spec.pictures[0]))
    regions = own_regions(spec, item)
    *outside, role = way.roles
    by_roles = any(each.layers for each in outside) or role.side != "everywhere"
    if by_roles or not isinstance(role.strength, float | int):
        how = injection_of(way, spec.model.record.layers, mask)
        return Edit(item.prompt, way.every_layer, how, regions, mask)
    how = CopySource(
        keys=role.keys,
        values=role.values,
        strength=role.strength,
        select=select_of(way.strategy),
        steps=role.window,
    )
    return Edit(item.prompt, role.layers, how, regions, mask)


def found_mask_of(spec: EditSpec, item: EditItem) -> FoundMask | None:
    """The mask of an edit that is to be found; None for one that is given, and without one."""
    return way_of(spec, item, mask_choice(spec, item)).mask


def mask_of(spec: EditSpec, seed: int, row: Row) -> str | None:
    """The file of what an edit changed; None for other pictures, and where edits are not pasted."""
    if row.kind != "edit" or spec.paste.when is False:
        return None
    return file_of(spec, seed, row).replace("edit-", "mask-", 1)


def file_of(spec: EditSpec, seed: int, row: Row) -> str:
    """The file of a picture of the request of a seed."""
    if row.kind in ("source", "repeat"):
        stem = "source" if seed == spec.seed else f"source-seed-{seed}"
        return f"{stem}.png" if row.kind == "source" else f"{stem}-again.png"
    number, item = items_of(spec, seed)[row.index]
    stem = f"{number:02}" if item.seeds is None else f"{number:02}-seed-{seed}"
    return f"{row.kind}-{stem}.png"
