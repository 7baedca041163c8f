"""What a piece of work costs: seconds, and the peak of memory where the system tells it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


@dataclass
class Cost:
    """seconds: by the clock. memory: the peak in MiB, the device's or the process's; None where unknown."""

    seconds: float = 0.0
    memory: float | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """A cost that is known behind the block."""
    cost = Cost()
    _begin_peak(device)
    begun = time.perf_counter()
    yield cost
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds = time.perf_counter() - begun
    cost.memory = _peak(device)


def _begin_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # 5 sets the peak of this process back to what it holds now
            (PROCESS / "clear_refs").write_text("5")


def _peak(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError):
        lines = (PROCESS / "status").read_text().splitlines()
        return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), None)
    return None
