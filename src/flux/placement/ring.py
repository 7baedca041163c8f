"""A few rooms on a device through which masters pass, two ahead of the one that is at work."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flux.placement.lanes import Lane
from flux.placement.masters import Master
from flux.placement.shares import AHEAD


@dataclass
class Room:
    """Bytes on the device. free: when what was computed in it is done. sent: when what comes is there."""

    bytes: Tensor
    free: Any
    sent: Any = None


class Ring:
    """Rooms for masters that are at work one after the other, in an order that is told beforehand."""

    def __init__(self, lane: Lane, masters: Sequence[Master]):
        size = max(map(len, masters), default=0)
        self.lane = lane
        self.empty = [Room(lane.room(size), lane.mark()) for _ in range(min(1 + AHEAD, len(masters)))]
        self.coming: deque[Master] = deque()
        self.there: dict[Master, Room] = {}

    def start(self, order: Iterable[Master]) -> None:
        """Begin with the first of these."""
        for master in list(self.there):
            self._clear(master)
        self.coming = deque(order)
        self._fill()

    def enter(self, master: Master) -> None:
        """Wait for a master, and point its tensors to the device."""
        if master not in self.there:  # out of turn
            if master in self.coming:
                self.coming.remove(master)
            if not self.empty:
                last = list(self.there)[-1]
                self._clear(last)
                self.coming.appendleft(last)
            self._send(master)
        room = self.there[master]
        self.lane.wait(room.sent)
        master.at(room.bytes)

    def leave(self, master: Master) -> None:
        """Point its tensors to the host; its room takes the next."""
        if master in self.there:
            self._clear(master)
            self._fill()

    def close(self) -> None:
        """Everything is home, and nothing on its way."""
        self.start(())
        self.empty = []

    def _fill(self) -> None:
        while self.coming and self.empty:
            self._send(self.coming.popleft())

    def _send(self, master: Master) -> None:
        room = self.empty.pop(0)
        room.sent = self.lane.send(master.bytes, room.bytes, room.free)
        self.there[master] = room

    def _clear(self, master: Master) -> None:
        room = self.there.pop(master)
        master.home()
        self.lane.wait(room.sent)  # so that a copy which nobody waited for is done before the memory goes
        room.free = self.lane.mark()
        self.empty.append(room)
