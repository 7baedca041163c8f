"""The `scan` of demo 4's spec: the same edits at every strength, in all sets of layers, at every guidance."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, product
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

from flux.studies.edit.items import Strength
from flux.studies.layers import LayerChoice, layer_numbers, layer_problems
from flux.studies.spec import Distinct, Field, Guidance, ModelChoice, Problem, Section, Several

if TYPE_CHECKING:
    from flux.studies.edit.spec import EditSpec

MOST_CELLS = 400

AXES = ("guidance", "layers", "strength")
"""In the order in which a grid is read: by guidance, then from top to bottom, then from left to right."""


class Scan(Section):
    """Values of keys that are gone through, each with each."""

    strength: Distinct[Strength] | None = Field(None, description="strengths")
    layers: Annotated[Several[LayerChoice], Field(max_length=MOST_CELLS)] | None = Field(
        None, description="choices of layers, each as `layers` of the spec, in a list"
    )
    guidance: Distinct[Guidance] | None = Field(None, description="values of guidance")

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each key that is gone through, by its name."""
        return {name: values for name in AXES if (values := getattr(self, name)) is not None}

    def problems(self) -> Iterator[Problem]:
        if not self.axes:
            yield Problem((), f"names nothing to go through: give {', '.join(AXES)}", self.as_json())
        elif (cells := prod(map(len, self.axes.values()))) > MOST_CELLS:
            yield Problem((), f"{cells} cells are more than the {MOST_CELLS} of one run")

    def as_numbers(self, model: ModelChoice) -> dict[str, Any]:
        """As JSON, with layers as their numbers."""
        data = {name: value for name, value in self.as_json().items() if value is not None}
        if self.layers is not None:
            data["layers"] = [list(layer_numbers(choice, model)) for choice in self.layers]
        return data


def scan_problems(spec: "EditSpec", scan: Scan) -> Iterator[Problem]:
    """What of a scan does not go with the rest of its spec; places are below the scan."""
    for i, choice in enumerate(scan.layers or ()):
        yield from layer_problems(("layers", i), choice, spec.model, any_model=spec.any_model)
    if scan.guidance and spec.model.record.guidance is None:
        yield Problem(("guidance",), f"{spec.model.name} takes no guidance", list(scan.guidance))
    for name in ("watch", "chain"):
        if getattr(spec, name, None):
            yield Problem((), f"goes through edits by themselves: leave {name} out")
    if scan.guidance and spec.method is not None and "guidance" not in spec.settings:
        yield Problem(("guidance",), f"{spec.method.name} has no setting of this name", list(scan.guidance))
    if spec.method is not None and spec.method.row is not None and not spec.method.row.pairs:
        for name in ("strength", "layers"):
            if getattr(scan, name):
                yield Problem((name,), f"{spec.method.name} never looks at its source in layers")
    if spec.method is None and any(not isinstance(each, float | int) for each in scan.strength or ()):
        yield Problem(("strength",), "must be numbers where no method is named")
    own = (edit for each in spec.pictures for edit in each.edit)
    for edit in own:
        for name in ("strength", "layers"):
            if getattr(scan, name) and getattr(edit, name) is not None:
                yield Problem((name,), f"the edit {edit.prompt!r} has its own {name}, which a scan keeps")


@dataclass(frozen=True, eq=False)
class ScanCell:
    """One place of the grid. number: from 1. values: by the key's name, as the scan has them."""

    number: int
    values: Mapping[str, Any]
    spec: "EditSpec"

    @property
    def folder(self) -> str:
        """Where its files are in the run's folder."""
        return f"cells/{self.number:02}"

    def file(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def words(self, name: str) -> str:
        """A value in words, such as `strength 0.5`."""
        value = self.values[name]
        if name == "layers":
            numbers = layer_numbers(value, self.spec.model)
            return f"layers {', '.join(_runs(numbers)) or 'none'}"
        if isinstance(value, tuple):
            return f"{name} {', '.join(f'{each:g}' for each in value)}"
        return f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"

    @property
    def title(self) -> str:
        return ", ".join(map(self.words, self.values))


def _runs(numbers: tuple[int, ...]) -> Iterator[str]:
    """Numbers in words, three and more in a row as `0-11`."""
    for _, run in groupby(enumerate(numbers), lambda each: each[1] - each[0]):
        row = [number for _, number in run]
        yield from [f"{row[0]}-{row[-1]}"] if len(row) > 2 else map(str, row)


def cells_of(spec: "EditSpec") -> list[ScanCell]:
    """The cells of a spec with a scan; each has the spec that makes it by itself."""
    axes = spec.scan.axes
    grid = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [
        ScanCell(number, values, spec.model_copy(update={"scan": None, **values}))
        for number, values in enumerate(grid, start=1)
    ]
