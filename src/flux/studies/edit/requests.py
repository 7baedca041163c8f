"""A spec's edits as requests to the method, one per seed, and the file of each of their pictures."""

from flux.hooks import AboveThreshold, CopySource, Select, TopRatio
from flux.methods.stable_flow import Edit, EditRequest, Row
from flux.studies.edit.spec import EditItem, EditSpec, Strategy
from flux.studies.edit.wanted import negative_of, own_regions, regional_of
from flux.studies.layers import layer_numbers
from flux.studies.run import sampling_of


def requests(spec: EditSpec) -> list[EditRequest]:
    """The edits of a spec, by seed, in the order in which the seeds first appear."""
    seeds = dict.fromkeys(seed for item in spec.edits for seed in seeds_of(spec, item))
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
        )
        for index, seed in enumerate(seeds)
    ]


def seeds_of(spec: EditSpec, item: EditItem) -> tuple[int, ...]:
    return item.seeds or (spec.seed,)


def items_of(spec: EditSpec, seed: int) -> list[tuple[int, EditItem]]:
    """The edits that are made from a seed, in the order of its request, with their numbers, from 1."""
    return [(number, item) for number, item in enumerate(spec.edits, start=1) if seed in seeds_of(spec, item)]


def edit_of(spec: EditSpec, item: EditItem) -> Edit:
    """An edit with all it takes from the spec."""

    def own_or_specs(name: str):
        value = getattr(item, name)
        return getattr(spec, name) if value is None else value

    strategy = own_or_specs("strategy")
    how = CopySource(
        keys=strategy.keys,
        values=strategy.values,
        strength=own_or_specs("strength"),
        select=select_of(strategy),
        steps=own_or_specs("window"),
    )
    layers = layer_numbers(own_or_specs("layers"), spec.model)
    return Edit(item.prompt, layers, how, own_regions(spec, item))


def select_of(strategy: Strategy) -> Select | None:
    """Which image tokens a strategy copies; None for all."""
    if strategy.name == "ratio":
        return TopRatio(strategy.ratio)
    return AboveThreshold(strategy.threshold) if strategy.name == "threshold" else None


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
