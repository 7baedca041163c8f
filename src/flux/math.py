"""Attention and rotary position embedding (RoPE), the only maths the blocks share; rows by their numbers."""

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor) -> Tensor:
    """Rotate queries and keys by `pe`, attend, and merge the heads.

    q, k, v: (B, H, L, D). pe: what `EmbedND` returns, (B or 1, 1, L, D / 2, 2, 2).
    Returns (B, L, H * D).
    """
    q, k = apply_rope(q, k, pe)
    x = F.scaled_dot_product_attention(q, k, v)
    return rearrange(x, "B H L D -> B L (H D)")


def rows_of(x: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of x, (B, ...), by numbers that the host knows, in their order.

    A list of them as an index would be copied to the device, which a host waits for.
    """
    return torch.cat([x[row : row + 1] for row in rows]) if rows else x[:0]


def among(numbers: Iterable[int], index: Tensor) -> Tensor:
    """Whether each entry of `index` is one of some numbers that the host knows, without copying these."""
    return sum((index == each for each in numbers), torch.zeros_like(index)) > 0


def rope(pos: Tensor, dim: int, theta: int) -> Tensor:
    """Rotation matrices of RoPE (arXiv 2104.09864, eq. 15) for the positions `pos`.

    pos: (..., n), any number type. dim: even number of channels to rotate.
    Returns float32 (..., n, dim / 2, 2, 2); channel pair i turns by pos * theta ** (-2 i / dim).
    Angles are computed in float64 where the device has it, so that large positions keep their phase.
    """
    if dim % 2:
        raise ValueError(f"RoPE rotates pairs of channels, so its dimension must be even; got {dim}")
    wide = torch.float32 if pos.device.type == "mps" else torch.float64
    exponent = torch.arange(0, dim, 2, dtype=wide, device=pos.device) / dim
    angle = pos.to(wide)[..., None] * theta**-exponent  # (..., n, dim / 2)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack((cos, -sin, sin, cos), dim=-1)
    return rotation.unflatten(-1, (2, 2)).float()


def apply_rope(xq: Tensor, xk: Tensor, freqs_cis: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate interleaved channel pairs of queries and keys, in float32; returns them in their own dtypes.

    xq, xk: (B, H, L, D). freqs_cis: rotation matrices broadcastable to (B, H, L, D / 2, 2, 2). Of each its
    first column is read, which says all of a rotation.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _rotate(xq, freqs_cis), _rotate(xk, freqs_cis)
    turns = torch.view_as_complex(freqs_cis[..., 0].contiguous())  # (B, 1, L, D / 2), cos + i sin
    return _turn(xq, turns), _turn(xk, turns)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """By complex numbers: one pass over x, where sums of products take four. To the bit the same on a CPU."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (B, H, L, D / 2)
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """By sums of products, which compilers fuse; of complex numbers they and ONNX know nothing."""
    pairs = x.float().unflatten(-1, (-1, 2))  # (B, H, L, D / 2, 2)
    # Column j of each 2 x 2 matrix says where component j of the pair goes.
    turned = rotation[..., 0] * pairs[..., 0, None] + rotation[..., 1] * pairs[..., 1, None]
    return turned.flatten(-2).to(x.dtype)
