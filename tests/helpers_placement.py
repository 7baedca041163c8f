"""A device that is none: copies of weights on the CPU, and a list of what was fetched when."""

import torch

from flux.placement.lanes import Lane


class FakeLane(Lane):
    """Notes each master that is sent, in order, and how many bytes; `rooms`: sizes of all rooms made."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.sent: list[torch.Tensor] = []
        self.held: list[torch.Tensor] = []
        self.rooms: list[int] = []

    def hold(self, size):
        self.held.append(super().hold(size))
        return self.held[-1]

    def room(self, size):
        self.rooms.append(size)
        return super().room(size).fill_(255)  # no number: whoever computes before it is sent shows it

    def send(self, source, room, after=None):
        self.sent.append(source)
        return super().send(source, room, after)
