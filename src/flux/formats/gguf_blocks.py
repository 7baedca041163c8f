"""The numbers in the blocks of GGUF files, in torch. The layouts are those of ggml, whose names they have.

Rows of a weight are cut into blocks of 32 or 256 numbers. A block holds small integers and what they are
multiplied by: `scale * q`, `scale * q + low`, or `scale * q - low`; those of 256 (K) have such factors for
every 16 or 32 numbers, integers too, and one float16 for all. Equal to `gguf.quants.dequantize`, bit by bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

AT_A_TIME = 2**24
"""Numbers that are unpacked at a time: in float32, before they get the dtype that is asked for."""


def unpack(packed: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """The numbers of a packed weight: uint8 (rows, bytes of a row) to `dtype` (rows, columns).

    kind: a name of `BLOCKS`.
    """
    layout = BLOCKS[kind]
    columns = packed.shape[1] // layout.size * layout.numbers
    rows = max(1, AT_A_TIME // columns)
    parts = (layout.numbers_of(each.reshape(-1, layout.size)) for each in packed.split(rows))
    return torch.cat([part.to(dtype).view(-1, columns) for part in parts])


def _halves(x: Tensor) -> Tensor:
    """Pairs of bytes as float16, in float32."""
    return x.contiguous().view(torch.float16).float()


def _low_and_high(x: Tensor, group: int) -> Tensor:
    """The low halves of every `group` bytes, then the high ones: (N, bytes) to (N, 2 bytes)."""
    parts = x.view(len(x), -1, 1, group)
    return torch.cat((parts & 15, parts >> 4), dim=2).view(len(x), -1)


def _bits(x: Tensor) -> Tensor:
    """The bits of bytes, the lowest of the first byte first: (N, bytes) to (N, 8 bytes)."""
    shifts = torch.arange(8, dtype=torch.uint8, device=x.device)
    return (x[:, :, None] >> shifts & 1).view(len(x), -1)


def _q8_0(x: Tensor) -> Tensor:
    return _halves(x[:, :2]) * x[:, 2:].contiguous().view(torch.int8).float()


def _q4_0(x: Tensor) -> Tensor:
    return _halves(x[:, :2]) * (_low_and_high(x[:, 2:], 16).float() - 8)


def _q4_1(x: Tensor) -> Tensor:
    return _halves(x[:, :2]) * _low_and_high(x[:, 4:], 16).float() + _halves(x[:, 2:4])


def _q5_0(x: Tensor) -> Tensor:
    q = _low_and_high(x[:, 6:], 16) | _bits(x[:, 2:6]) << 4
    return _halves(x[:, :2]) * (q.float() - 16)


def _q5_1(x: Tensor) -> Tensor:
    q = _low_and_high(x[:, 8:], 16) | _bits(x[:, 4:8]) << 4
    return _halves(x[:, :2]) * q.float() + _halves(x[:, 2:4])


def _twos(x: Tensor, by: int, most: int) -> Tensor:
    """Pairs of bits of every 32 bytes, those that are shifted least first: (N, bytes) to (N, 256)."""
    shifts = torch.arange(0, most, by, dtype=torch.uint8, device=x.device)[:, None]
    return (x.view(len(x), -1, 1, 32) >> shifts & 3).view(len(x), -1)


def _grouped(q: Tensor, factors: Tensor) -> Tensor:
    """Integers (N, 256) with a factor for each of their equal groups, (N, groups)."""
    groups = factors.shape[1]
    return q.float().view(len(q), groups, -1) * factors[:, :, None]


def _q2_k(x: Tensor) -> Tensor:
    factors, q, scale, low = x[:, :16], x[:, 16:80], _halves(x[:, 80:82]), _halves(x[:, 82:84])
    lows = low * (factors >> 4).float()
    return _grouped(_twos(q, 2, 8), scale * (factors & 15).float()) - lows[:, :, None]


def _q3_k(x: Tensor) -> Tensor:
    high, q, packed, scale = x[:, :32], x[:, 32:96], x[:, 96:108], _halves(x[:, 108:110])
    # Six bits each: of 16 factors, the low four in eight bytes and the high two in the four that follow.
    lower = torch.cat((packed[:, :8] & 15, packed[:, :8] >> 4), dim=1)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=x.device)[:, None]
    upper = (packed[:, None, 8:] >> shifts & 3).view(len(x), 16)
    factors = (lower | upper << 4).float() - 32
    bits = torch.arange(8, dtype=torch.uint8, device=x.device)[:, None]
    third = (high[:, None, :] >> bits & 1).view(len(x), 256)  # where it is not set, 4 is taken away
    return _grouped(_twos(q, 2, 8).float() - 4 * (1 - third.float()), scale * factors)


def _factors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight lows of six bits each from 12 bytes, (N, 8) both, float32."""
    first, second, third = x[:, :4], x[:, 4:8], x[:, 8:12]
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), dim=1)
    lows = torch.cat((second & 63, third >> 4 | second >> 6 << 4), dim=1)
    return scales.float(), lows.float()


def _of_eight(q: Tensor, x: Tensor) -> Tensor:
    """Integers (N, 256), and blocks that begin with their scale, low, and the factors of both."""
    scales, lows = _factors(x[:, 4:16])
    return _grouped(q, _halves(x[:, :2]) * scales) - (_halves(x[:, 2:4]) * lows)[:, :, None]


def _q4_k(x: Tensor) -> Tensor:
    return _of_eight(_low_and_high(x[:, 16:], 32), x)


def _q5_k(x: Tensor) -> Tensor:
    bits = torch.arange(8, dtype=torch.uint8, device=x.device)[:, None]
    fifth = (x[:, None, 16:48] >> bits & 1).view(len(x), 256)
    return _of_eight(_low_and_high(x[:, 48:], 32) | fifth << 4, x)


def _q6_k(x: Tensor) -> Tensor:
    factors, scale = x[:, 192:208].contiguous().view(torch.int8).float(), _halves(x[:, 208:210])
    q = _low_and_high(x[:, :128], 64) | _twos(x[:, 128:192], 2, 8) << 4
    return _grouped(q.float() - 32, scale * factors)


@dataclass(frozen=True)
class BlockLayout:
    """numbers: in a block. size: of it, in bytes. numbers_of: (N, size) to N times `numbers`, float32."""

    numbers: int
    size: int
    numbers_of: Callable[[Tensor], Tensor]


BLOCKS = {
    "Q8_0": BlockLayout(32, 34, _q8_0),
    "Q4_0": BlockLayout(32, 18, _q4_0),
    "Q4_1": BlockLayout(32, 20, _q4_1),
    "Q5_0": BlockLayout(32, 22, _q5_0),
    "Q5_1": BlockLayout(32, 24, _q5_1),
    "Q2_K": BlockLayout(256, 84, _q2_k),
    "Q3_K": BlockLayout(256, 110, _q3_k),
    "Q4_K": BlockLayout(256, 144, _q4_k),
    "Q5_K": BlockLayout(256, 176, _q5_k),
    "Q6_K": BlockLayout(256, 210, _q6_k),
}
