"""Make the LoRA of a model that is built of `LinearLora`s from a file of any layout."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flux.lora.places import FLOW
from flux.lora.reading import Lora, by_layer, stack
from flux.modules.lora import LinearLora


def fill_linear_loras(
    model: nn.Module, lora: Lora, device: torch.device | str, dtype_of: Callable[[str], torch.dtype]
) -> list[str]:
    """Give each layer the updates that `lora` has for it, in the rank they have together, and others zeros.

    dtype_of: the dtype of a parameter, by its name. Norms take the file's scales.
    Returns the names of the layers without updates, which stay as they were.
    """
    layers, plain = by_layer(lora.of(FLOW)), []
    for name, layer in model.named_modules():
        if not isinstance(layer, LinearLora):
            continue
        outputs, inputs = layer.weight.shape
        update = stack(layers.get(name, ()), outputs, inputs)
        bias = torch.zeros(outputs) if update.bias is None else update.bias
        dtype = dtype_of(f"{name}.weight")
        layer.rank = layer.lora_A.out_features = layer.lora_B.in_features = len(update.down)
        layer.lora_A.weight = _parameter(update.down, device, dtype)
        layer.lora_B.weight = _parameter(update.up, device, dtype)
        if layer.lora_bias:
            layer.lora_B.bias = _parameter(bias, device, dtype)
        plain += [] if name in layers else [name]
    for key, scale in lora.norms.items():
        norm = model.get_submodule(key.removesuffix(".scale"))
        norm.scale = _parameter(scale, device, dtype_of(key))
    return plain


def _parameter(value: Tensor, device: torch.device | str, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(device, dtype))
