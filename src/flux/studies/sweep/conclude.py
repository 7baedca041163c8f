"""How a sweep ends: what is there is counted, shown and said. Shards end so, and so does their merge."""

from collections.abc import Mapping
from typing import Any

from flux.device import pick_device
from flux.studies.folder import RunFolder
from flux.studies.machine import machine
from flux.studies.run import PAGE
from flux.studies.sweep.cells import Plan
from flux.studies.sweep.folder import CellTable, done_cells, halved_cells
from flux.studies.sweep.report import SweepResult, noise_floor, write_report
from flux.studies.sweep.spec import SkipSpec
from flux.studies.sweep.until import Until

INCOMPLETE = 1
"""The exit code of a sweep that lacks cells."""


def result_of(run: RunFolder, asked: Plan, until: Until | None = None) -> SweepResult:
    """What there is of a plan on the disk, and why the rest is not."""
    done = done_cells(run.path, asked)
    rows = CellTable(run.path).rows()
    errors, last = {row.cell: row.error for row in rows}, {row.cell: row for row in rows}
    failed = {cell: errors[cell] for cell in asked.cells if cell not in done and errors.get(cell)}
    halved = len(halved_cells(last.values(), asked) & done)
    return SweepResult(asked, done, failed, noise_floor(run, done), until, halved)


def conclude(
    spec: SkipSpec,
    run: RunFolder,
    result: SweepResult,
    seconds: float,
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Write sheets, page and record, and say how it went; returns the exit code.

    facts: about the machine that made the cells; None for this one.
    """
    # A shard's pictures are shown when it is joined with the others.
    if spec.shard is None:
        write_report(spec, run, result)
    facts = machine(pick_device(spec.model.device)) if facts is None else facts
    run.finish({"seconds": {"all": seconds}, **facts, **result.record()}, complete=result.complete)
    print(f"{len(result.done)} of {len(result.asked.cells)} cells are there, after {seconds:.1f} s")
    for line in result.words():
        print(line)
    print(f"in {run.path}, to be joined by --merge" if spec.shard else f"open {run.path / PAGE}")
    return 0 if result.complete else INCOMPLETE
