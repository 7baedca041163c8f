"""From a spec's words to what methods take: looks, masks that are found, operators, guidance schedules."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from flux.methods.field import Look, Operator, Schedule
from flux.methods.looks import Curve, Role, cosine, linear, listed, look_at_source
from flux.methods.lookup import find_method, load_function
from flux.methods.masks import feathered, own_mask
from flux.methods.tables import MASKS, OPERATORS, build, part_record
from flux.methods.task import EditTask
from flux.models import Layers
from flux.studies.edit.choices import ScheduleChoice
from flux.studies.edit.jobs import Way
from flux.studies.edit.requests import select_of
from flux.studies.edit.spec import EditSpec

FADES: dict[str, Curve] = {"linear": linear(1, 0), "cosine": cosine(1, 0)}


def look_of(way: Way, layers: Layers) -> Look | None:
    """Where edits of a way look at their sources; a layer that is named twice looks everywhere."""
    strategy, strength = way.strategy, way.strength
    if not isinstance(strength, float | int):
        strength = FADES[strength] if isinstance(strength, str) else listed(strength)
    roles = [
        Role(named, side, strategy.keys, strategy.values, strength, way.window, select_of(strategy))
        for named, side in ((way.outside, "outside"), (way.layers, "everywhere"))
        if named
    ]
    return look_at_source(roles, layers) if roles else None


def mask_of(spec: EditSpec, way: Way) -> Literal["auto"] | Callable[[EditTask], Tensor] | None:
    """How the mask of a way is found; None where none is."""
    if way.mask is None:
        return None
    where, threshold, feather = way.mask
    settings = {} if threshold is None else {"threshold": threshold}
    if where == "auto" and not settings and not feather:
        return "auto"  # which shows how far it has come

    def find(task: EditTask) -> Tensor:
        size = task.field.size
        if where == "auto":
            row = find_method(spec.method.name)
            defaults = {name: each.default for name, each in row.settings.items()}
            *_, last = load_function(row.function)(task, **defaults | spec.settings)
            mask = own_mask(task.field.of_edits(task.clean), last.edit, size, task.spread, **settings)
        else:
            mask = build(part_record(MASKS, where), **settings)(task)
        return feathered(mask, size, feather) if feather else mask

    return find


def operators_of(spec: EditSpec, masked: bool) -> tuple[Operator, ...]:
    """The operators of a spec; with a mask, the change is multiplied by it if the spec does not say how."""
    named = [(each.row, each.settings) for each in spec.operators or ()]
    row = find_method(spec.method.name)
    operators = tuple(build(part, **settings) for part, settings in named)
    if (
        masked
        and row.pairs
        and not (row.needs_mask or row.own_mask)
        and "masked" not in [part.name for part, _ in named]
    ):
        operators += (build(part_record(OPERATORS, "masked")),)
    return operators


def schedule_of(choice: ScheduleChoice | None) -> Schedule | None:
    return None if choice is None else build(choice.row, **choice.settings)
