"""Weights that wait on the host: packed into a few runs of memory that is pinned once, and never copied back.

A tensor whose master is on the host is moved by pointing it elsewhere, so that going home costs nothing. What
is written into it while it is away is lost.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flux.placement.lanes import Lane

ALIGNED = 256
"""Bytes at whose multiples tensors begin, as in torch's own allocations."""

MOST_BYTES = 2**30
"""Of a master of many tensors. Memory is pinned in powers of two, of which one of this size wastes little."""


class Master:
    """Tensors packed on the host, in order. They point there, and nowhere else, until `at`.

    around: weights that are made of some of them, and go with them.
    """

    def __init__(self, tensors: Sequence[Tensor], lane: Lane, around: Sequence["ComposedWeight"] = ()):
        self.tensors, self.around = tuple(tensors), tuple(around)
        self.starts = _starts(self.tensors)
        self.bytes = lane.hold(self.starts[-1])
        for tensor, view in zip(self.tensors, self._views(self.bytes), strict=True):
            view.copy_(tensor.data)
        self.home()

    def __len__(self) -> int:
        """How many bytes."""
        return self.starts[-1]

    def at(self, room: Tensor) -> None:
        """Point the tensors into a copy of the bytes."""
        self._point(room)
        for each in self.around:
            each.at(room.device)

    def home(self) -> None:
        """Point the tensors to the host."""
        self._point(self.bytes)
        for each in self.around:
            each.home()

    @property
    def is_home(self) -> bool:
        """Whether all tensors still point to the host: others may have moved them, or put in new numbers."""
        views = self._views(self.bytes)
        return all(
            tensor.data_ptr() == view.data_ptr() for tensor, view in zip(self.tensors, views, strict=True)
        )

    def _point(self, room: Tensor) -> None:
        for tensor, view in zip(self.tensors, self._views(room), strict=True):
            tensor.data = view

    def _views(self, room: Tensor) -> Iterator[Tensor]:
        for tensor, start in zip(self.tensors, self.starts, strict=False):
            flat = room[start : start + tensor.numel() * tensor.element_size()].view(tensor.dtype)
            yield flat.as_strided(tensor.shape, _strides(tensor), flat.storage_offset())


def _starts(tensors: Iterable[Tensor]) -> list[int]:
    """Where each tensor begins, and where all end."""
    starts = [0]
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        starts.append(starts[-1] + math.ceil(size / ALIGNED) * ALIGNED)
    return starts


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """How many bytes a master of these takes."""
    return _starts(tensors)[-1]


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """Its own where it fills what it spans, as transposed weights do; else those of a whole one."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    spans = 1 + sum((size - 1) * stride for size, stride in sizes)
    if spans == tensor.numel():
        return tensor.stride()
    return torch.empty(tensor.shape, device="meta").stride()


@dataclass(frozen=True)
class ComposedWeight:
    """A weight of a class of its own, such as torchao's, that is made of plain tensors: where they point, its
    like is put in its place. host: the weight while they are on the host."""

    owner: nn.Module
    name: str
    host: Tensor

    def at(self, device: torch.device) -> None:
        moved = self._moved(device)
        self._set(nn.Parameter(moved, False) if isinstance(self.host, nn.Parameter) else moved)

    def home(self) -> None:
        self._set(self.host)

    def _moved(self, device: torch.device) -> Tensor:
        return composed(self.host, device)

    def _set(self, tensor: Tensor) -> None:
        kind = self.owner._parameters if self.name in self.owner._parameters else self.owner._buffers
        kind[self.name] = tensor


class LooseTensor(ComposedWeight):
    """One of which nobody knows what it is made of, and which is moved as its kind moves."""

    def _moved(self, device: torch.device) -> Tensor:
        return self.host.to(device)


def composed_weights(*modules: nn.Module) -> list[ComposedWeight]:
    """Those below modules, on the host: what is elsewhere is moved there first."""
    found = []
    for module in modules:
        for owner in module.modules():
            for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
                if tensor is not None and not is_plain(tensor):
                    kind = ComposedWeight if is_traceable_wrapper_subclass(tensor) else LooseTensor
                    if tensor.device.type not in ("cpu", "meta"):
                        kind(owner, name, tensor.detach()).at(torch.device("cpu"))
                    found.append(kind(owner, name, getattr(owner, name)))
    return found


def parts_of(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that a tensor is made of; none where nobody knows."""
    if is_plain(tensor):
        return [tensor]
    if not is_traceable_wrapper_subclass(tensor):
        return []
    return [part for name in tensor.__tensor_flatten__()[0] for part in parts_of(getattr(tensor, name))]


def composed(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the same class, around the very parts of `tensor`, which are on a device by now."""
    if is_plain(tensor):
        return tensor
    names, context = tensor.__tensor_flatten__()
    parts = {name: composed(getattr(tensor, name), device) for name in names}
    if isinstance(context, dict):
        context = {key: _on(value, device) for key, value in context.items()}
    return type(tensor).__tensor_unflatten__(parts, context, tensor.shape, tensor.stride())


def _on(value: Any, device: torch.device) -> Any:
    """What a weight knows of itself; nf4 of torchao where it is, too."""
    return replace(value, device=device) if is_dataclass(value) and hasattr(value, "device") else value


def tensors_of(*modules: nn.Module) -> list[Tensor]:
    """Parameters and buffers as plain runs of numbers, each once, with those that others are made of."""
    every = chain.from_iterable(chain(each.parameters(), each.buffers()) for each in modules)
    return list({id(part): part for tensor in every for part in parts_of(tensor)}.values())


def is_plain(tensor: Tensor) -> bool:
    """Whether it is a run of numbers, and not a kind of its own, as some quantised weights are."""
    return type(tensor.data) is Tensor and tensor.layout is torch.strided


def packed(tensors: Sequence[Tensor], lane: Lane, most: int = MOST_BYTES) -> list[Master]:
    """Masters of no more than `most` bytes, or of one tensor."""
    groups: list[list[Tensor]] = []
    room = -1
    for tensor in tensors:
        size = _starts([tensor])[-1]
        if size > room:
            groups.append([])
            room = most
        groups[-1].append(tensor)
        room -= size
    return [Master(group, lane) for group in groups]
