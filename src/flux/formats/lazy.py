"""Mappings from key to tensor whose tensors are made when asked for."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from torch import Tensor

Tensors = Mapping[str, Tensor]


class Lazy(Mapping[str, Tensor]):
    """A mapping whose tensors are made when asked for, and not kept."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]):
        self._makers = dict(makers)

    def __getitem__(self, key: str) -> Tensor:
        return self._makers[key]()

    def __contains__(self, key: object) -> bool:
        return key in self._makers  # Mapping's own would make the tensor.

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def renamed(source: Tensors, names: Mapping[str, str]) -> Tensors:
    """The tensors of `names` (new name to key), under their new names."""
    return Lazy({name: partial(source.__getitem__, key) for name, key in names.items()})
