"""How is a step made faster? By compiled blocks, and by a choice of attention's kernel.

    compile_blocks(models.flow)
    choose_attention("cudnn", models.device)

Neither is on by default: sums are rounded otherwise than by plain PyTorch, so pictures differ a little.
"""

import importlib.util
import shutil
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import torch
import torch.nn.attention
from torch import nn

from flux.model import Flux

AttentionKernel = Literal["sdpa", "cudnn", "flash3"]

FLASH3 = "flash_attn_interface"
"""The module of FlashAttention 3."""


def compile_blocks(model: Flux, *, backend: str | Callable = "inductor") -> None:
    """Compile each block by itself, in place: one graph for double and one for single blocks.

    What is skipped is decided by the model, and hooks are called as they are, between two graphs, so that
    nothing is compiled again for other steps, layers skipped, or edits; a second number of rows is, once.
    Parameters, keys and what clients see of the model stay as they are. backend: of `torch.compile`.
    Raises ValueError, in one line, where inductor finds no compiler for the model's device.
    """
    if backend == "inductor":
        require_compiler(next(model.parameters()).device)
    opaque = _opaque_class()
    for block in (*model.double_blocks, *model.single_blocks):
        compiled = torch.compile(block.forward, backend=backend)
        # The one place where torch keeps what it calls in the block's place; copies of the block leave it.
        block._compiled_call_impl = partial(_call, block, compiled, opaque)


def _call(block: nn.Module, compiled: Callable, opaque: type, *args: Any, **kwargs: Any) -> Any:
    """Call a block whose hooks, by which weights come and go, are called around what is compiled."""
    hooks = {name: opaque(kwargs[name]) for name in ("inject", "attend") if kwargs.get(name) is not None}
    block.__dict__["forward"] = compiled
    try:
        return block._call_impl(*args, **kwargs | hooks)
    finally:
        del block.__dict__["forward"]


@cache
def _opaque_class() -> type:
    """Of hooks that the compiler does not look into: of each it knows the class, and so nothing that changes
    from layer to layer. Made here, since torch loads its compiler for it."""

    class Opaque:
        def __init__(self, hook: Callable):
            self.hook = hook

        @torch.compiler.disable
        def __call__(self, *tensors: torch.Tensor) -> Any:
            return self.hook(*tensors)

    return Opaque


def require_compiler(device: torch.device) -> None:
    """Raise ValueError, in one line, where inductor cannot compile for a device."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError("compile needs triton on a GPU, and it is not installed: leave compile out")
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        raise ValueError("compile needs a C++ compiler on a CPU, such as g++, and none is found: install one")
    if device.type not in ("cuda", "cpu"):
        raise ValueError(f"compile is for CUDA and CPUs, and the model is on {device.type}: leave it out")


def require_attention(kernel: AttentionKernel, device: torch.device) -> None:
    """Raise ValueError, in one line, for a kernel that is not there."""
    if kernel != "sdpa" and device.type != "cuda":
        raise ValueError(
            f"attention {kernel} is for NVIDIA's GPUs, and the model is on {device.type}: take sdpa"
        )
    flash3 = kernel == "flash3"
    if flash3 and importlib.util.find_spec(FLASH3) is None:
        raise ValueError(
            f"attention flash3 needs FlashAttention 3, {FLASH3}, which is not installed: take cudnn"
        )
    if flash3 and not hasattr(torch.nn.attention, "activate_flash_attention_impl"):
        raise ValueError(f"attention flash3 needs a later torch than {torch.__version__}: take cudnn")


def choose_attention(kernel: AttentionKernel, device: torch.device) -> None:
    """Attend by a kernel, for all of the process and until another is chosen.

    sdpa: what torch picks. cudnn: cuDNN's. flash3: FlashAttention 3, but with a mask, as of regions, torch's.
    Raises ValueError as `require_attention`.
    """
    require_attention(kernel, device)
    flash3 = kernel == "flash3"
    choices = torch.nn.attention
    torch.backends.cuda.enable_cudnn_sdp(not flash3)
    torch.backends.cuda.enable_flash_sdp(kernel != "cudnn")
    torch.backends.cuda.enable_mem_efficient_sdp(kernel != "cudnn")
    if flash3:
        choices.activate_flash_attention_impl("FA3")
    elif (
        hasattr(choices, "current_flash_attention_impl")
        and choices.current_flash_attention_impl() is not None
    ):
        choices.restore_flash_attention_impl()
