"""Many sources in one run: a list in the spec, or a table with an instruction for each picture."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from flux.prompts import ENDINGS, FileRow, file_rows, number_in, table_rows
from flux.studies.edit.items import AMask, EditItem, Source
from flux.studies.looking import ReferenceChoice
from flux.studies.prompts import at_line
from flux.studies.reading import SpecError, one_line, problems_of
from flux.studies.spec import (
    Field,
    Section,
    Seed,
    Several,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    absolute,
    or_one,
)

TABLES = tuple(ending for ending in ENDINGS if ending != ".txt")

COLUMNS = ("image", "prompt", "edit", "mask", "seed", "sha256", "reference")
"""Of a table; it may have others, which are left alone."""


class SourceItem(Source):
    """One of many pictures to edit. What it does not say itself, it takes from the spec."""

    text_key: ClassVar[None] = None
    quiet: ClassVar[frozenset[str]] = Source.quiet | {"edit", "mask", "seed", "reference"}

    edit: Annotated[Several[EditItem], or_one(EditItem)] | None = Field(
        None, description="its own edit, or a list of them"
    )
    mask: AMask | None = Field(None, description="its own mask")
    seed: Seed | None = Field(None, description="its own seed")
    reference: ReferenceChoice | None = Field(
        None, description="the picture that the model looks at for it; null: the spec's"
    )


class SourceTable(Section):
    """What a table of sources holds."""

    sources: Several[SourceItem] = Field(description="a list of pictures, each with its prompt and edit")


def read_sources(path: Path) -> tuple[SourceItem, ...]:
    """The sources in a file: a .csv, a .json list, or a .jsonl with an object a line.

    Paths in it are relative to its folder. SpecError, one line, names file, line, mistake.
    """
    try:
        data = file_rows(path, _of_table)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None
    rows = data if isinstance(data, list) else []
    lines = [row.line for row in rows if isinstance(row, FileRow)]
    values = [row.value if isinstance(row, FileRow) else row for row in rows]
    try:
        whole = {"sources": values} if isinstance(data, list) else data
        return SourceTable.model_validate(whole, context=path.parent).sources
    except ValidationError as error:
        problems = [at_line(problem, lines) for problem in problems_of(SourceTable, error)]
        rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise SpecError(one_line(problems[:3], str(path)) + rest) from None


def _of_table(text: str) -> Iterator[FileRow]:
    rows = table_rows(text)
    names = next(rows).value
    missing = [name for name in ("image", "prompt") if name not in names]
    if missing:
        found = ", ".join(names) or "nothing"
        raise ValueError(f"needs a column {missing[0]} in its first line, which has {found[:200]}")
    for line, cells in rows:
        known = {name: cell for name, cell in zip(names, cells, strict=True) if name in COLUMNS and cell}
        if "seed" in known:
            known["seed"] = number_in(known["seed"])
        yield FileRow(line, known)


def _read(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return handler(value)
    path = absolute(value, info)
    if path.is_dir() or path.suffix.lower() not in TABLES:
        raise ValueError(f"must be a list, or a table of sources: {', '.join(TABLES)}")
    return handler(read_sources(path))


Sources = Annotated[
    Several[SourceItem], WrapValidator(_read, json_schema_input_type=str | Several[SourceItem])
]
