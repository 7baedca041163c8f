"""Which file of prompts a text names, and what stands in it. Whether that is right is asked where it is used.

.txt: a prompt a line. .json: a list. .jsonl: a text or an object a line. .csv: the column `prompt` or
`caption`, and `seed` where there is one.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flux.text_files import check_encodable, parse_json, read_text

ENDINGS = (".txt", ".json", ".jsonl", ".csv")
KINDS_READ = "prompts are read from .txt (one a line), .json, .jsonl and .csv"
YAML = (".yaml", ".yml")
COLUMNS = ("prompt", "caption")


class FileRow(NamedTuple):
    """What stands in a line of a file: a text, an object, or whatever else JSON has."""

    line: int
    value: Any


def prompt_file(text: str, folder: Path = Path(".")) -> Path | None:
    """The file that a text in the place of prompts names; None for a text that is a prompt itself.

    folder: what a relative path is relative to. A text names a file if it ends as one of prompts does, or if
    there is a file of that name. Raises ValueError where that file is not there, or is not read, and for a
    path of a folder.
    """
    try:
        path = Path(os.path.abspath(folder / Path(text).expanduser()))
        is_there, is_file, is_folder = path.exists(), path.is_file(), path.is_dir()
    except (OSError, RuntimeError, ValueError):  # no file can be called so
        path, is_there, is_file, is_folder = Path(text), False, False, False
    ending = path.suffix.lower()
    if ending in YAML:
        raise ValueError(f"{path}: YAML is not read; save the prompts as .txt, one a line, or as a .json")
    if is_folder:
        if not (_is_path(text) or ending in ENDINGS):
            return None
        raise ValueError(f"{path}: is a folder; name a file of prompts in it")
    if ending in ENDINGS and not is_there:
        check_encodable(text)
        hint = f"; a text that ends in {ending} names one" if " " in text else ""
        raise ValueError(f"{path}: no such file{hint}")
    if is_file and ending in ENDINGS:
        return path
    if is_there:
        raise ValueError(f"{path}: is a file, and {KINDS_READ}")
    return None


def _is_path(text: str) -> bool:
    """Whether a text that is a folder's name is meant as one: `.`, `..`, `~`, or with a slash in it.

    "a cat" is a prompt, whatever folders there are; so is the empty text, which would be the folder itself.
    """
    return text in (".", "..", "~") or any(mark in text for mark in ("/", os.sep))


def prompt_rows(path: Path, also: Sequence[str] = ()) -> Any:
    """What a file of prompts holds: of .json the whole value, of others a list of `FileRow`.

    also: columns of a table that count beside prompt and seed.
    Raises ValueError, in words to stand behind the file's name.
    """
    return file_rows(path, partial(_of_table, also=also))


def file_rows(path: Path, of_table: Callable[[str], Iterator[FileRow]]) -> Any:
    """As `prompt_rows`, with another way to read the text of a table."""
    text = read_text(path)
    ending = path.suffix.lower()
    if ending == ".json":
        return parse_json(text)
    if ending == ".csv":
        return list(of_table(text))
    lines = [FileRow(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    rows = [row for row in lines if row.value]
    return [_of_json_line(row) for row in rows] if ending == ".jsonl" else rows


def _of_json_line(row: FileRow) -> FileRow:
    try:
        return FileRow(row.line, parse_json(row.value))
    except ValueError as error:
        said = str(error).replace("not valid JSON at line 1, column", "not valid JSON at column")
        raise ValueError(f"line {row.line}: {said}") from None


def _of_table(text: str, also: Sequence[str]) -> Iterator[FileRow]:
    """Rows of a table as {"prompt": ..., "seed": ...}, and what stands in further columns."""
    rows = table_rows(text)
    names = next(rows).value
    column = next((names.index(name) for name in COLUMNS if name in names), None)
    if column is None:
        found = ", ".join(names) or "nothing"
        raise ValueError(f"needs a column prompt or caption in its first line, which has {found[:200]}")
    seed = names.index("seed") if "seed" in names else None
    for line, cells in rows:
        value = {"prompt": cells[column]}
        if seed is not None and cells[seed]:
            value["seed"] = number_in(cells[seed])
        value |= {name: cell for name, cell in zip(names, cells, strict=True) if name in also and cell}
        yield FileRow(line, value)


def table_rows(text: str) -> Iterator[FileRow]:
    """The names of a table's columns, in lower case, then the cells of each row that is not blank.

    Commas, semicolons or tabs stand between them. Raises ValueError for a row of another length.
    """
    import csv  # here, for most commands read none

    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        yield FileRow(1, names)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise ValueError(
                    f"line {reader.line_num}: has {len(cells)} columns and the first line {len(names)}; a "
                    'prompt with commas stands in quotes, "a cat, asleep"'
                )
            yield FileRow(reader.line_num, [cell.strip() for cell in cells])
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def number_in(cell: str) -> int | str:
    """The whole number in a cell; the cell itself where it holds something else."""
    return int(cell) if re.fullmatch(r"-?[0-9]{1,20}", cell) else cell
