"""Work spread over the cores: what is drawn and rendered before a training, as the same whatever their
number."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

Item, Value = TypeVar("Item"), TypeVar("Value")

FEW = 1000
"""Up to so many items a process of its own costs more than it saves."""


def cores() -> int:
    return os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1


def spread(
    function: Callable[[Item], Value], items: Sequence[Item], label: str, *, each: int = 1
) -> Iterator[Value]:
    """The function's values, in order. each: how many of what the label names an item stands for."""
    workers = min(cores(), len(items) * each // FEW, len(items))
    bar = tqdm(total=len(items), desc=label, mininterval=5)
    if workers < 2:
        for item in items:
            yield function(item)
            bar.update()
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for value in pool.map(function, items, chunksize=max(1, min(100, len(items) // (4 * workers)))):
            yield value
            bar.update()


def blocks(count: int, size: int) -> list[tuple[int, int]]:
    """A count in blocks of a size: each one's number and its own count. A larger count's blocks begin with
    these, the last one's end aside."""
    return [(start // size, min(size, count - start)) for start in range(0, count, size)]
