"""A spec's edits as requests to the library, one per seed, with the file of each picture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flux.hooks import AboveThreshold, CopySource, TopRatio
from flux.methods.stable_flow import Edit, EditRequest, Row
from flux.studies.edit.spec import EditItem, EditSpec
from flux.studies.run import sampling_of


@dataclass(frozen=True)
class Group:
    """The edits of one seed, completed, and the files of their pictures. numbers: of the edits, from 1."""

    seed: int
    numbers: tuple[int, ...]
    edits: tuple[EditItem, ...]
    request: EditRequest
    files: Mapping[Row, str]


def groups_of(spec: EditSpec) -> Iterator[Group]:
    """The edits of a spec, by seed, in the order in which the seeds first appear."""
    edits = [(number, spec.completed(edit), edit.seeds) for number, edit in enumerate(spec.edits, start=1)]
    seeds = dict.fromkeys(seed for _, edit, _ in edits for seed in edit.seeds)
    for seed in seeds:
        own = [(number, edit, given) for number, edit, given in edits if seed in edit.seeds]
        request = EditRequest(
            source=spec.source.prompt,
            edits=tuple(edit_of(edit) for _, edit, _ in own),
            sampling=sampling_of(spec),
            seed=seed,
            batch=spec.batch,
            compare=spec.compare,
            repeat=seed == next(iter(seeds)),
            offload=spec.model.offload,
        )
        source = "" if seed == spec.seed else f"-seed-{seed}"
        files = {Row("source"): f"source{source}.png", Row("repeat"): f"source{source}-again.png"}
        for i, (number, _, given) in enumerate(own):
            stem = f"{number:02}" if given is None else f"{number:02}-seed-{seed}"
            files |= {Row("edit", i): f"edit-{stem}.png", Row("plain", i): f"plain-{stem}.png"}
        yield Group(seed, tuple(n for n, _, _ in own), tuple(e for _, e, _ in own), request, files)


def edit_of(edit: EditItem) -> Edit:
    """A completed edit of a spec as the library takes it."""
    select = {
        "copy": lambda: None,
        "ratio": lambda: TopRatio(edit.strategy.ratio),
        "threshold": lambda: AboveThreshold(edit.strategy.threshold),
    }[edit.strategy.name]()
    how = CopySource(
        keys=edit.strategy.keys,
        values=edit.strategy.values,
        strength=edit.strength,
        select=select,
        steps=edit.window,
    )
    return Edit(edit.prompt, edit.layers, how)
