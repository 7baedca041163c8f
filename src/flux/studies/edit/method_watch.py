"""Attention, watched in demo 4 with a method: of each edit, and of its source beside it, while they are made.

A step is an evaluation of the edit here, in the order in which the method takes them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flux.hooks import Hooks, WatchAttention
from flux.methods.counting import walk
from flux.methods.field import WatchedRows
from flux.studies.edit.jobs import Batch, EditJob, batches_of
from flux.studies.edit.spec import EditSpec
from flux.studies.folder import RunFolder
from flux.studies.picture_run import KeptFile
from flux.studies.watch.framed import framed
from flux.studies.watch.kept import WatchedPicture
from flux.studies.watch.report import Shown, data_file, show
from flux.studies.watch.watching import Watching, watching
from flux.weights.load import Models


def sources_of(spec: EditSpec, batch: Batch) -> list[EditJob]:
    """The jobs of a batch whose sources are watched too: the first of each, if it stands beside its edits."""
    row = spec.method.row
    if row is None or not row.pairs:
        return []
    times = [1 - i / spec.steps for i in range(spec.steps + 1)]
    beside = any(each.beside for each in walk(row, times, row.defaults | spec.settings))
    return list(batch.first) if beside else []


def names_of(spec: EditSpec, batch: Batch) -> dict[tuple[str, EditJob], str]:
    """What is watched in a batch, by kind and job, and what its files are called."""
    if spec.watch is None:
        return {}
    watched = [("source", job) for job in sources_of(spec, batch)] + [("edit", job) for job in batch.jobs]
    return {(kind, job): job.file(kind).removesuffix(".png") for kind, job in watched}


def watch_files(spec: EditSpec, batch: Batch) -> list[str]:
    """The files of attention that a batch makes."""
    return [data_file(name) for name in names_of(spec, batch).values()]


class BatchWatcher:
    """Looks on while a batch is made, as a `Watcher` of `flux.methods.field`; then knows what was seen."""

    def __init__(self, spec: EditSpec, batch: Batch, models: Models) -> None:
        self.spec, self.batch, self.models = spec, batch, models
        self.sources = sources_of(spec, batch)
        self.seen: dict[int, list[tuple[float, Watching]]] = {i: [] for i in range(len(batch.jobs))}

    def __call__(self, hooks: Hooks | None, rows: WatchedRows) -> Hooks:
        for number, row in rows.edits.items():
            job = self.batch.jobs[number]
            beside = job in self.sources and number in rows.sources
            both = [row, *([rows.sources[number]] if beside else [])]
            own = watching(
                framed(self.spec.watch, job.frame),
                self.spec,
                self.models,
                both,
                [job.edit.prompt, job.source.prompt][: len(both)],
                job.frame.size,
                last=True,  # each hook sees one evaluation, the first of its step or the second
                seconds=self.spec.seconds,
            )
            hooks = own.behind(hooks)
            self.seen[number].append((rows.t, own))
        return hooks

    def files(self, number: int) -> list[KeptFile]:
        """What was seen of an edit, when it is done, and of its source if that is watched beside it."""
        job, names = self.batch.jobs[number], names_of(self.spec, self.batch)
        seen = self.seen[number]
        if not seen:
            raise ValueError(f"watch: {self.spec.method.name} asked the model for no velocity of its edit")
        times, every = [t for t, _ in seen], _joined([each for _, each in seen])
        pictures = {"edit": every.picture(0, times, job.way.layers)}
        if ("source", job) in names:  # in steps without it there is nothing of it to be seen
            both = [(t, each) for t, each in seen if len(each.hook.rows) > 1]
            pictures["source"] = _joined([each for _, each in both]).picture(1, [t for t, _ in both])
        return [KeptFile(data_file(names[kind, job]), found.to_bytes()) for kind, found in pictures.items()]


def _joined(seen: Sequence[Watching]) -> Watching:
    """What was seen one evaluation after another, as of the steps of one run; rows: the edit, the source."""
    first = seen[0]
    hook = WatchAttention(range(len(first.hook.rows)), first.hook.places, first.hook.words)
    hook.found = {
        (layer, step): watched
        for step, each in enumerate(seen)
        for (layer, _), watched in each.hook.found.items()
    }
    return replace(first, hook=hook)


def show_watched(spec: EditSpec, run: RunFolder) -> dict[str, Any] | None:
    """Write what shows the attention of a run; returns the values of `watch.html`."""
    if spec.watch is None:
        return None
    layers, batches = spec.model.record.layers, batches_of(spec)
    sets = spec.model.record.layer_sets
    looks = any(job.way.layers for batch in batches for job in batch.jobs)
    vital = layers.indices(sets.get("vital", sets.get("default", ())))
    shown = []
    for batch in batches:
        for (kind, job), name in names_of(spec, batch).items():
            shown.append(
                Shown(
                    name=name,
                    title=name.capitalize().replace("-", " "),
                    watched=WatchedPicture.read(run.path / data_file(name)),
                    picture=run.picture(job.file(kind)),
                    marked=job.way.layers if looks else vital,
                    marked_name="injected layers" if looks else "vital layers",
                    source=run.picture(job.file("source")),
                    watch=framed(spec.watch, job.frame),
                )
            )
    return show(spec.watch, layers, run, shown)
