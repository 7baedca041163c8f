"""A source's keys and values, kept where its edits look: a further edit then needs no source beside it.

The source is sampled once, by itself, with `KeepSource` in the layers that its edits name; they take from it
by `CopyKept`, in as many batches and calls as one likes. What an edit takes is what `CopySource` would copy
from row 0 of its batch, beyond how sums of differently shaped batches are rounded.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from flux.hooks.copying import CopySource, select_tokens
from flux.hooks.plan import Select, Site
from flux.math import among
from flux.models import LayerName

KeepingPlace = Literal["auto", "device", "host"]

FREE_SHARE = 0.25
"""Of a device's free memory, which `auto` takes at most."""

Evaluated = tuple[LayerName, int, int, int]
"""A layer as edits name it, step, substep and the layer's number."""


@dataclass(frozen=True, eq=False)
class SourceKeys:
    """What is kept of one layer at one evaluation: keys and values before RoPE, (1, H, L, D), of image tokens
    and of what stands behind them, if that is copied. chosen: the tokens of each selection, (L_img,)."""

    keys: Tensor | None
    values: Tensor | None
    chosen: Mapping[Select, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        return [x for x in (self.keys, self.values, *self.chosen.values()) if x is not None]

    def moved(self, move: Any) -> "SourceKeys":
        keys, values = (None if x is None else move(x) for x in (self.keys, self.values))
        return SourceKeys(keys, values, {select: move(x) for select, x in self.chosen.items()})


class KeptSource:
    """Keys and values of a source, by step, substep and layer.

    place: where they are kept: on the device, on the host (pinned, where the device is a GPU), or, with auto,
    on the device if they take at most `FREE_SHARE` of its free memory. Results do not depend on it.
    wanted: for each layer, how edits will look; what none of them looks at is not kept. of: what the source
    was made from, None before it was made. last: what its sampling ended with, for whoever kept it.
    """

    def __init__(self, place: KeepingPlace = "auto"):
        self.place = place
        self.wanted: dict[LayerName, dict[CopySource, None]] = {}
        self.of: object = None
        self.last: Any = None
        self._held: dict[LayerName, dict[CopySource, None]] = {}
        self._kept: dict[Evaluated, list[SourceKeys]] = {}
        self._ahead: _Ahead | None = None

    def want(self, layer: LayerName, how: CopySource) -> None:
        """Keep what an edit takes that looks so in this layer, from the next run of the source on."""
        self.wanted.setdefault(layer, {})[replace(how, rows=None)] = None

    @property
    def holds_wanted(self) -> bool:
        """Whether the source was made, and all that is wanted of it is here."""
        here = (hows.keys() <= self._held.get(layer, {}).keys() for layer, hows in self.wanted.items())
        return self.of is not None and all(here)

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for calls in self._kept.values() for each in calls for x in each.tensors)

    def begin(self) -> None:
        """Forget what is here: the source is about to be sampled."""
        self.of, self.last, self._ahead = None, None, None
        self._held = {layer: dict(hows) for layer, hows in self.wanted.items()}
        self._kept.clear()

    def hooks(self) -> dict[LayerName, "KeepSource"]:
        """The injections with which the source is to be sampled."""
        return {layer: KeepSource(self, layer, tuple(hows)) for layer, hows in self.wanted.items()}

    def settle(self, device: torch.device, size: int) -> None:
        """Decide where `size` bytes are kept, where that is left open."""
        if self.place == "auto":
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else size / FREE_SHARE
            self.place = "device" if size <= FREE_SHARE * free else "host"

    def put(self, at: Evaluated, source: SourceKeys) -> None:
        """Keep what is there at an evaluation, behind what was kept of it before."""
        kept = source.moved(_to_host if self.place == "host" else torch.clone)
        self._kept.setdefault(at, []).append(kept)

    def take(self, at: Evaluated, call: int, device: torch.device) -> SourceKeys | None:
        """What was kept at an evaluation, on the device. call: how many times it was asked for before, as of
        a step with a negative prompt, whose two texts are evaluated one after the other."""
        calls = self._kept.get(at)
        if not calls:
            return None
        entry = calls[call % len(calls)]
        if device.type != "cuda" or self.place != "host":
            return entry
        if self._ahead is None:
            self._ahead = _Ahead([each for kept in self._kept.values() for each in kept], device)
        return self._ahead.take(entry)


def _to_host(x: Tensor) -> Tensor:
    """A copy in the host's memory that the device need not be waited for: pinned, if it is a GPU."""
    if x.device.type != "cuda":
        return x.to("cpu", copy=True)
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


class _Ahead:
    """Entries on their way from the host to a GPU, each while the one before it is used."""

    def __init__(self, entries: list[SourceKeys], device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.here: tuple[SourceKeys | None, SourceKeys | None] = (None, None)  # an entry, and where it is now
        self.next = dict(zip(map(id, entries), [*entries[1:], None], strict=True))
        self.moving: dict[int, tuple[SourceKeys, torch.cuda.Event]] = {}
        self.stream.wait_stream(torch.cuda.current_stream(device))  # which may still copy them to the host

    def take(self, entry: SourceKeys) -> SourceKeys:
        if self.here[0] is entry:
            return self.here[1]
        moved, done = self.moving.pop(id(entry), None) or self._start(entry)
        self.moving.clear()
        if (following := self.next[id(entry)]) is not None:
            self.moving[id(following)] = self._start(following)
        now = torch.cuda.current_stream(self.device)
        now.wait_event(done)
        for x in moved.tensors:
            x.record_stream(now)
        self.here = entry, moved
        return moved

    def _start(self, entry: SourceKeys) -> tuple[SourceKeys, "torch.cuda.Event"]:
        with torch.cuda.stream(self.stream):
            moved = entry.moved(lambda x: x.to(self.device, non_blocking=True))
            return moved, self.stream.record_event()


@dataclass(frozen=True, eq=False)
class KeepSource:
    """An injection that changes nothing and keeps of row 0 what edits take that look like `hows`."""

    kept: KeptSource
    layer: LayerName
    hows: tuple[CopySource, ...]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        hows = [how for how in self.hows if how.acts_at(site.step)]
        if hows:
            start, picture = site.txt_len, site.txt_len + site.img_len(k.shape[2])
            end = None if any(how.references for how in hows) else picture
            keys = k[:1, :, start:end] if any(how.keys for how in hows) else None
            values = v[:1, :, start:end] if any(how.values for how in hows) else None
            selects = dict.fromkeys(how.select for how in hows if how.select is not None)
            chosen = {select: select_tokens(select, q, k, site) for select in selects}
            self.kept.put(_at(self.layer, site), SourceKeys(keys, values, chosen))
        return q, k, v


@dataclass(frozen=True, eq=False)
class CopyKept:
    """`CopySource` from a source that was kept, in a batch in which it does not stand.

    rows: of the batch, from 0, the edits that look so. Use one object per run.
    Raises ValueError where nothing was kept for a step and layer in which it acts.
    """

    kept: KeptSource
    layer: LayerName
    how: CopySource
    rows: tuple[int, ...]
    _calls: Counter = field(default_factory=Counter, repr=False)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        how = self.how
        if not how.acts_at(site.step):
            return q, k, v
        at = _at(self.layer, site)
        source = self.kept.take(at, self._calls[at], k.device)
        if source is None:
            raise ValueError(
                f"inject[{site.layer}]: of step {site.step} nothing was kept of the source: it must be "
                "sampled with `KeepSource` there"
            )
        self._calls[at] += 1
        weight = how.token_weight(source.chosen.get(how.select), site, k.shape[2], k.device)
        among_rows = among(self.rows, torch.arange(len(k), device=k.device))
        weight = among_rows[:, None, None, None] * weight
        keys, values = (
            _towards(own, theirs, weight, site.txt_len) if copied else own
            for own, theirs, copied in ((k, source.keys, how.keys), (v, source.values, how.values))
        )
        return q, keys, values


def _at(layer: LayerName, site: Site) -> Evaluated:
    return layer, site.step, site.substep, site.layer


def _towards(own: Tensor, theirs: Tensor, weight: Tensor, start: int) -> Tensor:
    """own (B, H, L, D), from token `start` on moved to `theirs`, (1, H, n, D), by weight, (B, 1, L, 1)."""
    end = start + theirs.shape[2]
    part = own[:, :, start:end]
    moved = torch.lerp(part, theirs.expand_as(part), weight[:, :, start:end].to(own.dtype))
    return torch.cat((own[:, :, :start], moved, own[:, :, end:]), dim=2)


def kept_copies(
    kept: KeptSource, edits: Iterable[tuple[int, Iterable[LayerName], CopySource]]
) -> Iterator[tuple[LayerName, CopyKept]]:
    """The injections of edits, each its row of the batch, its layers and how it looks; equals are joined."""
    rows: dict[tuple[LayerName, CopySource], list[int]] = {}
    for row, layers, how in edits:
        for layer in layers:
            rows.setdefault((layer, how), []).append(row)
    for (layer, how), where in rows.items():
        yield layer, CopyKept(kept, layer, how, tuple(where))
