"""What is chosen by name and has settings of its own: the method of an edit, operators, guidance schedules.

Their tables stand in `flux.methods`; here is how a spec names them, and how many evaluations a method takes.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from flux.flags import choices
from flux.integrators import INTEGRATORS
from flux.methods import EXACT_BY, METHODS, IntegratorSetting, MethodRecord, Setting
from flux.methods.tables import OPERATORS, SCHEDULES
from flux.models import ModelSpec
from flux.studies.reading import problems_of
from flux.studies.spec import (
    ConfigDict,
    Field,
    IntegratorItem,
    Problem,
    Section,
    Text,
    ValidationError,
    below,
)

OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""The dotted name of a user's own method."""


class TableRow(Protocol):
    """A row of a table: what is chosen."""

    name: str
    settings: Mapping[str, Setting]


class Named(Section):
    """A row of a table by its name, with settings of its own as further keys."""

    model_config = ConfigDict(extra="allow")
    text_key: ClassVar[str] = "name"
    rows: ClassVar[Sequence[TableRow]]
    more: ClassVar[str] = ""

    name: Text

    @property
    def row(self) -> TableRow | None:
        return next((row for row in self.rows if row.name == self.name), None)

    @property
    def given(self) -> dict[str, Any]:
        """The settings that the spec gives."""
        return dict(self.model_extra or {})

    @property
    def settings(self) -> dict[str, Any]:
        """All that are known: the given ones, others at their defaults."""
        return ({} if self.row is None else self.row.defaults) | self.given

    def problems(self) -> Iterator[Problem]:
        if self.row is None:
            yield Problem(
                ("name",), choices([row.name for row in self.rows], self.name) + self.more, self.name
            )
        else:
            yield from setting_problems(self.name, self.row.settings, self.given)

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings}


class MethodChoice(Named):
    """How pictures are edited. Further keys are settings of the method."""

    rows: ClassVar[Sequence[TableRow]] = METHODS
    more: ClassVar[str] = ", or name your own, package.module:function"
    further_text_key: ClassVar[str] = "name"

    name: Text = Field(description="the method, or package.module:function of your own; settings beside it")

    @property
    def is_own(self) -> bool:
        """Whether it is a function of the user's own, whose settings only its code knows."""
        return OWN.fullmatch(self.name) is not None

    def problems(self) -> Iterator[Problem]:
        if not self.is_own:
            yield from super().problems()


class OperatorChoice(Named):
    """What becomes of an edit's velocity, beside its source's. Further keys are settings of it."""

    rows: ClassVar[Sequence[TableRow]] = OPERATORS

    name: Text = Field(
        description="gate, blend and others; see docs/editing.md; its settings stand beside it"
    )


class ScheduleChoice(Named):
    """What becomes of guidance from noise to picture. Further keys are settings of it."""

    rows: ClassVar[Sequence[TableRow]] = SCHEDULES

    name: Text = Field(description="constant, exponential or vags; its settings stand beside it")


class Schedules(Section):
    """What becomes of guidance, from noise to picture."""

    source: ScheduleChoice | None = Field(None, description="of the source's guidance")
    edit: ScheduleChoice | None = Field(None, description="of the edit's guidance")


def setting_problems(
    owner: str, settings: Mapping[str, Setting], given: Mapping[str, Any]
) -> Iterator[Problem]:
    """What is wrong with the settings that are given to `owner`, which has these."""
    for key, value in given.items():
        if key not in settings:
            said = choices(settings, key) if settings else "it has none"
            yield Problem((key,), f"no setting of {owner}: {said}", value)
            continue
        setting = settings[key]
        if isinstance(setting, IntegratorSetting) and isinstance(value, dict):
            yield from below((key,), _integrator_problems(value))
        elif (known := getattr(setting, "choices", None)) is not None:
            # What was typed is a str of its own kind, and 1 is no true.
            if not any(isinstance(value, type(each)) and value == each for each in known):
                yield Problem((key,), _among(known, value), value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            yield Problem((key,), "must be a number", value)
        elif isinstance(setting.default, int) and not isinstance(value, int):
            yield Problem((key,), "must be a whole number", value)
        elif not setting.lowest <= value <= setting.highest:
            yield Problem((key,), f"must be between {setting.lowest:g} and {setting.highest:g}", value)


def pinning_problem(settings: Mapping[str, Any]) -> str | None:
    """Why a method's replay cannot be pinned as its settings say; None where it can."""
    integrator = settings.get("integrator")
    name = integrator.get("name") if isinstance(integrator, dict) else integrator
    if settings.get("pinning") != "exact" or name is None or name in EXACT_BY:
        return None
    return f"takes integrator {' or '.join(EXACT_BY)}, and the integrator is {name}"


def _integrator_problems(value: dict[str, Any]) -> Iterator[Problem]:
    if "name" not in value:
        yield Problem(("name",), f"missing: choose from {', '.join(row.name for row in INTEGRATORS)}")
        return
    try:
        IntegratorItem.model_validate(value)
    except ValidationError as error:
        yield from problems_of(IntegratorItem, error)


def _among(known: Sequence[str | bool], wrong: Any) -> str:
    return "must be true or false" if isinstance(known[0], bool) else choices(known, wrong)


def usual_steps(row: MethodRecord, model: ModelSpec) -> int:
    """The method's number of steps, which is its paper's, or the model's own where that is smaller."""
    return min(row.steps, model.num_steps)


def as_word(value: Any) -> str:
    """A setting as it is shown."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return IntegratorItem.model_validate(value).in_words
    return f"{value:g}" if isinstance(value, int | float) else str(value)


# Evaluations

FACTOR = re.compile(r"(?<=[\w)])\s+(?=[\w(])|(?<=[0-9)])(?=[A-Za-z(])")
"""Between two factors of a formula, as in `2 T (1 - start)`."""


def evaluations_of(row: MethodRecord, steps: int, settings: Mapping[str, float]) -> int | None:
    """How many evaluations of one row an edit takes, by the row's formula; None where that is no formula."""
    try:
        tree = ast.parse(FACTOR.sub(" * ", row.evaluations), mode="eval")
        return round(_value(tree.body, {"T": steps, **settings}))
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError):
        return None


def _value(node: ast.expr, names: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(int() | float() as value):
            return value
        case ast.Name(name):
            return names[name]
        case ast.BinOp(left, ast.Add(), right):
            return _value(left, names) + _value(right, names)
        case ast.BinOp(left, ast.Sub(), right):
            return _value(left, names) - _value(right, names)
        case ast.BinOp(left, ast.Mult(), right):
            return _value(left, names) * _value(right, names)
        case ast.BinOp(left, ast.Div(), right):
            return _value(left, names) / _value(right, names)
        case ast.Call(ast.Name("round"), [value], []):
            return round(_value(value, names))
    raise TypeError(node)
