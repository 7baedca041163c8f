"""bfloat16 on CPUs that have it: five times faster matrices, if attention does not spoil it. Elsewhere it is
emulated, thirty times slower than float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def half_precision() -> Iterator[None]:
    """Matrices in bfloat16 and attention written out: on CPUs the backward pass of the fused one is far
    slower."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def half_convolutions() -> Iterator[None]:
    """Convolutions in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        yield
