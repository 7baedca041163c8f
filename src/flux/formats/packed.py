"""Linear layers whose weights stay packed as a GGUF file has them, and are unpacked at each use."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from flux.formats.gguf_blocks import unpack


class Unpacked(nn.Module):
    """From the bytes of a weight, uint8 (rows, bytes of a row), to its numbers in `dtype`."""

    def __init__(self, kind: str, dtype: torch.dtype):
        super().__init__()
        self.kind = kind
        self.dtype = dtype

    def forward(self, packed: Tensor) -> Tensor:
        return unpack(packed, self.kind, self.dtype)

    def extra_repr(self) -> str:
        return self.kind


def keep_packed(linear: nn.Linear, packed: Tensor, kind: str, dtype: torch.dtype) -> None:
    """Give a layer a packed weight. `linear.weight` is its numbers from then on, unpacked at each look."""
    linear.weight = nn.Parameter(packed, requires_grad=False)
    # What is unpacked has another shape and dtype than what is kept, which torch calls unsafe.
    parametrize.register_parametrization(linear, "weight", Unpacked(kind, dtype), unsafe=True)


def is_packed(module: nn.Module) -> bool:
    """Whether a layer's weight is packed."""
    return parametrize.is_parametrized(module, "weight")


def takes_as_it_is(module: nn.Module) -> bool:
    """Whether a layer's weight is plain numbers, into which others can be merged."""
    return not is_packed(module) and type(module.weight) in (Tensor, nn.Parameter)


def number_type(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    """The dtype that a layer computes in, and where its weight is; nothing is unpacked for it."""
    if not is_packed(module):
        return module.weight.dtype, module.weight.device
    kept = module.parametrizations.weight
    return kept[0].dtype, kept.original.device
