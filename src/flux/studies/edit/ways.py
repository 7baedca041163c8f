"""From a spec's words to what methods take: looks, masks that are found, operators, guidance schedules."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from flux.hooks import AboveThreshold, Select, TopRatio
from flux.hooks.looking import ByLayer
from flux.methods.field import Look, Operator, Schedule
from flux.methods.looks import Curve, Role, cosine, linear, listed, look_at_source
from flux.methods.lookup import find_method, load_function
from flux.methods.masks import feathered, own_mask, packed
from flux.methods.tables import MASKS, OPERATORS, build, part_record
from flux.methods.task import EditTask
from flux.models import Layers
from flux.photos.framing import Frame, cut_mask
from flux.studies.edit.choices import ScheduleChoice
from flux.studies.edit.items import MaskChoice, Strategy
from flux.studies.edit.jobs import FoundMask, LayerRole, Way, mask_picture
from flux.studies.edit.spec import EditSpec

FADES: dict[str, Curve] = {"linear": linear(1, 0), "cosine": cosine(1, 0)}


def look_of(way: Way, layers: Layers) -> Look | None:
    """Where edits of a way look at their sources."""
    select = select_of(way.strategy)
    roles = [_role(each, select) for each in way.roles if each.layers]
    return look_at_source(roles, layers) if roles else None


def _role(said: LayerRole, select: Select | None) -> Role:
    strength = _curve(said.strength, said.window)
    return Role(said.layers, said.side, said.keys, said.values, strength, said.window, select)


def injection_of(way: Way, layers: Layers, mask: Tensor | None = None) -> ByLayer:
    """The same for a batch of a source and one edit. mask: the edit's, packed, (1, L, 64)."""
    look = look_of(way, layers)
    plan = {} if look is None else look((0,), 1, mask).inject
    hows = {layer: how for layer, (how,) in plan.items()}
    return ByLayer(hows, "; ".join(each.in_words for each in way.roles if each.layers))


def mask_grid(mask: MaskChoice, frame: Frame) -> Tensor:
    """A mask that is given, packed, (1, L, 64)."""
    return packed(torch.from_numpy(cut_mask(mask_picture(mask, frame), frame))[None])


def _curve(strength: float | str | tuple[float, ...], window: tuple[int, int] | None) -> float | Curve:
    """A strength as a spec has it: a number, a fade by its name, or a number for each step of the run.

    A curve goes over the steps of the window; a fade does as well.
    """
    if isinstance(strength, float | int):
        return strength
    if isinstance(strength, str):
        return FADES[strength]
    return listed(strength if window is None else strength[slice(*window)])


def mask_of(spec: EditSpec, way: Way) -> Literal["auto"] | Callable[[EditTask], Tensor] | None:
    """How the mask of a way is found; None where none is."""
    if way.mask is None:
        return None
    if way.mask == FoundMask("auto", (), None):
        return "auto"  # which shows how far it has come

    def find(task: EditTask) -> Tensor:
        if way.mask.where != "auto":
            return found_mask(way.mask, task)
        row = find_method(spec.method.name)
        *_, last = load_function(row.function)(task, **row.defaults | spec.settings)
        return found_mask(way.mask, task, last.edit)

    return find


def found_mask(mask: FoundMask, task: EditTask, edit: Tensor | None = None) -> Tensor:
    """A mask, packed, (N, L, 64). edit: for `auto`, what a first run made of the task, (N, L, 64)."""
    if mask.where == "auto":
        clean = task.field.of_edits(task.clean)
        return change_mask(mask, clean, edit, task.field.size, task.spread, task.shown_by_edit)
    return _feathered(
        mask, build(part_record(MASKS, mask.where), **dict(mask.settings))(task), task.field.size
    )


def change_mask(
    mask: FoundMask,
    clean: Tensor,
    edit: Tensor,
    size: tuple[int, int],
    spread: float,
    shown: Tensor | None = None,
) -> Tensor:
    """The mask of what an edit changed, packed, from both clean latents, packed too, (N, L, 64).

    shown: as `own_mask` takes it.
    """
    return _feathered(mask, own_mask(clean, edit, size, spread, shown=shown, **dict(mask.settings)), size)


def _feathered(mask: FoundMask, found: Tensor, size: tuple[int, int]) -> Tensor:
    return feathered(found, size, mask.feather) if mask.feather else found


def operators_of(spec: EditSpec, masked: bool) -> tuple[Operator, ...]:
    """The operators of a spec; with a mask, the change is multiplied by it if the spec does not say how."""
    named = [(each.row, each.settings) for each in spec.operators or ()]
    row = None if spec.method is None else find_method(spec.method.name)
    operators = tuple(build(part, **settings) for part, settings in named)
    able = row is None or row.limitable
    if masked and able and "masked" not in [part.name for part, _ in named]:
        operators += (build(part_record(OPERATORS, "masked")),)
    return operators


def select_of(strategy: Strategy) -> Select | None:
    """Which image tokens a strategy copies; None for all."""
    if strategy.name == "ratio":
        return TopRatio(strategy.ratio)
    return AboveThreshold(strategy.threshold) if strategy.name == "threshold" else None


def schedules_of(spec: EditSpec) -> dict[str, Schedule | None]:
    """What becomes of the source's guidance and of the edit's, by the names that fields and requests have."""
    given = spec.schedules
    return {
        "source_schedule": _schedule(given and given.source),
        "edit_schedule": _schedule(given and given.edit),
    }


def _schedule(choice: ScheduleChoice | None) -> Schedule | None:
    return None if choice is None else build(choice.row, **choice.settings)
