"""Demo 4 with a scan: every cell of the grid is made as a run of its own spec would make it, in one run."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

from flux.studies.cost import Work
from flux.studies.edit import by_method
from flux.studies.edit import run as side_by_side
from flux.studies.edit.by_method import BY_METHOD
from flux.studies.edit.gates import Told, listed
from flux.studies.edit.keeping import KeptSources, held_bytes
from flux.studies.edit.requests import requests
from flux.studies.edit.run import RUN
from flux.studies.edit.scan_report import report
from flux.studies.edit.scanning import ScanCell, cells_of
from flux.studies.edit.spec import EditSpec
from flux.studies.folder import RunFolder
from flux.studies.pages.plots import check_plots
from flux.studies.picture_run import KeptFile, Picture, PictureRun, Progress
from flux.weights.load import Models


def run_of(cell: ScanCell) -> PictureRun:
    """What makes a cell's spec by itself."""
    return RUN if cell.spec.method is None else BY_METHOD


def work(spec: EditSpec) -> Work:
    check_plots()
    cells = cells_of(spec)
    specs = [cell.spec for cell in cells]
    parts = [run_of(cell).work(cell.spec) for cell in cells]
    notes = side_by_side.notes_of(specs) if spec.method is None else by_method.notes_of(specs)
    counted = [part.evaluations for part in parts]
    return Work(
        files=[cell.file(file) for cell, part in zip(cells, parts, strict=True) for file in part.files],
        batches=[rows for part in parts for rows in part.batches],
        prompts=list(dict.fromkeys(prompt for part in parts for prompt in part.prompts)),
        decoded=sum(part.decoded for part in parts),
        models=parts[0].models,
        kept=[cell.file(file) for cell, part in zip(cells, parts, strict=True) for file in part.kept],
        held=held_bytes(*specs) if spec.method is None else 0.0,
        evaluations=None if None in counted else sum(counted),
        size=parts[0].size,
        notes=(f"  {len(cells)} cells: {' x '.join(_axes(spec))}", *notes),
    )


def _axes(spec: EditSpec) -> list[str]:
    return [f"{len(values)} of {name}" for name, values in spec.scan.axes.items()]


def pictures(spec: EditSpec, models: Models, missing: AbstractSet[str], run: RunFolder) -> Iterator[Progress]:
    """Make the cells that lack a file, one by one."""
    cells = cells_of(spec)
    kept = KeptSources(request for cell in cells if spec.method is None for request in requests(cell.spec))
    said: list[str] = []
    gates: dict[str, Told | None] = {}
    for cell in cells:
        lacks = {
            file.removeprefix(cell.folder + "/") for file in missing if file.startswith(cell.folder + "/")
        }
        if not lacks:
            continue
        own = run_of(cell)
        more = [RunFolder(run.path / cell.folder, run.recipe, run.setting), *([kept] if own is RUN else [])]
        for progress in own.pictures(cell.spec, models, lacks, *more):
            told = [line for line in progress.told if line not in said]
            said += told
            record = dict(progress.record)
            if "sources" in record:
                gates |= {cell.file(each["file"]): each["gate"] for each in record["sources"]}
                record["sources"] = listed(gates)
            made = [_in_cell(cell, each) for each in progress.pictures]
            yield replace(progress, pictures=made, told=told, record=record)


def _in_cell(cell: ScanCell, each: Picture | KeptFile) -> Picture | KeptFile:
    return replace(each, file=cell.file(each.file))


SCAN = PictureRun(work, pictures, report, goes_on=True)
