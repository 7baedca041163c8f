"""Modulations of a flow model, evaluated once for all times of a run.

They depend on timestep, guidance and pooled text alone, and take more than a quarter of FLUX's weights.
Entries are what the layers give for the batch that asks, at the very times at which it does, so that nothing
changes by a bit. A time that was not told of is evaluated when it comes.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flux.integrators import Evaluation, Integrator
from flux.model import Flux, steering_vector
from flux.modules.dtypes import cast_for
from flux.placement.lanes import Lane
from flux.placement.masters import Master
from flux.placement.ring import Ring
from flux.placement.shares import modulated

MOST_TIMES = 64
"""Times that are evaluated together: of 1024 x 1024 pixels, 2.1 MB each and row in bfloat16."""

MOST_BATCHES = 4
"""Batches, each with its guidance and its texts, whose entries are kept."""

Entry = Mapping[nn.Module, tuple[Any, ...]]
"""What each block and the last layer are told in the place of the vector, see `flux.modules.layers.Vec`."""


class ModulationTables:
    """While it is entered, the blocks of a flow model take their modulations from tables.

    times: those that will be asked for, as far as they are known. weights: those of the modulation layers,
    which wait elsewhere; None where they are at hand.
    """

    def __init__(self, model: Flux, times: Iterable[float], weights: "WeightsInTurn | None" = None):
        self.model, self.times = model, tuple(dict.fromkeys(times))
        self.owners = modulated(model)
        self.weights = weights
        self.batches: dict[tuple[Any, ...], dict[bytes, Entry]] = {}
        self.asked: tuple[Tensor, Tensor, Tensor | None] | None = None
        self.entry: Entry | None = None
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "ModulationTables":
        self._hooks = [
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.model.register_forward_hook(self._finish, always_call=True),
        ]
        for owner in self.owners:
            self._hooks.append(owner.register_forward_pre_hook(self._replace, with_kwargs=True))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.batches, self.asked, self.entry = [], {}, None, None

    def _begin(self, model: Flux, args: tuple, kwargs: dict[str, Any]) -> None:
        given = inspect.signature(Flux.forward).bind(model, *args, **kwargs).arguments
        self.asked = given["timesteps"], given["y"], given.get("guidance")
        self.entry = None

    def _finish(self, *_: Any) -> None:
        self.asked = self.entry = None

    def _replace(self, owner: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        if "vec" in kwargs:
            return args, kwargs | {"vec": self._of(owner, kwargs["vec"])}
        place = 2 if len(self.owners[owner]) == 2 else 1  # behind img and txt, or x
        return (*args[:place], self._of(owner, args[place]), *args[place + 1 :]), kwargs

    def _of(self, owner: nn.Module, vec: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(vec, tuple):
            return vec
        if self.asked is None:  # a client calls blocks by itself
            return self._given((owner,), {b"": vec})[b""][owner]
        if self.entry is None:
            self.entry = self._entry(vec)
        return self.entry[owner]

    def _entry(self, vec: Tensor) -> Entry:
        """The entry of this evaluation. vec: as the first block is given it, (B, C)."""
        timesteps, y, guidance = self.asked
        batch = (tuple(y.shape), vec.dtype, _bytes(y), _bytes(guidance))
        time = _bytes(timesteps)
        known = self.batches.pop(batch, {})
        if time not in known:
            known = self._evaluated(known, vec)
        self.batches[batch] = known
        while len(self.batches) > MOST_BATCHES:
            del self.batches[next(iter(self.batches))]
        return known[time]

    @torch.no_grad()
    def _evaluated(self, known: dict[bytes, Entry], vec: Tensor) -> dict[bytes, Entry]:
        """Entries of the time that is asked for and of those that will be."""
        timesteps, y, guidance = self.asked
        vectors = {_bytes(timesteps): vec}
        for t in self.times:
            if len(vectors) == MOST_TIMES:
                break
            key = _bytes(torch.full(timesteps.shape, t, dtype=timesteps.dtype))
            if key not in known and key not in vectors:
                at = torch.full_like(timesteps, t)
                vectors[key] = steering_vector(self.model, at, y, guidance).to(vec.dtype)
        found = self._given(self.owners, vectors)
        whole = len(known) + len(found) <= MOST_TIMES
        return {**(known if whole else {}), **found}

    def _given(self, owners: Iterable[nn.Module], vectors: Mapping[bytes, Tensor]) -> dict[bytes, Entry]:
        """What the modulation layers of owners give for each vector, (B, C)."""
        found: dict[bytes, dict] = {key: {} for key in vectors}
        for owner in owners if self.weights is None else self.weights.of(owners):
            layers = self.owners[owner]
            for key, each in vectors.items():
                each = cast_for(each, owner) if owner is self.model.final_layer else each
                found[key][owner] = tuple(layer(each) for layer in layers)
        return found


class WeightsInTurn:
    """Masters that are at hand one after the other. The rooms are there only as long."""

    def __init__(self, lane: Lane, masters: Mapping[nn.Module, Master]):
        self.lane, self.masters = lane, masters

    def of(self, owners: Iterable[nn.Module]) -> Iterator[nn.Module]:
        """The owners, one by one, each with its weights at hand; those without a master have theirs."""
        owners = list(owners)
        waiting = [self.masters[owner] for owner in owners if owner in self.masters]
        ring = Ring(self.lane, waiting)
        ring.start(waiting)
        try:
            for owner in owners:
                if (master := self.masters.get(owner)) is not None:
                    ring.enter(master)
                yield owner
                if master is not None:
                    ring.leave(master)
        finally:
            ring.close()


def times_asked(integrate: Integrator, times: Sequence[float]) -> tuple[float, ...]:
    """The times at which an integrator asks for velocities, each once, by following one that is zero."""
    asked: dict[float, None] = {}

    def still(x: Tensor, t: float, at: Evaluation) -> Tensor:
        asked[t] = None
        return x

    for _ in integrate(still, torch.zeros(1, 1, 1), times):
        pass
    return tuple(asked)


def _bytes(x: Tensor | None) -> bytes:
    """The numbers themselves, on the host."""
    return b"" if x is None else x.detach().to("cpu", torch.float64).numpy().tobytes()
