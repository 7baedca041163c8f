"""The key `editing` of demo 3's spec: with which pairs sets of layers are tried after a sweep by carry."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from flux.studies.prompts import OnePrompt
from flux.studies.reading import SpecError, one_line, problems_of, read_value
from flux.studies.spec import (
    OFFLOAD_ABOUT,
    AnyPath,
    BeforeValidator,
    Field,
    Offloading,
    Problem,
    Rows,
    Section,
    Seed,
    ValidationError,
    whole,
)

MOST_PAIRS, MOST_SETS = 1000, 500


class EditPrompts(Section):
    """A picture and its edit, by their prompts."""

    source: OnePrompt = Field(description="what the picture shows")
    edit: OnePrompt = Field(description="what the edit shows")
    seed: Seed | None = Field(None, description="of their noise; null: their place in the file")

    def problems(self) -> Iterator[Problem]:
        if self.source == self.edit:
            yield Problem(("edit",), "is its source: nothing is to be edited", self.edit)


class EditingSets(Section):
    """Sets of layers along the order of a sweep by carry, tried on pairs of prompts."""

    text_key: ClassVar[str] = "file"

    pairs: whole(2, MOST_PAIRS) = Field(
        72, description="pairs: sets are chosen on one half of them and measured again on the other"
    )
    file: AnyPath | None = Field(
        None,
        description='[{"source": ..., "edit": ..., "seed": ...}, ...]: the pairs (.json); null: of flux-tiny '
        "those that its judge has an answer to",
    )
    by: Literal["region", "clip"] | None = Field(
        None,
        description="what says how much of an edit was made, for pairs of a file; region: likeness to the "
        "edit without injection where that differs most from the source; clip: how far it goes along the "
        "texts, by the CLIP of the key clip; null: region",
    )
    sets: whole(1, MOST_SETS) = Field(24, description="so many sets are tried, or one of each size")
    seed: Seed = Field(1510, description="that flux-tiny's pairs are drawn by")
    batch: Rows = Field(8, description="edits beside their source at once; fewer need less memory")
    offload: Offloading = Field(False, description=OFFLOAD_ABOUT)

    def problems(self) -> Iterator[Problem]:
        if self.file is None and self.by is not None:
            yield Problem(("by",), "is for pairs of a file: flux-tiny's own have a judge", self.by)
        if self.file is not None:
            try:
                count = len(read_pairs(self.file))
            except SpecError as error:
                yield Problem(("file",), str(error), str(self.file))
                return
            if count < 2:
                yield Problem(
                    ("file",), "needs two pairs or more: to choose on, and to measure on", str(self.file)
                )


def _switch(value: Any) -> Any:
    """`true` for a section with nothing in it, `false` for none."""
    return ({} if value else None) if isinstance(value, bool) else value


Switch = BeforeValidator(_switch, json_schema_input_type=bool | EditingSets | None)


def read_pairs(file: Path) -> tuple[EditPrompts, ...]:
    """The pairs of a file. Raises SpecError, one line, for one that holds none."""
    found = read_value(file)
    if not isinstance(found, list):
        raise SpecError(f'{file}: must hold a list, [{{"source": ..., "edit": ...}}, ...]')
    pairs = []
    for i, each in enumerate(found):
        try:
            pairs.append(EditPrompts.model_validate(each, context=file.parent))
        except ValidationError as error:
            raise SpecError(one_line(problems_of(EditPrompts, error), f"{file}, entry {i}")) from None
    return tuple(pairs)
