"""Bytes that are alive at a time, counted operation by operation, on whatever device: `meta` too."""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While it is entered, counts the memory of every tensor that an operation makes; `most` is the peak.

    What was there before does not count, nor what a kernel takes for itself while it runs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        for storage in _storages((args, kwargs)):
            self._note(storage, 0)
        result = function(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._note(storage, storage.nbytes())
        return result

    def forget_peak(self) -> None:
        """Look for the peak from here on."""
        self.most = self.now

    def leave_out(self, tensor: Tensor) -> None:
        """Do not count the memory of a tensor, which is on the host."""
        self._note(tensor.untyped_storage(), 0)

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (each.untyped_storage() for each in tree_leaves(values) if isinstance(each, Tensor))
