"""The part that is at work on the device, the others where `modes.py` says that they wait."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from flux.model import Flux, layers_of
from flux.placement.lanes import Lane, lane_to
from flux.placement.masters import (
    ComposedWeight,
    Master,
    composed_weights,
    packed,
    parts_of,
    tensors_of,
)
from flux.placement.modes import (
    AUTO,
    MODULATION,
    STREAM,
    Offload,
    is_stream,
    kind_of,
    offload_key,
    staying_blocks,
)
from flux.placement.ring import Ring
from flux.placement.shares import blocks_of, shares_of, staying_of
from flux.placement.tables import ModulationTables, WeightsInTurn


@contextmanager
def at_work(
    device: torch.device, offload: Offload, *modules: nn.Module, times: Iterable[float] = ()
) -> Iterator[None]:
    """Modules on the device; with `offload` they wait on the host before and after.

    offload: see `flux.placement.modes`; `auto` is what was picked when the model was loaded. times: those at
    which a flow model will be asked, as far as they are known; it may be asked at others.
    Raises ValueError for a way that does not exist.
    """
    turns = [Turn(module, device, way_of(module, offload), times) for module in modules]
    try:
        for turn in turns:
            turn.begin()
        yield
    finally:
        for turn in turns:
            turn.end()
        if device.type == "cuda" and any(turn.way for turn in turns):
            torch.cuda.empty_cache()


_PICKED: "WeakKeyDictionary[nn.Module, Offload]" = WeakKeyDictionary()


def remember(way: Offload, *modules: nn.Module) -> None:
    """What `auto` means for modules from now on."""
    for module in modules:
        _PICKED[module] = offload_key(way)


def way_of(module: nn.Module, offload: Offload) -> Offload:
    """How a module waits; ValueError for a way that does not exist."""
    key = offload_key(offload)
    return _PICKED.get(module, True) if key == AUTO else key


class Turn:
    """A module's time on the device. Ending it twice does nothing."""

    def __init__(self, module: nn.Module, device: torch.device, way: Offload, times: Iterable[float]):
        self.module, self.device, self.way, self.times = module, device, way, times
        self.lane = lane_to(device) if way else None
        self.kept: KeptWeights | None = None
        self.passing: dict[nn.Module, Master] = {}
        self.ring: Ring | None = None
        self.tables: ModulationTables | None = None
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.began = False

    def begin(self) -> None:
        self.began = True
        if self.lane is None:
            self.module.to(self.device)
        elif not self._is_there():
            self._bring(self.lane)
        if isinstance(self.module, Flux) and kind_of(self.way) in (MODULATION, STREAM):
            waiting = None if self.kept is None else WeightsInTurn(self.lane, self.kept.modulations)
            self.tables = ModulationTables(self.module, self.times, waiting).__enter__()

    def end(self) -> None:
        if not self.began:
            return
        self.began = False
        if self.tables is not None:
            self.tables.__exit__()
        for hook in self.hooks:
            hook.remove()
        if self.ring is not None:
            self.ring.close()
        self.tables, self.ring, self.hooks, self.passing = None, None, [], {}
        if self.kept is not None:
            self.kept.home()
        elif self.lane is not None:
            kept_weights(self.module, self.lane, kind_of(self.way))
        elif self.way:
            self.module.cpu()

    def _is_there(self) -> bool:
        """Whether it was loaded onto the device, whole; it is packed when it leaves."""
        tensors = tensors_of(self.module)
        return self.way is True and bool(tensors) and all(is_on(each, self.device) for each in tensors)

    def _bring(self, lane: Lane) -> None:
        """What is to be on the device all the time; blocks that do not fit pass through."""
        self.kept = kept_weights(self.module, lane, kind_of(self.way))
        count = staying_blocks(self.way) if is_stream(self.way) else 0
        staying = staying_of(tuple(self.kept.blocks), count)
        self.kept.bring(lane, self.device, staying)
        self.passing = {block: each for block, each in self.kept.blocks.items() if block not in staying}
        if self.passing:
            self.ring = Ring(lane, list(self.passing.values()))
            self.hooks.append(self.module.register_forward_pre_hook(self._start, with_kwargs=True))
            for block, master in self.passing.items():
                self.hooks += _passing(block, master, self.ring)

    def _start(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """An evaluation begins: the first of the blocks that it will not leave out are fetched."""
        masters, plan = self.passing, kwargs.get("hooks")
        skipped = {} if plan is None else plan.resolve(layers_of(module)).skip
        blocks = enumerate(blocks_of(module))
        self.ring.start(masters[each] for i, each in blocks if skipped.get(i) is not True and each in masters)


def is_on(tensor: Tensor, device: torch.device) -> bool:
    """Whether a tensor is on a device that needs no number, or on that of the number."""
    return tensor.device.type == device.type != "cpu" and device.index in (None, tensor.device.index)


def _passing(block: nn.Module, master: Master, ring: Ring) -> list[torch.utils.hooks.RemovableHandle]:
    """A block's weights come before it and go behind it."""
    return [
        block.register_forward_pre_hook(lambda *_: ring.enter(master)),
        block.register_forward_hook(lambda *_: ring.leave(master), always_call=True),
    ]


@dataclass(eq=False)
class KeptWeights:
    """A module's weights as they wait on the host.

    way: for which they were packed, see `modes.kind_of`. loose: of a class of their own, but of no block.
    """

    way: Offload
    blocks: dict[nn.Module, Master]
    modulations: dict[nn.Module, Master]
    rest: list[Master]
    loose: list[ComposedWeight]

    @classmethod
    def of(cls, module: nn.Module, lane: Lane, way: Offload) -> "KeptWeights":
        every = composed_weights(module)
        shares = shares_of(module, modulation=way in (MODULATION, STREAM), stream=way == STREAM)
        around = {id(part): each for each in every for part in parts_of(each.host)}

        def masters(groups: dict[nn.Module, list[Tensor]]) -> dict[nn.Module, Master]:
            """What is made of a group's tensors goes with them."""
            made = {}
            for owner, group in groups.items():
                if group:
                    goes = {id(each): each for part in group if (each := around.get(id(part))) is not None}
                    made[owner] = Master(group, lane, tuple(goes.values()))
            return made

        blocks, modulations = masters(shares.blocks), masters(shares.modulations)
        gone = {id(each) for master in (*blocks.values(), *modulations.values()) for each in master.around}
        loose = [each for each in every if id(each) not in gone]
        return cls(way, blocks, modulations, packed(shares.rest, lane), loose)

    @property
    def masters(self) -> list[Master]:
        return [*self.blocks.values(), *self.modulations.values(), *self.rest]

    @property
    def composed(self) -> list[ComposedWeight]:
        return [*self.loose, *(each for master in self.masters for each in master.around)]

    def holds(self, module: nn.Module) -> bool:
        """Whether it keeps all that a module has now, and that is still where it waits."""
        own = [tensor for master in self.masters for tensor in master.tensors]
        own += [each.host for each in self.composed]
        now = tensors_of(module) + [each.host for each in composed_weights(module)]
        return {*map(id, own)} == {*map(id, now)} and all(master.is_home for master in self.masters)

    def bring(self, lane: Lane, device: torch.device, staying: Iterable[nn.Module]) -> None:
        """The rest and some blocks onto the device, to stay until `home`."""
        for master in (*self.rest, *(self.blocks[block] for block in staying)):
            room = lane.room(len(master))
            sent = lane.send(master.bytes, room, lane.mark())
            master.at(room)
            lane.wait(sent)
        for each in self.loose:
            each.at(device)

    def home(self) -> None:
        """Everything points to the host; nothing is copied."""
        for each in (*self.masters, *self.loose):
            each.home()


_KEPT: "WeakKeyDictionary[nn.Module, KeptWeights]" = WeakKeyDictionary()


def kept_weights(module: nn.Module, lane: Lane, way: Offload) -> KeptWeights:
    """Its weights on the host, packed now if they are not, or have changed since."""
    kept = _KEPT.get(module)
    if kept is None or kept.way != way or not kept.holds(module):
        _KEPT.pop(module, None)
        kept = _KEPT[module] = KeptWeights.of(module, lane, way)
    return kept
