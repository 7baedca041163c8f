"""How bytes come from the host to a device."""

from typing import Any

import torch
from torch import Tensor


class Lane:
    """Copies at once. A device without streams of its own takes this one, and so do tests on a CPU."""

    def __init__(self, device: torch.device):
        self.device = device

    def hold(self, size: int) -> Tensor:
        """So many bytes on the host."""
        return torch.empty(size, dtype=torch.uint8)

    def room(self, size: int) -> Tensor:
        """So many bytes on the device."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def send(self, source: Tensor, room: Tensor, after: Any = None) -> Any:
        """Copy bytes into the beginning of a room, once `after` (of `mark`) is done; what to `wait` for."""
        room[: len(source)].copy_(source)

    def wait(self, sent: Any) -> None:
        """What the device computes from here on comes behind what was sent."""

    def mark(self) -> Any:
        """What the device was asked to compute by now."""


class CudaLane(Lane):
    """Copies from pinned memory on a stream of its own, beside what is computed. The host never waits."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.stream = torch.cuda.Stream(device)

    def hold(self, size: int) -> Tensor:
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # so much cannot be pinned; copies then wait for each other
            return super().hold(size)

    def send(self, source: Tensor, room: Tensor, after: Any = None) -> torch.cuda.Event:
        with torch.cuda.stream(self.stream):
            if after is not None:
                self.stream.wait_event(after)
            room[: len(source)].copy_(source, non_blocking=True)
            return self.stream.record_event()

    def wait(self, sent: torch.cuda.Event) -> None:
        torch.cuda.current_stream(self.device).wait_event(sent)

    def mark(self) -> torch.cuda.Event:
        return torch.cuda.current_stream(self.device).record_event()


def lane_to(device: torch.device) -> Lane | None:
    """The lane to a device; None to the host itself, where nothing has to go."""
    if device.type == "cpu":
        return None
    return CudaLane(device) if device.type == "cuda" else Lane(device)
