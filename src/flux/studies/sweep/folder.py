"""The folder of a sweep, written and read. Imports no torch.

    run.json, spec.json            as every run's, see `flux.studies.folder`
    cells.csv                      a row per finished cell, appended task by task and flushed to the disk
    pictures/0003/reference.png    prompt 3, nothing skipped; repeat.png is the same for the noise floor
    pictures/0003/skip-06.png      layer 6 skipped; skip-17+18.png: both at once
    pictures/0003/carry-06.png     the same of other probes; source.png: whose keys and values they take

A picture counts if its bytes are those of its row; what is damaged, replaced or half there is made again.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from flux.files import append, read_json_object, sha256_of, unwritable
from flux.pictures.opening import PictureError, endings, open_picture
from flux.studies.folder import RECORD, SPEC, png_bytes, write_file
from flux.studies.sweep.cells import (
    REFERENCE,
    REPEAT,
    SOURCE,
    Cell,
    CellPart,
    Plan,
    Probe,
    Prompt,
    order_of,
    plan,
)

TABLE, PICTURES = "cells.csv", "pictures"
COLUMNS = ("prompt", "layers", "file", "identity", "sha256", "seconds", "error")


@dataclass(frozen=True)
class CellRow:
    """A line of the table. A cell that failed has an error, in one line, and neither file nor sha256."""

    cell: Cell
    identity: str
    sha256: str = ""
    seconds: float = 0.0
    error: str = ""

    def values(self) -> list[str]:
        file = "" if self.error else self.cell.file
        start = [str(self.cell.prompt), self.cell.label, file, self.identity, self.sha256]
        return [*start, f"{self.seconds:.3f}", " ".join(self.error.split())]


def save_picture(folder: Path, cell: Cell, image: Image.Image, about: Mapping[str, str]) -> str:
    """Write a cell's picture, whole or not at all, and return its SHA-256. The same bytes are left alone.

    about: texts that are kept in the file.
    """
    data = png_bytes(image, about)
    sha256 = hashlib.sha256(data).hexdigest()
    if file_sha256(folder / cell.file) != sha256:
        write_file(folder / cell.file, data)
    return sha256


def file_sha256(path: Path) -> str | None:
    """None for a file that is not there or cannot be read."""
    with suppress(OSError):
        return sha256_of(path)
    return None


class CellTable:
    """The table of a sweep's folder: rows are appended and on the disk before `append` returns."""

    def __init__(self, folder: Path):
        self.path = folder / TABLE

    def rows(self) -> list[CellRow]:
        """Every readable row in order; a cell's last row is the one that counts."""
        return _read_rows(self.path)[0]

    def check(self) -> None:
        """Raises OSError, one line, where something else has the table's name: before hours of work."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise OSError(
                f"{self.path} is no table of a sweep: move it away, or choose another output folder"
            )

    def append(self, rows: Iterable[CellRow]) -> None:
        """Add rows; a last line that a kill has torn goes first. Raises OSError, one line."""
        text = b"".join(_line(row.values()) for row in rows)
        try:
            append(self.path, text, start=_line(COLUMNS))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def files(self) -> list[str]:
        """What the sweep has made: its pictures, and the table."""
        return [*dict.fromkeys(row.cell.file for row in self.rows() if not row.error), TABLE]


def _line(values: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _read_rows(path: Path) -> tuple[list[CellRow], list[str]]:
    """The readable rows of a table, and a line for each thing that is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return [], [f"{path.name} cannot be read: {error.strerror or error}"]
    lines = data.decode("utf-8", errors="replace").split("\n")
    torn = lines.pop()
    rows, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if line.encode() + b"\n" == _line(COLUMNS):
            continue
        try:
            rows.append(_row(line))
        except (ValueError, csv.Error):
            damaged.append(number)
    problems = [f"the last line of {path.name} is torn off and left out"] if torn else []
    if damaged:
        numbers = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        problems.append(f"{path.name} has {len(damaged)} damaged lines, left out: {numbers}")
    return rows, problems


def _row(line: str) -> CellRow:
    """ValueError for what is no row."""
    ((prompt, label, file, identity, sha256, seconds, error),) = csv.reader([line])
    cell = Cell.labelled(int(prompt), label)
    if file != ("" if error else cell.file):
        raise ValueError("the file is another cell's")
    return CellRow(cell, identity, sha256, float(seconds), error)


def done_cells(folder: Path, plan: Plan) -> set[Cell]:
    """The cells of a plan that are finished: in the table, with their identity, and unchanged on the disk.

    That of fewer rows side by side counts too, which memory may have been too small for.
    """
    last = {row.cell: row for row in CellTable(folder).rows()}
    halved = halved_cells(last.values(), plan)
    return {
        cell
        for cell in plan.cells
        if (row := last.get(cell)) is not None
        and not row.error
        and (row.identity == plan.identities[cell] or cell in halved)
        and file_sha256(folder / cell.file) == row.sha256
    }


def halved_cells(rows: Iterable[CellRow], plan: Plan) -> set[Cell]:
    """The cells that were made with fewer rows side by side than planned."""
    others = [
        row for row in rows if not row.error and plan.identities.get(row.cell) not in (None, row.identity)
    ]
    if not others:
        return set()
    known = plan.smaller_identities()
    return {row.cell for row in others if row.identity in known.get(row.cell, ())}


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is found on the disk.

    recipe: its resolved spec. setting: weights, dtype and device. cells: the files of whole, readable
    pictures, references too, repeats not. noise: pairs of a reference and its repeat. problems: what is
    missing, damaged or foreign, a line each. probe, sources: as of a `Plan`.
    """

    path: Path
    recipe: dict[str, Any]
    setting: dict[str, Any]
    prompts: tuple[Prompt, ...]
    parts: tuple[CellPart, ...]
    cells: dict[Cell, Path]
    noise: tuple[tuple[Path, Path], ...]
    problems: tuple[str, ...]
    probe: Probe = Probe()
    sources: tuple[str, ...] = ()

    @property
    def skips(self) -> bool:
        """Whether layers were skipped, each in all steps: what a vital set comes from."""
        return self.probe == Probe() and all(part == CellPart(part.layers) for part in self.parts)

    def reference(self, prompt: int) -> Path | None:
        return self.cells.get(Cell(prompt))


def read_sweep(path: Path) -> Sweep:
    """The sweep in a folder, finished or not. Raises ValueError, one line, for a folder that holds none."""
    record, recipe = _record(path)
    setting = record.get("setting") if isinstance(record.get("setting"), dict) else {}
    try:
        asked = plan(recipe, setting)
    except ValueError:
        raise ValueError(f"{path} holds no sweep of layers: its {SPEC} is another demo's") from None
    rows, problems = _read_rows(path / TABLE)
    last = {row.cell: row for row in rows}
    files: dict[Cell, Path] = {}
    missing: list[Cell] = []
    unlisted = 0
    for cell in asked.cells:
        file, row = path / cell.file, last.get(cell)
        listed = row is not None and not row.error
        if not file.is_file():
            if row is not None and row.error:
                problems.append(f"{cell.file} could not be made: {row.error}")
            elif listed:
                problems.append(f"{cell.file} is missing")
            else:
                missing.append(cell)
        elif listed and file_sha256(file) == row.sha256:
            files[cell] = file
        elif not _readable(file):
            problems.append(f"{cell.file} cannot be read and is left out")
        elif listed:
            problems.append(f"{cell.file} is not the picture that {TABLE} names, and is left out")
        else:
            unlisted += 1
            files[cell] = file
    if unlisted:
        problems.append(f"{unlisted} pictures have no row in {TABLE} and are taken as they are")
    problems += _missing(asked, missing, record)
    problems += _without_reference(asked, files)
    problems += [f"{file} is none of the sweep's pictures" for file in _foreign(path, asked)]
    pictures = {cell: file for cell, file in files.items() if not cell.repeat}
    pairs = ((files.get(Cell(cell.prompt)), file) for cell, file in files.items() if cell.repeat)
    noise = tuple((reference, file) for reference, file in pairs if reference is not None)
    return Sweep(
        path,
        recipe,
        setting,
        asked.prompts,
        asked.parts,
        pictures,
        noise,
        tuple(problems),
        asked.probe,
        asked.sources,
    )


def _record(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `run.json` holds, and the sweep's recipe, from `spec.json` where `run.json` is damaged."""
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder" if path.exists() else f"no such folder: {path}")
    record = read_json_object(path / RECORD) or {}
    recipe = record.get("spec")
    if not isinstance(recipe, dict):
        recipe = read_json_object(path / SPEC)
    if recipe is None:
        raise ValueError(f"{path} holds no sweep of layers: neither {RECORD} nor {SPEC} can be read")
    return record, recipe


def _readable(file: Path) -> bool:
    with suppress(PictureError):
        open_picture(file)
        return True
    return False


def _missing(asked: Plan, missing: Sequence[Cell], record: Mapping[str, Any]) -> list[str]:
    """A line about cells that are not made yet; those that a decision has spared are not missing."""
    order, decided = order_of(asked), _decided(record)
    if all(part.label in decided for part in asked.parts):
        # No more references than the group that took most prompts.
        decided |= dict.fromkeys((REFERENCE, REPEAT, SOURCE), max(decided.values(), default=0))
    place = {index: number for number, index in enumerate(order)}
    missing = [cell for cell in missing if place[cell.prompt] < decided.get(cell.label, len(order))]
    if not missing:
        return []
    return [f"{len(missing)} of {len(asked.cells)} cells are not made yet: the first is {missing[0].file}"]


def _decided(record: Mapping[str, Any]) -> dict[str, int]:
    """By the label of a group, after how many prompts it was decided; empty where that is not known."""
    try:
        return {str(each["layers"]): int(each["prompts"]) for each in record["until"]["decisions"]}
    except (KeyError, TypeError, ValueError):
        return {}


def _without_reference(asked: Plan, files: Mapping[Cell, Path]) -> list[str]:
    prompts = dict.fromkeys(cell.prompt for cell in files if cell.part)
    return [
        f"prompt {prompt} has no reference to compare its pictures with"
        for prompt in prompts
        if Cell(prompt) not in files
    ]


def _foreign(path: Path, asked: Plan) -> list[str]:
    own = {cell.file for cell in asked.cells}
    found = (file for file in sorted((path / PICTURES).rglob("*")) if file.suffix.lower() in endings())
    return [name for file in found if (name := file.relative_to(path).as_posix()) not in own]
