"""`--dry-run` of a sweep: cells, files, time, memory and disk. No weights are loaded, nothing is written."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flux.studies.card import card_lines
from flux.studies.cost import Work, cost, needs, on_what, refusals_here, time_in_words, weights_in_words
from flux.studies.folder import RunFolder
from flux.studies.machine import size_in_words
from flux.studies.needed import needed_files
from flux.studies.run import dino_source
from flux.studies.sweep.cells import Cell, Plan, Task
from flux.studies.sweep.folder import done_cells
from flux.studies.sweep.place import find_sweep, folder_of, plan_of, setting_of
from flux.studies.sweep.spec import SkipSpec

BYTES_PER_PIXEL = 1.6
"""Of a PNG of a natural picture; pictures with layers skipped may be noise, of up to 3."""


def rows_together(asked: Plan) -> int:
    """The most rows that a task samples side by side, sources beside them."""
    return max((len(task.cells) for task in asked.tasks), default=1) * (2 if asked.sources else 1)


def estimate_sweep(spec: SkipSpec, card: float | None = None) -> str:
    """The whole answer, as lines of text. card: GB of one whose memory is asked about."""
    until = spec.until
    models = {} if until is None else {"DINO for the rounds": dino_source(spec, until.dino)}
    files = list(needed_files(spec, models))
    run = _run(spec, files)
    asked = plan_of(spec, run) if run else _plan(spec)
    done = done_cells(run.path, asked) if run else set()
    left = [task for task in asked.tasks if not done.issuperset(task.cells)]
    seconds, memory = cost(spec, _work(asked, left)) if left else (0.0, 0.0)
    size = sum(len(task.cells) for task in left) * spec.width * spec.height * BYTES_PER_PIXEL
    path = run.path if run else folder_of(spec)
    lines = [
        f"would make {_cells(spec, asked)} of {spec.width} x {spec.height}, {spec.steps} steps, in {path}",
        f"{len(done)} of {len(asked.cells)} cells are done already"
        + ("" if left else ": nothing to do without --overwrite"),
        *([f"because {run.note}"] if run and run.note else []),
        *needs(files),
        weights_in_words(spec),
        f"{on_what(spec)}: about {time_in_words(seconds)}, "
        f"{size_in_words(memory)} of memory and {size_in_words(size)} of disk, {_free(path)} free",
        *refusals_here(spec),
        *([] if card is None else card_lines(spec, rows_together(asked), card)),
    ]
    return "\n".join(lines)


def _run(spec: SkipSpec, files: Sequence[tuple[str, str, str]]) -> RunFolder | None:
    """The run's folder, which the weights decide too; None where they are not here."""
    if not all(state.startswith(("there", "in the hub's cache")) for _, _, state in files[:2]):
        return None
    return find_sweep(spec, folder_of(spec), setting_of(spec))


def _plan(spec: SkipSpec) -> Plan:
    return plan_of(spec, RunFolder(folder_of(spec), spec.recipe(), {}))


def _cells(spec: SkipSpec, asked: Plan) -> str:
    """How many cells of each kind, in words."""
    cells = asked.cells
    repeats = sum(cell.repeat for cell in cells)
    sources = sum(cell.source for cell in cells)
    references = sum(not cell.part for cell in cells) - repeats - sources
    part = f"shard {spec.shard}: " if spec.shard else ""
    if spec.until is not None:
        part = "at most "
    beside = f"{sources} sources, " if asked.sources else ""
    changed = f"{len(cells) - references - repeats - sources} with layers {asked.probe.done}"
    whole = f" ({len(asked.prompts)} prompts x {_parts(asked)})"
    return f"{part}{len(cells)} cells: {references} references, {repeats} repeats, {beside}{changed}{whole}"


def _parts(asked: Plan) -> str:
    """`12 groups of layers`, and by how many heads and windows of steps."""
    groups, heads, windows = (
        len(dict.fromkeys(getattr(part, name) for part in asked.parts))
        for name in ("layers", "head", "window")
    )
    more = [f"{count} {name}" for count, name in ((heads, "heads"), (windows, "windows")) if count > 1]
    return " x ".join([f"{groups} groups of layers", *more])


def _work(asked: Plan, left: Sequence[Task]) -> Work:
    cells: list[Cell] = [cell for task in left for cell in task.cells]
    prompts = replace(asked, tasks=tuple(left)).texts
    rows = [len(task.cells) * (2 if task.part and asked.sources else 1) for task in left]
    return Work([cell.file for cell in cells], rows, prompts, len(cells))


def _free(path: Path) -> str:
    """Bytes free where a folder is or will be, in words."""
    place = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return size_in_words(shutil.disk_usage(place).free)
