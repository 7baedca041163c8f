"""Where a training runs, and in which precision.

On a CPU that multiplies in bfloat16, matrices are five times faster in it, if attention does not spoil it;
elsewhere it is emulated, thirty times slower than float32. On a GPU these models are too small to gain by it:
float32 with TensorFloat-32 products spares the casts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

CPU = torch.device("cpu")


def device_named(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises ValueError for a device that is not here."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device is {name!r}: give auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device cuda: torch {torch.__version__} sees no GPU here; give cpu")
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return device


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def device_name(device: torch.device) -> str:
    """The card's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def moved(value: Any, device: torch.device) -> Any:
    """Arrays in tuples, named or not, and in dicts as tensors on the device; all else as it is."""
    return mapped(lambda array: torch.from_numpy(array).to(device, non_blocking=True), value, np.ndarray)


def mapped(function: Callable[[Any], Any], value: Any, kind: type) -> Any:
    """What is of a kind in tuples, named or not, and in dicts replaced by the function's value of it."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, dict):
        return {key: mapped(function, part, kind) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [mapped(function, part, kind) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def half_precision(device: torch.device) -> Iterator[None]:
    """On CPUs matrices in bfloat16 and attention written out: the backward pass of the fused one is far
    slower."""
    if device.type != "cpu":
        yield
        return
    with half_convolutions(device), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def half_convolutions(device: torch.device) -> Iterator[None]:
    """Convolutions in bfloat16, on CPUs."""
    with torch.autocast("cpu", torch.bfloat16, enabled=device.type == "cpu" and has_bfloat16()):
        yield
