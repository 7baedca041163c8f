"""Which dtype a part takes: that of its own parameters, so that parts of one model may differ in it."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn


def cast_for(x: Tensor, *parts: nn.Module) -> Tensor:
    """x in the dtype of the first parameter of `parts` that one computes in.

    Untouched where there is none, as in parts kept in 8 bits, and under autocast, which casts by itself.
    """
    dtype = next(_computing(parts), x.dtype)
    return x if dtype == x.dtype or _autocasts(x.device.type) else x.to(dtype)


def _autocasts(device: str) -> bool:
    # Of devices without autocast, such as meta, one may not ask whether it is on.
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _computing(parts: tuple[nn.Module, ...]) -> Iterator[torch.dtype]:
    """Dtypes of parameters, those in which numbers are only stored left out: integers and 8-bit floats."""
    dtypes = (parameter.dtype for parameter in chain.from_iterable(part.parameters() for part in parts))
    return (dtype for dtype in dtypes if dtype.is_floating_point and dtype.itemsize > 1)
