"""Linear layers with a low-rank update beside their weight (LoRA, arXiv 2106.09685)."""

import torch
from torch import Tensor, nn


def replace_linear_with_lora(module: nn.Module, max_rank: int, scale: float = 1.0) -> None:
    """Replace, in place, every linear layer below `module` by one with a LoRA of at most `max_rank`."""
    for name, child in module.named_children():
        if isinstance(child, LinearLora):
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, with_lora(child, max_rank, scale))
        else:
            replace_linear_with_lora(child, max_rank, scale)


class LinearLora(nn.Linear):
    """`linear(x) + scale * lora_B(lora_A(x))`. `scale` 0 gives the plain layer.

    bias: whether there is one; as upstream has it, a layer's own bias or None say so too.
    lora_bias: whether `lora_B` has one.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool | Tensor | None,
        rank: int,
        dtype: torch.dtype,
        device: torch.device,
        lora_bias: bool = True,
        scale: float = 1.0,
        *args,
        **kwargs,
    ) -> None:
        has_bias = bias if isinstance(bias, bool) else bias is not None
        super().__init__(in_features, out_features, has_bias, device, dtype, *args, **kwargs)
        self.dtype = dtype
        self.device = device
        self.lora_bias = lora_bias
        self.scale = _checked_scale(scale)
        # A rank above the layer's own would add parameters and no freedom.
        self.rank = min(rank, in_features, out_features)
        place = dict(device=device, dtype=dtype)
        self.lora_A = nn.Linear(in_features, self.rank, bias=False, **place)
        self.lora_B = nn.Linear(self.rank, out_features, bias=lora_bias, **place)

    def set_scale(self, scale: float) -> None:
        self.scale = _checked_scale(scale)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.scale * self.lora_B(self.lora_A(input))


def with_lora(linear: nn.Linear, rank: int, scale: float) -> LinearLora:
    """A LoRA layer that shares the weight and bias of `linear`."""
    layer = LinearLora(
        linear.in_features,
        linear.out_features,
        bias=linear.bias,
        rank=rank,
        dtype=linear.weight.dtype,
        device=linear.weight.device,
        lora_bias=linear.bias is not None,
        scale=scale,
    )
    layer.weight, layer.bias = linear.weight, linear.bias
    return layer


def _checked_scale(scale: float) -> float:
    if not isinstance(scale, int | float):
        raise TypeError(f"a LoRA scale must be a number; got {type(scale).__name__}")
    return float(scale)
