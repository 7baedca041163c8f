"""The numbers of a LoRA file: read, held to be numbers, and stacked to one pair of factors for each layer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flux.files import sha256_of
from flux.flags import cut
from flux.formats.header import CheckpointError
from flux.formats.weights import Weights
from flux.lora.choice import LoraChoice
from flux.lora.places import FLOW, Place
from flux.lora.plan import LoraPlan, Update, plan_lora
from flux.models import ModelSpec


@dataclass(frozen=True)
class Factors:
    """An update in numbers: `up @ down`, all scales in `up`, is added to rows of a layer's weight.

    down: (rank, inputs), up: (rows, rank), bias: (rows,) or None; float32 on the CPU.
    """

    place: Place
    down: Tensor
    up: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class LoraRecord:
    """What is to be told of a LoRA that a picture was made with. about: what it holds, in words."""

    file: str
    scale: float
    sha256: str
    about: str

    def __str__(self) -> str:
        return f"{self.file}, scale {self.scale:g}: {self.about}"


@dataclass(frozen=True)
class Lora:
    """A LoRA that has been read. norms: scales of norms that take the place of the model's, by name."""

    plan: LoraPlan
    scale: float
    factors: tuple[Factors, ...]
    norms: Mapping[str, Tensor]

    def of(self, part: str) -> tuple[Factors, ...]:
        """The updates of a part: FLOW, CLIP or T5 of `flux.lora.places`."""
        return tuple(each for each in self.factors if each.place.part == part)

    def record(self) -> LoraRecord:
        return LoraRecord(self.plan.file.name, self.scale, sha256_of(self.plan.file), self._about())

    def _about(self) -> str:
        """`kohya, 304 updates of the flow model and 72 updates of CLIP`."""
        counts: dict[str, int] = {}
        for each in self.factors:
            counts[each.place.part] = counts.get(each.place.part, 0) + 1
        said = " and ".join(
            f"{n} updates of {'the ' if part == FLOW else ''}{part}" for part, n in counts.items()
        )
        return f"{self.plan.layout}, {said}"

    def left_out(self) -> str | None:
        """What of the file is not used, in words; None where all is."""
        names = self.plan.left_out
        if not names:
            return None
        few = ", ".join(cut(name.encode("unicode_escape").decode()) for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{self.plan.file}: what fits no layer is left out: {few}{more}"


def read_lora(choice: LoraChoice, model: ModelSpec, name: str = "the model") -> Lora:
    """Read a LoRA for a model. name: the model's, for messages.

    Raises CheckpointError, one line, as `plan_lora`, and for numbers that are none and an alpha of 0.
    """
    plan = plan_lora(choice.path, model, name)
    weights = Weights([plan.file])
    factors = tuple(_factors(plan, update, weights, choice.scale) for update in plan.updates)
    if factors and not any(each.up.any() for each in factors) and choice.scale:
        raise CheckpointError(f"{plan.file} does nothing, all its updates are 0: take one that was trained")
    return Lora(
        plan, choice.scale, factors, {ours: _read(plan, weights, key) for ours, key in plan.norms.items()}
    )


def _factors(plan: LoraPlan, update: Update, weights: Weights, scale: float) -> Factors:
    factor = update.factor
    if update.alpha is not None:
        factor = _read(plan, weights, update.alpha).reshape(()).item() / update.rank
    if not math.isfinite(factor):
        raise CheckpointError(f"{plan.file} has an alpha that is no number: download it again")
    if factor == 0:
        raise CheckpointError(
            f"{plan.file} has alpha 0 in {cut(update.alpha or update.down)}, with which it does nothing: "
            "take another file"
        )
    up = _read(plan, weights, update.up) * (factor * scale)
    bias = None if update.bias is None else _read(plan, weights, update.bias).flatten() * scale
    return Factors(update.place, _read(plan, weights, update.down), up, bias)


def _read(plan: LoraPlan, weights: Weights, key: str) -> Tensor:
    tensor = weights[key].to(torch.float32, copy=True)
    if not tensor.isfinite().all():
        raise CheckpointError(f"{plan.file} holds numbers that are none in {cut(key)}: download it again")
    return tensor


@dataclass(frozen=True)
class Stack:
    """All updates of one layer as one: `linear(x) + up @ (down @ x) + bias`.

    down: (ranks, inputs), up: (outputs, ranks), bias: (outputs,) or None.
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None


def stack(factors: Sequence[Factors], outputs: int, inputs: int) -> Stack:
    """One pair of factors that adds what all of `factors` add to one layer."""
    downs = [F.pad(each.down, (0, inputs - each.down.shape[1])) for each in factors]
    ups = [_in_rows(each.up, each.place, outputs) for each in factors]
    if not factors:  # of rank 1, which adds nothing
        downs, ups = [torch.zeros(1, inputs)], [torch.zeros(outputs, 1)]
    biases = [_in_rows(each.bias, each.place, outputs) for each in factors if each.bias is not None]
    return Stack(torch.cat(downs), torch.cat(ups, dim=1), torch.stack(biases).sum(0) if biases else None)


def _in_rows(values: Tensor, place: Place, outputs: int) -> Tensor:
    """values, whose first axis is the rows of a place, among zeros for the layer's other rows."""
    if not place.spans:
        return values
    rows = torch.cat([torch.arange(*span) for span in place.spans])
    return values.new_zeros(outputs, *values.shape[1:]).index_copy(0, rows, values)


def by_layer(factors: Iterable[Factors]) -> dict[str, list[Factors]]:
    found: dict[str, list[Factors]] = {}
    for each in factors:
        found.setdefault(each.place.layer, []).append(each)
    return found
