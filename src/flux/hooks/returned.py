"""What hooks return is held against what they were given, and refused by the hook's place in the plan."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def place(row: str, layer: int, index: int = 0, of: int = 1) -> str:
    """Where a hook stands, in words: `inject[3]`, of several in one layer also which."""
    return f"{row}[{layer}]" + (f", hook {index + 1} of {of}," if of > 1 else "")


def like_given(
    returned: Any, given: Sequence[Tensor], names: Sequence[str], where: str
) -> tuple[Tensor, ...]:
    """What a hook returns, if it is as many tensors as it was given, of their shapes, dtypes and devices.

    Looks at no number, so that a GPU is not waited for. Raises TypeError for something else than tensors,
    ValueError for other ones.
    """
    if (
        not isinstance(returned, tuple | list)
        or len(returned) != len(given)
        or not all(isinstance(each, Tensor) for each in returned)
    ):
        raise TypeError(f"{where} must return ({', '.join(names)}); got {_kind(returned)}")
    for new, old, name in zip(returned, given, names, strict=True):
        require_like(new, old, tuple(old.shape), name, where)
    return tuple(returned)


def require_like(new: Tensor, given: Tensor, shape: tuple[int, ...], name: str, where: str) -> None:
    """Raise ValueError unless a tensor has a shape, and the dtype and device of what the hook was given.

    Under autocast, which casts what comes next, any dtype will do.
    """
    if tuple(new.shape) != shape:
        raise ValueError(f"{where} must return {name} of shape {shape}; got {tuple(new.shape)}")
    if new.device != given.device:
        raise ValueError(f"{where} must return {name} on {given.device}; got {new.device}")
    if new.dtype != given.dtype and not torch.is_autocast_enabled(given.device.type):
        raise ValueError(f"{where} must return {name} in {_dtype(given)}; got {_dtype(new)}")


def _kind(returned: Any) -> str:
    """`NoneType`, or `tuple of Tensor, NoneType`."""
    kind = type(returned).__name__
    if isinstance(returned, tuple | list):
        kind += f" of {', '.join(type(each).__name__ for each in returned) or 'nothing'}"
    return kind


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
