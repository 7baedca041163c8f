"""Time and memory: of single calls, and of the phases of something longer."""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch


def milliseconds(call: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> list[float]:
    """How long each of `repeats` calls took: by CUDA events on a GPU, by the clock elsewhere."""
    for _ in range(warmup):
        call()
    if device.type != "cuda":
        return [1000 * seconds(call, device) for _ in range(repeats)]
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize(device)
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) for start, end in pairs]


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long one call took by the clock, until the GPU has done what it was asked for."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's memory is full. CUDA's libraries say so in a plain RuntimeError."""
    said = str(error)
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "ALLOC_FAILED" in said)
    )


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float | None:
    """Most memory held by tensors since `reset_peak`, in 10^9 bytes; only a GPU's allocator can tell."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def reserved_gb(device: torch.device) -> float | None:
    """Most memory that the allocator took from the GPU since `reset_peak`; a cap limits this."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else None


class Phases:
    """Seconds and peaks of the phases that something goes through, one after the other.

    now: the name of the phase that is under way. done: the phases, finished ones and the one that was under
    way when `close` was called.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.now: str | None = None
        self.done: list[dict[str, Any]] = []

    def enter(self, name: str) -> None:
        """End the phase under way and begin another; does nothing in the phase of that name."""
        if name == self.now:
            return
        self.close()
        reset_peak(self.device)
        self.now, self._start = name, time.perf_counter()

    def close(self) -> None:
        """End the phase under way."""
        if self.now is None:
            return
        synchronize(self.device)
        taken = time.perf_counter() - self._start
        peaks = {"peak_gb": peak_gb(self.device), "reserved_gb": reserved_gb(self.device)}
        self.done.append({"phase": self.now, "seconds": taken, **peaks})
        self.now = None
