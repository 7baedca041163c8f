"""Put LoRAs into a model, merged into its weights or live beside them, and take them out again exactly.

    with apply_loras(models.flow, loras, live=True):
        ...

Merged, a model is as fast as before, and each weight is rounded once to the model's dtype. Live, its weights
stay as they are and every layer does two small products more.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flux.formats.header import CheckpointError
from flux.formats.packed import number_type, takes_as_it_is
from flux.lora.places import FLOW
from flux.lora.reading import Lora, Stack, by_layer, stack

AT_A_TIME = {"cpu": 2**20, "cuda": 2**26}
"""Numbers of a weight that are merged at a time."""

LIVE = "lora_update"
"""The module beside a linear layer's weight that holds a live update."""


class LiveUpdate(nn.Module):
    """`up @ (down @ x) + bias`, in the dtype of the layer beside it. It is in no state dict."""

    def __init__(self, update: Stack, like: Tensor):
        super().__init__()
        for name in ("down", "up", "bias"):
            value = getattr(update, name)
            self.register_buffer(name, None if value is None else value.to(like), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up, self.bias)


def _add_update(linear: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + getattr(linear, LIVE)(inputs[0])


@dataclass
class AppliedLoras:
    """LoRAs in a model. `undo` gives it back as it was, bit for bit; in `with` it does so at the end."""

    module: nn.Module
    kept: dict[str, nn.Parameter] = field(default_factory=dict)
    merged: dict[str, nn.Parameter] = field(default_factory=dict)
    hooks: list[tuple[nn.Module, torch.utils.hooks.RemovableHandle]] = field(default_factory=list)
    exact: bool = True

    def undo(self) -> None:
        """Take them out again. A second time does nothing.

        Raises RuntimeError where others were merged on top, which have to be undone first, and where no
        weights were kept.
        """
        if not self.exact:
            raise RuntimeError("the weights before were not kept: apply LoRAs with keep=True, or load again")
        if any(self.module.get_parameter(key) is not merged for key, merged in self.merged.items()):
            raise RuntimeError("the weights have been changed since: undo what came later first")
        for key, before in self.kept.items():
            before.data = before.data.to(self.merged[key].device)
            _set_parameter(self.module, key, before)
        for linear, handle in self.hooks:
            handle.remove()
            delattr(linear, LIVE)
        self.kept, self.merged, self.hooks = {}, {}, []

    def __enter__(self) -> "AppliedLoras":
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()


@torch.no_grad()
def apply_loras(
    module: nn.Module,
    loras: Sequence[Lora],
    *,
    part: str = FLOW,
    live: bool = False,
    keep: bool = True,
    at: torch.device | None = None,
    merged: Collection[str] = (),
) -> AppliedLoras:
    """Put the updates that `loras` have for `part` into its module, a flow model or an encoder.

    keep: hold the weights that change, on the CPU, for `undo`; as much memory as the layers take.
    at: where to compute what is merged; None: where each weight is.
    merged: layers whose weights have their updates already, see `MergesFirst`.
    Raises CheckpointError, before anything changes, for a layer that an encoder lacks or has in another
    shape, or whose weights take nothing, and RuntimeError for live updates of a layer that has some.
    """
    applied = AppliedLoras(module, exact=keep or live)
    layers = by_layer(each for lora in loras for each in lora.of(part))
    linears = {name: _linear(module, name, loras, part) for name in layers}
    stacks = {}
    for name, (_, linear) in linears.items():
        if live and hasattr(linear, LIVE):
            raise RuntimeError(f"{name} has a live LoRA: undo that first, or apply all at once")
        if not (live or name in merged or takes_as_it_is(linear)):
            raise CheckpointError(
                f"{loras[0].plan.file} cannot be merged into {name}, whose weights are quantised: keep it "
                "beside them (lora_live)"
            )
        stacks[name] = stack(layers[name], *_shape(linear))
    for name, (path, linear) in linears.items():
        if live:
            dtype, device = number_type(linear)
            linear.add_module(LIVE, LiveUpdate(stacks[name], torch.empty(0, dtype=dtype, device=device)))
            applied.hooks.append((linear, linear.register_forward_hook(_add_update)))
        else:
            _merge(applied, path, linear, stacks[name], keep, at, weight=name not in merged)
    if part == FLOW:
        for key, scale in ((key, scale) for lora in loras for key, scale in lora.norms.items()):
            _put(applied, key, scale, keep=True)
    return applied


@dataclass
class MergesFirst:
    """Merges what `loras` have for a layer into its weight while a model is filled, before it is quantised.

    at: as `apply_loras` has it. merged: the layers that have had theirs, for `apply_loras` to do the rest.
    """

    loras: Sequence[Lora]
    part: str
    at: torch.device | None = None
    merged: set[str] = field(default_factory=set)

    @torch.no_grad()
    def __call__(self, model: nn.Module, path: str) -> None:
        layers = by_layer(each for lora in self.loras for each in lora.of(self.part))
        name = next((name for name in layers if path == name or path.endswith(f".{name}")), None)
        if name is None:
            return
        _, linear = _linear(model, name, self.loras, self.part)
        if not takes_as_it_is(linear):
            return  # of which `apply_loras` says so
        weight = linear.weight.to(self.at or linear.weight.device)
        new = merged_weight(weight, stack(layers[name], *_shape(linear))).to(linear.weight)
        _set_parameter(model, f"{path}.weight", nn.Parameter(new, linear.weight.requires_grad))
        self.merged.add(name)


def _shape(linear: nn.Module) -> tuple[int, int]:
    """Of a layer's weight, which is not unpacked for it."""
    if isinstance(linear, nn.Linear):
        return linear.out_features, linear.in_features
    return tuple(linear.weight.shape)


def _linear(module: nn.Module, layer: str, loras: Sequence[Lora], part: str) -> tuple[str, nn.Module]:
    """A linear layer's full name in the module, and the layer itself, which its updates fit."""
    named = dict(module.named_modules())
    path = layer if layer in named else next((name for name in named if name.endswith(f".{layer}")), None)
    linear = named[path] if path is not None else None
    for lora in loras:
        for each in by_layer(lora.of(part)).get(layer, []):
            shape = None if linear is None else _shape(linear)
            fits = shape is not None and each.down.shape[1] <= shape[1]
            if not fits or (each.place.part != FLOW and (len(each.up), each.down.shape[1]) != shape):
                has = "which the model lacks" if shape is None else f"{shape} in the model"
                raise CheckpointError(
                    f"{lora.plan.file} does not fit {part}: its {layer} is ({len(each.up)}, "
                    f"{each.down.shape[1]}), {has}: take a LoRA that was made for this model"
                )
            if each.bias is not None and linear.bias is None:
                raise CheckpointError(
                    f"{lora.plan.file} has a bias for {layer}, which has none in the model: take a LoRA that "
                    "was made for it"
                )
    return path, linear


def _merge(
    applied: AppliedLoras,
    path: str,
    linear: nn.Module,
    update: Stack,
    keep: bool,
    at: torch.device | None,
    *,
    weight: bool = True,
) -> None:
    """weight: whether the weight lacks the update yet."""
    if weight:
        before = linear.weight.to(at or linear.weight.device)
        _put(applied, f"{path}.weight", merged_weight(before, update), keep=keep)
    if update.bias is not None:
        _put(applied, f"{path}.bias", linear.bias + update.bias.to(linear.bias.device), keep=keep)


def merged_weight(weight: Tensor, update: Stack) -> Tensor:
    """`weight + up @ down`, summed in float32 or better and rounded once to the weight's dtype.

    Some rows at a time, which halves the time on a CPU and needs no float32 copy of the whole.
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    down, up = (factor.to(weight.device, exact) for factor in (update.down, update.up))
    rows = max(1, AT_A_TIME.get(weight.device.type, 2**24) // weight.shape[1])
    pairs = zip(weight.split(rows), up.split(rows), strict=True)
    return torch.cat([torch.addmm(part.to(exact), half, down).to(weight.dtype) for part, half in pairs])


def _put(applied: AppliedLoras, key: str, value: Tensor, *, keep: bool) -> None:
    """Put a value in the place of a parameter, in its dtype and on its device."""
    before = applied.module.get_parameter(key)
    applied.merged[key] = nn.Parameter(value.to(before), before.requires_grad)
    _set_parameter(applied.module, key, applied.merged[key])
    if keep and key not in applied.kept:
        before.data = before.data.cpu()
        applied.kept[key] = before


def _set_parameter(module: nn.Module, key: str, parameter: nn.Parameter) -> None:
    owner, _, name = key.rpartition(".")
    setattr(module.get_submodule(owner), name, parameter)
