"""Attention, watched in demo 4: of each source and of each edit beside it, while they are made."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flux.methods.stable_flow import EditRequest, Pass, Row, edit_passes
from flux.sampling import get_schedule
from flux.studies.edit.requests import file_of, requests
from flux.studies.edit.spec import EditSpec
from flux.studies.folder import RunFolder
from flux.studies.picture_run import KeptFile
from flux.studies.watch.kept import WatchedPicture
from flux.studies.watch.report import Shown, data_file, show
from flux.studies.watch.watching import watching
from flux.weights.load import Models


def watched_rows(spec: EditSpec, each: Pass) -> list[Row]:
    """The rows of a pass whose attention is kept: edits, and beside the first of a seed their source."""
    if spec.watch is None or each.hooks is None:
        return []
    first = each.keeps or any(row == Row("edit", 0) for row in each.rows)
    return [row for row in each.rows if row.kind == "edit" or (row.kind == "source" and first)]


def name_of(spec: EditSpec, seed: int, row: Row) -> str:
    """The name of a picture whose attention is kept, as of its file."""
    return file_of(spec, seed, row).removesuffix(".png")


def watched_of(spec: EditSpec, request: EditRequest, each: Pass) -> list[str]:
    """The files of attention that a pass makes."""
    return [data_file(name_of(spec, request.seed, row)) for row in watched_rows(spec, each)]


def watch_files(spec: EditSpec) -> list[str]:
    """The files of attention of a run."""
    return [
        file
        for request in requests(spec)
        for each in edit_passes(request)
        for file in watched_of(spec, request, each)
    ]


def watch_passes(
    spec: EditSpec, request: EditRequest, passes: Sequence[Pass], models: Models
) -> tuple[list[Pass], Callable[[int], list[KeptFile]]]:
    """The passes with a hook behind their injections; and what it kept of pass `index` when that is done."""
    kept = {}
    for index, each in enumerate(passes):
        if rows := watched_rows(spec, each):
            prompts = [request.prompt_of(row) for row in rows]
            numbers = [each.rows.index(row) for row in rows]
            kept[index] = watching(spec.watch, spec, models, numbers, prompts, seconds=request.seconds)
    times = times_of(spec)

    def files(index: int) -> list[KeptFile]:
        each, found = passes[index], []
        for row in watched_rows(spec, each):
            looking = request.edits[row.index].layers if row.kind == "edit" else ()
            layers = spec.model.record.layers.indices(looking)
            picture = kept[index].picture(each.rows.index(row), times, layers)
            found.append(KeptFile(data_file(name_of(spec, request.seed, row)), picture.to_bytes()))
        return found

    with_hooks = [
        replace(each, hooks=kept[index].behind(each.hooks)) if index in kept else each
        for index, each in enumerate(passes)
    ]
    return with_hooks, files


def times_of(spec: EditSpec) -> list[float]:
    """Where each step starts, from 1."""
    tokens = (spec.width // 16) * (spec.height // 16)
    return get_schedule(spec.steps, tokens, shift=spec.model.record.shift)[:-1]


def show_watched(spec: EditSpec, run: RunFolder) -> dict[str, Any] | None:
    """Write what shows the attention of a run; returns the values of `watch.html`."""
    if spec.watch is None:
        return None
    shown, layers = [], spec.model.record.layers
    for request in requests(spec):
        source = Row("source")
        first = layers.indices(request.edits[0].layers)
        rows = [source, *(Row("edit", i) for i in range(len(request.edits)))]
        for row in rows:
            name = name_of(spec, request.seed, row)
            shown.append(
                Shown(
                    name=name,
                    title=name.capitalize().replace("-", " "),
                    watched=WatchedPicture.read(run.path / data_file(name)),
                    picture=run.picture(file_of(spec, request.seed, row)),
                    marked=first if row == source else layers.indices(request.edits[row.index].layers),
                    marked_name="injected layers",
                    source=run.picture(file_of(spec, request.seed, source)),
                )
            )
    return show(spec.watch, layers, run, shown)
