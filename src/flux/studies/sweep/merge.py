"""`--merge`: the shards of a sweep joined into its folder. Shards are read, never changed."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flux.studies.folder import RunFolder, difference, write_file
from flux.studies.machine import MACHINE
from flux.studies.sweep.cells import Cell, Plan, plan, shard
from flux.studies.sweep.conclude import conclude, result_of
from flux.studies.sweep.folder import CellTable, done_cells, file_sha256
from flux.studies.sweep.place import find_sweep, open_sweep, shards_folder
from flux.studies.sweep.spec import SkipSpec

NAME = re.compile(r"([0-9]+)-of-([0-9]+)(-[0-9]+)?")


@dataclass(frozen=True)
class Shard:
    """A shard's folder and what its `run.json` holds."""

    index: int
    count: int
    path: Path
    record: dict[str, Any]


def merge(spec: SkipSpec) -> int:
    """Join what the shards hold; returns the exit code, 1 where cells are missing. May be repeated.

    A cell counts if it has the identity that the spec asks for and its picture the bytes that its table
    names. Raises ValueError, one line, for shards of other specs, or of settings that differ.
    """
    start = time.perf_counter()
    shards = list(find_shards(spec))
    with open_sweep(spec, spec.output, shards[0].record["setting"]) as run:
        asked = plan(run.recipe, run.setting)
        done = done_cells(run.path, asked)
        for each in shards:
            done |= copy_cells(each, run, asked, done)
        for line in what_is_missing(shards, run, asked):
            print(line)
        facts = {name: shards[0].record[name] for name in MACHINE if name in shards[0].record}
        return conclude(spec, run, result_of(run, asked), time.perf_counter() - start, facts)


def describe_merge(spec: SkipSpec) -> str:
    """What `--merge --dry-run` says. Nothing is written."""
    shards = list(find_shards(spec))
    run = find_sweep(spec, spec.output, shards[0].record["setting"])
    asked = plan(run.recipe, run.setting)
    done = set(done_cells(run.path, asked)).union(*(done_cells(each.path, asked) for each in shards))
    lines = [f"would join {len(shards)} shards with {len(done)} of {len(asked.cells)} cells, in {run.path}"]
    return "\n".join([*lines, *([f"because {run.note}"] if run.note else [])])


def find_shards(spec: SkipSpec) -> Iterator[Shard]:
    """The shards of a spec, which all have one setting."""
    parent, recipe = shards_folder(spec), RunFolder(Path(), spec.recipe(), {}).recipe
    found = list(_shards(parent))
    if not found:
        raise ValueError(f"{parent} holds no shards: make them with --shard 1/n to n/n first")
    own = [each for each in found if each.record.get("spec") == recipe]
    numbers = {(each.index, each.count) for each in own}
    for each in found:
        if (each.index, each.count) not in numbers:
            raise ValueError(f"{each.path} holds {difference(each.record, recipe, {})}")
    for each in own:
        if each.record.get("setting") != own[0].record.get("setting"):
            what = difference(own[0].record, recipe, each.record.get("setting"))
            raise ValueError(f"{each.path} does not fit: {own[0].path} holds {what}")
    yield from own


def _shards(parent: Path) -> Iterator[Shard]:
    for path in sorted(parent.glob("*-of-*")):
        name, record = NAME.fullmatch(path.name), RunFolder(path, {}, {}).record() or {}
        if name and isinstance(record.get("setting"), dict):
            yield Shard(int(name[1]), int(name[2]), path, record)


def copy_cells(each: Shard, run: RunFolder, asked: Plan, done: set[Cell]) -> set[Cell]:
    """Copy the whole cells of a shard that are not done, with their rows; returns them."""
    there = done_cells(each.path, asked) - done
    rows = [row for row in CellTable(each.path).rows() if row.cell in there and not row.error]
    rows = list({row.cell: row for row in rows}.values())
    for row in rows:
        if file_sha256(run.path / row.cell.file) != row.sha256:
            write_file(run.path / row.cell.file, (each.path / row.cell.file).read_bytes())
    if rows:
        CellTable(run.path).append(rows)
    return there


def what_is_missing(shards: Sequence[Shard], run: RunFolder, asked: Plan) -> Iterator[str]:
    """A line for each shard that is not there or lacks cells which no other has."""
    missing = set(asked.cells) - done_cells(run.path, asked)
    there = {(each.index, each.count): each.path for each in shards}
    for count in sorted({each.count for each in shards}):
        for index in range(1, count + 1):
            cells = replace(asked, tasks=tuple(shard(asked.tasks, index, count))).cells
            lacking = [cell.file for cell in cells if cell in missing]
            names = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
            if lacking and (index, count) in there:
                yield f"shard {index}/{count} lacks {len(lacking)} of {len(cells)} cells: {names}"
            elif lacking:
                yield f"shard {index}/{count} is not there; its {len(lacking)} cells are missing: {names}"
