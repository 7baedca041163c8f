"""Linear layers with a low-rank update beside their weight (LoRA, arXiv 2106.09685)."""

import torch
from torch import Tensor, nn


def replace_linear_with_lora(module: nn.Module, max_rank: int, scale: float = 1.0) -> None:
    """Replace, in place, every linear layer below `module` by one with a LoRA of at most `max_rank`."""
    for name, child in module.named_children():
        if isinstance(child, LinearLora):
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, LinearLora.around(child, max_rank, scale))
        else:
            replace_linear_with_lora(child, max_rank, scale)


class LinearLora(nn.Linear):
    """`linear(x) + scale * lora_B(lora_A(x))`. `scale` 0 gives the plain layer."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        rank: int,
        dtype: torch.dtype,
        device: torch.device,
        lora_bias: bool = True,
        scale: float = 1.0,
        *args,
        **kwargs,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype, *args, **kwargs)
        self.scale = _checked_scale(scale)
        # A rank above the layer's own would add parameters and no freedom.
        self.rank = min(rank, in_features, out_features)
        place = dict(device=device, dtype=dtype)
        self.lora_A = nn.Linear(in_features, self.rank, bias=False, **place)
        self.lora_B = nn.Linear(self.rank, out_features, bias=lora_bias, **place)

    @classmethod
    def around(cls, linear: nn.Linear, rank: int, scale: float) -> "LinearLora":
        """A LoRA layer that shares the weight and bias of `linear`."""
        has_bias = linear.bias is not None
        weight = linear.weight
        layer = cls(
            linear.in_features,
            linear.out_features,
            bias=has_bias,
            rank=rank,
            dtype=weight.dtype,
            device=weight.device,
            lora_bias=has_bias,
            scale=scale,
        )
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer

    def set_scale(self, scale: float) -> None:
        self.scale = _checked_scale(scale)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.scale * self.lora_B(self.lora_A(input))


def _checked_scale(scale: float) -> float:
    if not isinstance(scale, int | float):
        raise TypeError(f"a LoRA scale must be a number; got {type(scale).__name__}")
    return float(scale)
