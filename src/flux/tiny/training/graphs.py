"""A training step as a CUDA graph. A step of a small model is thousands of small kernels, and launching them
one by one takes far longer than running them."""

import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

from flux.tiny.training.device import mapped

WARM_UPS = 3
"""Steps of a kind that run as usual before one is recorded: libraries set themselves up in the first ones."""

Step = Callable[[Any], Any]


class Recorded:
    """Steps by kind: the same computation on tensors of the same shapes, without a look at their values.

    The first steps of a kind run as usual, then it is recorded once and replayed on each step's tensors.
    What a replay returns is overwritten by the next one. A kind that a GPU cannot record runs as usual.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, int] = {}
        self._replays: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Any] | None] = {}

    def __call__(self, kind: Hashable, step: Step, given: Any) -> Any:
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if seen <= WARM_UPS:
            return step(given)
        if kind not in self._replays:
            self._replays[kind] = _record(step, mapped(Tensor.clone, given, Tensor))
        replay = self._replays[kind]
        if replay is None:
            return step(given)
        graph, own, result = replay
        for mine, new in zip(own, leaves(given), strict=True):
            mine.copy_(new)
        graph.replay()
        return result


def _record(step: Step, own: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any] | None:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = step(own)
    except RuntimeError as error:
        message = str(error).strip().splitlines()[0]
        warnings.warn(f"this GPU does not record a step, which makes it slower: {message}", stacklevel=4)
        return None
    return graph, list(leaves(own)), result


def leaves(value: Any) -> Iterator[Tensor]:
    """The tensors in tuples and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
