"""Quantise linear layers, one at a time and while a model is filled, so that it is never there in full.

int8 and fp8: weights alone, a scale for each row, by `torchao`. nf4: 4 bits, blocks of 64, whose scales are
quantised too (QLoRA, arXiv 2305.14314), by `torchao` as well. All of them compute in the model's dtype.

In full stay: norms, biases, embeddings, modulation, what comes before and behind the blocks, and LoRAs. They
are few numbers, but for modulation, which decides each layer's scale and which a run needs once a step.
"""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from flux.extras import need, quiet
from flux.precision.choice import Precision

NF4_BLOCK, NF4_SCALES = 64, 256
"""Numbers with a scale in common, and scales that are quantised together, at most."""

OF_BLOCKS = re.compile(
    r"(?:^|\.)(?P<kind>double_blocks|single_blocks|block)\.(?P<number>\d+)\.(?P<rest>.+)\.weight"
)
IN_FULL = re.compile(r"(^|\.)(\w*mod(ulation)?\.lin|lora_[AB])$")
"""Linear layers of blocks that stay in full: modulation, and what stands beside a weight."""


def torchao(precision: str) -> ModuleType:
    """torchao's module of quantisation. Raises ImportError, one line, without the extra."""
    with quiet():
        return need("torchao.quantization", "quant", f"precision {precision}")


def _by_config(name: str) -> Callable[[nn.Linear, ModuleType], None]:
    def quantise(linear: nn.Linear, ao: ModuleType) -> None:
        ao.quantize_(linear, getattr(ao, name)(), filter_fn=lambda module, _: module is linear)

    return quantise


def _nf4(linear: nn.Linear, ao: ModuleType) -> None:
    # torchao has moved it: to where it is from 0.18 on.
    to_nf4 = getattr(ao, "to_nf4", None) or need("torchao.dtypes.nf4tensor", "quant").to_nf4
    blocks, rest = divmod(linear.weight.numel(), NF4_BLOCK)
    if not rest:  # else it stays as it is: no layer of a model of FLUX.1's kind
        weight = to_nf4(linear.weight.detach(), NF4_BLOCK, math.gcd(blocks, NF4_SCALES))
        linear.weight = nn.Parameter(weight, requires_grad=False)


SCHEMES = {
    "int8": _by_config("Int8WeightOnlyConfig"),
    "fp8": _by_config("Float8WeightOnlyConfig"),
    "nf4": _nf4,
}


def is_quantised(weight: Tensor) -> bool:
    """Whether a weight is of a class of its own, such as torchao's."""
    return type(weight) not in (Tensor, nn.Parameter)


def _move(linear: nn.Linear, place: torch.device) -> None:
    """Its weight alone: the bias may not be there yet."""
    if linear.weight.device != place:
        linear.weight = nn.Parameter(linear.weight.detach().to(place), requires_grad=False)


def quantise(linear: nn.Linear, scheme: str) -> None:
    """Quantise the weight of a layer where it is. scheme: a name of `SCHEMES`."""
    ao = torchao(scheme)
    linear.weight.requires_grad_(False)
    with quiet(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's, that its own way of doing this will change
        SCHEMES[scheme](linear, ao)


@dataclass(frozen=True)
class Quantiser:
    """What `flux.formats.fill.load_into` tells of each weight that is in: quantises it where it is to be.

    depth: the number of double blocks of a flow model, 0 for T5. title: of the part, for messages.
    before: is given the model and the layer's name first, to merge into its weight what has to be.
    at: where to do it; None: where the weight is.
    """

    precision: Precision
    title: str
    depth: int = 0
    before: Callable[[nn.Module, str], None] = lambda model, layer: None
    at: torch.device | None = None

    def __call__(self, model: nn.Module, key: str) -> None:
        if not self.wants(key):
            return
        layer = key.removesuffix(".weight")
        linear = model.get_submodule(layer)
        if not isinstance(linear, nn.Linear):
            return
        self.before(model, layer)
        if not linear.weight.isfinite().all():
            raise ValueError(f"the {self.title}'s {key} is not finite: download its weights again")
        place = linear.weight.device
        _move(linear, self.at or place)
        quantise(linear, self.precision.others)
        _move(linear, place)

    def wants(self, key: str) -> bool:
        """Whether a key is of a weight that is quantised, if it is one of a linear layer."""
        found = OF_BLOCKS.search(key)
        if found is None or not self.precision.is_quantised or IN_FULL.search(found["rest"]):
            return False
        number = int(found["number"]) + (self.depth if found["kind"] == "single_blocks" else 0)
        return found["kind"] == "block" or number not in self.precision.keep
