"""The file of editing layers: demo 3 writes it, `{"file": ..., "take": "balanced"}` takes a set from it.

{"model": "flux-tiny", "layers": [6, 11], "sets": {"keep more": [4, 8], "balanced": [6, 11], ...}, ...}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from flux.studies.reading import SpecError, one_line, problems_of, read_json
from flux.studies.spec import ALayer, ConfigDict, Field, Problem, Section, Several, Text, ValidationError

Take = Literal["keep more", "balanced", "change more"]

VITAL = "holds no sets to take from: it is a vital set; give the path alone"
ORDER = "holds an order of layers alone: the editing key of demo 3 tries sets along it and writes the file"


class EditingLayers(Section):
    """Sets of layers that edits were tried with. A file may hold more keys, as further evidence."""

    model_config = ConfigDict(extra="ignore")

    model: Text = Field(description="the model the sets were tried on")
    sets: dict[Take, Several[ALayer]] = Field(description="by what is wanted of an edit")
    weights: dict[str, Any] | None = Field(None, description="what the model's weights are known by")

    def problems(self) -> Iterator[Problem]:
        yield from (Problem(("sets", name), "missing") for name in get_args(Take) if name not in self.sets)


def read_editing_layers(path: Path) -> EditingLayers:
    """Raises SpecError, one line, for a file that is missing, no JSON, or holds no editing layers."""
    data = read_json(path)
    if "sets" not in data and ("order" in data or "layers" in data):
        raise SpecError(f"{path}: {VITAL if 'layers' in data else ORDER}")
    try:
        return EditingLayers.model_validate(data, context=path.parent)
    except ValidationError as error:
        raise SpecError(one_line(problems_of(EditingLayers, error), str(path))) from None
