"""The `scan` of demo 4's spec: the same edits with all values of keys and of settings of a method."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, product
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

from flux.studies.edit.choices import as_word, pinning_problem, setting_problems
from flux.studies.edit.conflicts import BESIDE, items_of
from flux.studies.edit.items import EditItem, Strength, roles_in, strength_problems
from flux.studies.layers import LayerChoice, layer_numbers, layer_problems
from flux.studies.spec import (
    ConfigDict,
    Distinct,
    Field,
    Guidance,
    ModelChoice,
    Problem,
    Section,
    Several,
    below,
)

if TYPE_CHECKING:
    from flux.studies.edit.spec import EditSpec

MOST_CELLS = 400

AXES = ("guidance", "layers", "strength")
"""In the order in which a grid is read: by guidance, then from top to bottom, then from left to right.
Settings of a method come before them, as `method.start`."""

OF_METHOD = "method."


class ScanSettings(Section):
    """Values of settings of the method, each in a list by the setting's name."""

    model_config = ConfigDict(extra="allow")

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each, by its name in a scan."""
        return {OF_METHOD + name: tuple(values) for name, values in (self.model_extra or {}).items()}

    def problems(self) -> Iterator[Problem]:
        for name, values in (self.model_extra or {}).items():
            if not isinstance(values, list | tuple) or not values:
                yield Problem((name,), "must be a list of values, at least one", values)
            elif twice := next((i for i, value in enumerate(values) if value in values[:i]), 0):
                yield Problem((name, twice), "stands here twice", values[twice])

    def as_json(self) -> dict[str, Any]:
        return {name: list(values) for name, values in (self.model_extra or {}).items()}


class Scan(Section):
    """Values of keys that are gone through, each with each."""

    strength: Distinct[Strength] | None = Field(None, description="strengths")
    layers: Annotated[Several[LayerChoice], Field(max_length=MOST_CELLS)] | None = Field(
        None, description="choices of layers, each as `layers` of the spec, in a list"
    )
    guidance: Distinct[Guidance] | None = Field(None, description="values of guidance")
    method: ScanSettings | None = Field(
        None, description="values of the method's settings, each in a list by the setting's name"
    )

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The values of each key that is gone through, by its name."""
        own = {} if self.method is None else self.method.axes
        return own | {name: values for name in AXES if (values := getattr(self, name)) is not None}

    def problems(self) -> Iterator[Problem]:
        if not self.axes:
            able = ", ".join((*AXES, "method"))
            yield Problem((), f"names nothing to go through: give {able}", self.as_json())
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
    for i, strength in enumerate(scan.strength or ()):
        yield from below(("strength", i), strength_problems(strength, spec.steps))
    if scan.guidance and spec.model.record.guidance is None:
        yield Problem(("guidance",), f"{spec.model.name} takes no guidance", list(scan.guidance))
    for name in ("watch", "chain"):
        if getattr(spec, name, None):
            yield Problem((), f"goes through edits by themselves: leave {name} out")
    if scan.guidance and spec.method is not None and spec.method.is_own:
        text = "is a setting of methods of the table; of your own it is scan.method.guidance"
        yield Problem(("guidance",), text, list(scan.guidance))
    elif scan.guidance and spec.method is not None and "guidance" not in spec.settings:
        yield Problem(("guidance",), f"{spec.method.name} has no setting of this name", list(scan.guidance))
    if spec.method is not None and spec.method.row is not None and not spec.method.row.pairs:
        row = spec.method.row
        for name in ("strength", "layers"):
            if getattr(scan, name):
                instead = f"; its own is scan.method.{name}" if name in row.settings else ""
                yield Problem((name,), f"{row.name} never looks at its source in layers{instead}")
    if spec.kept_source != "off" and any(isinstance(each, str | tuple) for each in scan.strength or ()):
        yield Problem(("strength",), f"{BESIDE}: give numbers, or leave kept_source out")
    if scan.method is not None:
        yield from below(("method",), _setting_problems(spec, scan))
    yield from _background_problems(spec, scan)
    own = (edit for each in spec.pictures for edit in each.edit)
    for edit in own:
        for name in ("strength", "layers"):
            if getattr(scan, name) and getattr(edit, name) is not None:
                yield Problem((name,), f"the edit {edit.prompt!r} has its own {name}, which a scan keeps")
        yield from _role_problems(spec, scan, edit)


def _background_problems(spec: "EditSpec", scan: Scan) -> Iterator[Problem]:
    """What stands beside a background that weighs tokens of the source, in the spec or in the scan."""
    row = None if spec.method is None else spec.method.row
    if row is None or "background" not in row.settings:
        return
    scanned = scan.axes.get(OF_METHOD + "background")
    values = (spec.settings.get("background", 1),) if scanned is None else scanned
    if all(value == 1 for value in values):
        return
    if scan.layers:
        text = "take the place of the look that background weighs: leave one of both out"
        yield Problem(("layers",), text)
    if scanned is None:
        return
    items = [item for _, item in items_of(spec)]
    if any(item.regions is not None for item in items):
        text = "weighs tokens in attention, as regions do: leave one of both out"
        yield Problem(("method", "background"), text, list(values))
    if any(place.layers or place.outside or place.roles for place in (spec, *items)):
        text = "weighs a look whose place layers, outside and roles take: leave one of both out"
        yield Problem(("method", "background"), text, list(values))


def _role_problems(spec: "EditSpec", scan: Scan, edit: EditItem) -> Iterator[Problem]:
    """What a scan does not reach in an edit that has roles."""
    roles = roles_in(spec, edit)
    if roles is None:
        return
    if scan.layers:
        text = f"roles say in which layers the edit {edit.prompt!r} looks: leave one of both out"
        yield Problem(("layers",), text)
    if scan.strength and all(role.strength is not None for role in roles):
        text = f"all roles of the edit {edit.prompt!r} have their own: leave it out, or theirs"
        yield Problem(("strength",), text)


def _setting_problems(spec: "EditSpec", scan: Scan) -> Iterator[Problem]:
    """What is wrong with values of the method's settings; places are below `scan.method`."""
    if spec.method is None:
        yield Problem((), "is for edits by a method: name one, as in --method flowedit")
        return
    row = spec.method.row
    for axis, values in scan.method.axes.items():
        name = axis.removeprefix(OF_METHOD)
        if name == "guidance" and scan.guidance:
            yield Problem((name,), "stands in scan.guidance too: give it once")
        # Those of a method of one's own are known when it is imported.
        for i, value in enumerate(values if row is not None else ()):
            for path, text, wrong in setting_problems(row.name, row.settings, {name: value}):
                yield Problem((path[0], i, *path[1:]), text, wrong)
    axes = {name.removeprefix(OF_METHOD): values for name, values in scan.method.axes.items()}
    replayed = [name for name in ("pinning", "integrator") if name in axes]
    for values in product(*(axes[name] for name in replayed)):
        if text := pinning_problem(spec.settings | dict(zip(replayed, values, strict=True))):
            yield Problem((), f'pinning "exact" {text}')
            return


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
        """A value with its name, such as `strength 0.5`."""
        return f"{name.removeprefix(OF_METHOD)} {self.value(name)}"

    def value(self, name: str) -> str:
        """A value in words."""
        value = self.values[name]
        if name == "layers":
            return ", ".join(_runs(layer_numbers(value, self.spec.model))) or "none"
        if isinstance(value, tuple):
            return ", ".join(f"{each:g}" for each in value)
        return as_word(value)

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
    return [ScanCell(number, values, _spec_of(spec, values)) for number, values in enumerate(grid, start=1)]


def _spec_of(spec: "EditSpec", values: Mapping[str, Any]) -> "EditSpec":
    """The spec that makes a cell by itself."""
    update = {name: value for name, value in values.items() if not name.startswith(OF_METHOD)}
    settings = {name.removeprefix(OF_METHOD): values[name] for name in values if name not in update}
    if settings:
        update["method"] = spec.method.model_copy(update=settings)
    if "guidance" in settings and not spec.method.is_own:
        update["guidance"] = float(settings["guidance"])  # which stands for the method's setting
    return spec.model_copy(update={"scan": None, **update})
