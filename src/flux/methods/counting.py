"""How many evaluations an edit will take, known before there is a model: its method is walked through.

    count_evaluations(find_method("stable-flow"), 16, {"integrator": "midpoint", ...})      # 96

What a method asks for depends on its settings, not on the answers, but for where it may stop early or try
again. The answers here are no numbers, NaN: none is small enough to stop at, and none in doubt.

    walk(find_method("gentle"), task.times, {"shift": 1.45, ...})       # at which noise levels it asks
"""

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from flux.methods import MethodRecord
from flux.methods.field import Conditioning, Field
from flux.methods.tables import MASKS, build, part_record
from flux.methods.task import EditTask


@dataclass(frozen=True)
class UnknownField(Field):
    """A field without a model, whose velocities are no numbers; it counts what is asked for."""

    def _velocity(self, z: Tensor, *asked: Any) -> Tensor:
        return torch.full_like(z, torch.nan)


@dataclass(frozen=True)
class AskedVelocity:
    """An evaluation that a method asks for. beside: whether source and edit stand side by side in it."""

    t: float
    beside: bool


@dataclass(frozen=True)
class StillField(Field):
    """A field without a model, of one edit, whose velocities are zero; it keeps what is asked for."""

    asked: list[AskedVelocity] = field(default_factory=list)

    def _velocity(self, z: Tensor, t: float, *more: Any) -> Tensor:
        self.asked.append(AskedVelocity(t, len(z) > 1))
        return torch.zeros_like(z)


def walk(row: MethodRecord, times: Sequence[float], settings: Mapping[str, Any]) -> Sequence[AskedVelocity]:
    """What an edit asks of the model, in order, over steps through these noise levels, masks aside.

    settings: all of the method's. A method that tries again where it is in doubt does so here.
    """
    task = _task(times, masked=row.needs_mask, kind=StillField)
    _run(pkgutil.resolve_name(row.function), task, settings)
    return task.field.asked


def count_evaluations(
    row: MethodRecord,
    steps: int,
    settings: Mapping[str, Any],
    *,
    mask: str | None = None,
    of_mask: Mapping[str, Any] = MappingProxyType({}),
    negative: bool = False,
) -> int:
    """How many evaluations of one row an edit takes, its source's included: what `Field.counts` will say.

    settings: all of the method's. mask: which of `MASKS` is found for it first; of_mask: settings of that,
    those left out at their defaults. negative: whether edits move
    away from a negative prompt. An iteration that ends where it has settled may take fewer, and a method
    that tries again takes more, as its record says.
    """
    times = [1 - i / steps for i in range(steps + 1)]
    task = _task(times, masked=row.needs_mask, kind=UnknownField, negative=negative)
    edit = pkgutil.resolve_name(row.function)
    if mask == "auto":
        _run(edit, task, settings)
    elif mask == "words":  # the only one that reads what hooks kept
        z, at, plain = task.clean, (1.0, None, 1.0), replace(task.field, away=None)
        plain.source(z, *at)
        plain.edit(z, *at)
    elif mask is not None:
        build(part_record(MASKS, mask), **of_mask)(task)
    _run(edit, task, settings)
    return task.field.counts[0]


def _run(edit: Any, task: EditTask, settings: Mapping[str, Any]) -> None:
    for _ in edit(task, **settings):
        pass


def _task(times: Sequence[float], *, masked: bool, kind: type[Field], negative: bool = False) -> EditTask:
    """One edit of a picture of one token."""
    text = Conditioning(torch.zeros(1, 1, 1), torch.zeros(1, 1))
    unknown = kind(
        flow=SimpleNamespace(double_blocks=(), single_blocks=()),
        sources=text,
        edits=text,
        empty=text,
        of=(0,),
        size=(1, 1),
        clean=torch.zeros(1, 1, 64),
        mask=torch.ones(1, 1, 64) if masked else None,
        away=(text, 2.0) if negative else None,
    )
    return EditTask(unknown, seeds=(0,), times=tuple(times), words=(((), ()),))
