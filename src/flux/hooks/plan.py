"""The plan of a call: what is left out, injected, attended and changed, layer by layer."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor

from flux.hooks.returned import like_given, place, require_like
from flux.models import LayerName, Layers
from flux.modules.layers import Attend, Half, Inject, Skip


@dataclass(frozen=True)
class Site:
    """Where and when a hook is called.

    The sequence is text, then image tokens. img: the image tokens that are the picture itself, by default
    all; reference tokens (`img_cond_seq`, as of Kontext) follow it.
    pe: the RoPE table of the whole sequence, as `attention` takes it.
    step: of `steps`, from 0. t: its noise level, 1 to 0. substep: 0 at the step's start, 1 at its midpoint.
    """

    layer: int
    txt_len: int
    pe: Tensor
    step: int = 0
    steps: int | None = None
    substep: int = 0
    t: float | None = None
    img: slice | None = None

    def __post_init__(self) -> None:
        if self.img is None:
            object.__setattr__(self, "img", slice(self.txt_len, None))

    def img_len(self, length: int) -> int:
        """How many tokens of a sequence of `length` are the picture itself."""
        return len(range(*self.img.indices(length)))


Injection = Callable[[Tensor, Tensor, Tensor, Site], tuple[Tensor, Tensor, Tensor]]
"""Takes q, k, v, each (B, H, L_txt + L_img, D), after QK-norm and before RoPE, and returns new ones."""

Attention = Callable[[Tensor, Tensor, Tensor, Site], Tensor]
"""Takes q, k, v after every injection and before RoPE, for which `site.pe` is at hand.

Returns what goes into the projection, (B, L_q, H * D). Keys and values may be longer than queries.
"""

Residual = Callable[[Tensor, Tensor, Site], tuple[Tensor, Tensor]]
"""Takes what a layer returns, img (B, L_img, C) and txt (B, L_txt, C), and returns new ones."""

Select = Callable[[Tensor, Tensor, Site], Tensor]
"""Takes the source row's q and k, each (1, H, L, D); returns a weight in [0, 1] per token of the picture."""

Hook = TypeVar("Hook", bound=Callable)


@dataclass(frozen=True)
class Hooks:
    """A plan, in four rows, each by layer: a number, `double.i` / `single.i`, or a group.

    skip: layers to leave out, or a mapping from layer to what is left out of it: "attention", "mlp", or True
    for all (see `flux.modules.layers.Skip`). Hooks of a half that is left out are not called.
    inject: an `Injection`, or a sequence of them, applied in order. attend: one `Attention`.
    after: a `Residual`, or a sequence of them, applied in order; not called where the layer is skipped.

    Layers are checked against the model when the plan first meets it; "double.*", "single.*" and "all" stand
    for each of theirs. What a hook returns must have the shapes, dtype and device of what it was given.
    step, steps, substep, t, img_len: where in a sampling run the plan stands, and how many of the image
    tokens are the picture itself (None: all); `denoise` sets them with `at`.
    window: (start, stop), the steps in which the plan holds, start included, stop not; None for all.
    Plans can be copied and pickled if what they call can.
    Raises TypeError for what cannot be called, ValueError for an unknown half.
    """

    skip: LayerName | Iterable[LayerName] | Mapping[LayerName, Skip] = ()
    inject: Mapping[LayerName, Injection | Iterable[Injection]] = field(default_factory=dict)
    step: int = 0
    steps: int | None = None
    attend: Mapping[LayerName, Attention] = field(default_factory=dict)
    after: Mapping[LayerName, Residual | Iterable[Residual]] = field(default_factory=dict)
    substep: int = 0
    t: float | None = None
    img_len: int | None = None
    window: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("inject", "attend", "after"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} must map layers to callables; got {getattr(self, name)!r}")
        rows = {
            "skip": _skips(self.skip),
            "inject": _chains("inject", self.inject),
            "attend": {name: _called(f"attend[{name!r}]", f) for name, f in dict(self.attend).items()},
            "after": _chains("after", self.after),
        }
        for name, row in rows.items():
            object.__setattr__(self, name, MappingProxyType(row))

    def __reduce__(self) -> tuple[Callable, tuple]:
        values = [getattr(self, each.name) for each in fields(self)]
        return Hooks, tuple(dict(value) if isinstance(value, Mapping) else value for value in values)

    def within(self, start: int, stop: int) -> "Hooks":
        """The same plan for the steps from `start` to before `stop` alone."""
        return replace(self, window=(start, stop))

    def joined(self, other: "Hooks") -> "Hooks":
        """Both plans' rows; injections and residuals of this one come first.

        ValueError for a layer that both skip or attend in.
        """
        for name in ("skip", "attend"):
            if both := getattr(self, name).keys() & getattr(other, name).keys():
                raise ValueError(f"{name}: both plans name layer {min(map(str, both))}")
        chains = {
            name: {
                layer: (*getattr(self, name).get(layer, ()), *getattr(other, name).get(layer, ()))
                for layer in (*getattr(self, name), *getattr(other, name))
            }
            for name in ("inject", "after")
        }
        return replace(
            self, skip={**self.skip, **other.skip}, attend={**self.attend, **other.attend}, **chains
        )

    def resolve(self, layers: Layers) -> "Hooks":
        """The same plan with every layer as its number.

        ValueError for a layer that is not in the model, and for one named twice that cannot be both.
        """
        return replace(
            self,
            skip=_by_number(layers, "skip", self.skip),
            inject=_joined(layers, "inject", self.inject),
            attend=_by_number(layers, "attend", self.attend),
            after=_joined(layers, "after", self.after),
        )

    def at(
        self,
        step: int,
        steps: int,
        *,
        substep: int = 0,
        t: float | None = None,
        img_len: int | None = None,
    ) -> "Hooks":
        """The same plan at step `step` (from 0) of `steps`; outside its window one that does nothing."""
        where = {"step": step, "steps": steps, "substep": substep, "t": t, "img_len": img_len}
        if self.window is not None and not self.window[0] <= step < self.window[1]:
            return Hooks(**where, window=self.window)
        return replace(self, **where)

    def bind(self, layers: Layers, txt_len: int, pe: Tensor) -> "BoundHooks":
        """The plan of one evaluation of a model; ValueError as `resolve`."""
        img = None if self.img_len is None else slice(txt_len, txt_len + self.img_len)
        site = Site(0, txt_len, pe, self.step, self.steps, self.substep, self.t, img)
        return BoundHooks(self.resolve(layers), site)


@dataclass(frozen=True)
class BoundHooks:
    """A plan bound to one evaluation: what the model asks, layer by layer. site: of layer 0."""

    plan: Hooks
    site: Site

    def skips(self, layer: int) -> bool:
        """Whether the whole layer is left out."""
        return self.plan.skip.get(layer) is True

    def of_block(self, layer: int) -> dict[str, Any]:
        """Keyword arguments for the block at `layer`; empty where the plan leaves it alone."""
        plan, site = self.plan, replace(self.site, layer=layer)
        arguments: dict[str, Any] = {}
        if layer in plan.skip:
            arguments["skip"] = plan.skip[layer]
        if plan.inject.get(layer):
            arguments["inject"] = _inject_in_turn(plan.inject[layer], site)
        if layer in plan.attend:
            arguments["attend"] = _attend_at(plan.attend[layer], site)
        return arguments

    def after(self, layer: int, img: Tensor, txt: Tensor) -> tuple[Tensor, Tensor]:
        """What a layer's output, img and txt, becomes."""
        chain = self.plan.after.get(layer, ())
        for index, residual in enumerate(chain):
            returned = residual(img, txt, replace(self.site, layer=layer))
            where = place("after", layer, index, len(chain))
            img, txt = like_given(returned, (img, txt), ("img", "txt"), where)
        return img, txt

    def after_joint(self, layer: int, x: Tensor) -> Tensor:
        """The same for text and image tokens in one sequence."""
        if not self.plan.after.get(layer):
            return x
        txt_len = self.site.txt_len
        img, txt = self.after(layer, x[:, txt_len:], x[:, :txt_len])
        return torch.cat((txt, img), dim=1)


def _inject_in_turn(chain: tuple[Injection, ...], site: Site) -> Inject:
    def inject(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for index, f in enumerate(chain):
            where = place("inject", site.layer, index, len(chain))
            q, k, v = like_given(f(q, k, v, site), (q, k, v), ("q", "k", "v"), where)
        return q, k, v

    return inject


def _attend_at(attention: Attention, site: Site) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, where = attention(q, k, v, site), place("attend", site.layer)
        if not isinstance(out, Tensor):
            raise TypeError(f"{where} must return a tensor (B, L_q, H D); got {type(out).__name__}")
        batch, heads, length, width = q.shape
        require_like(out, q, (batch, length, heads * width), "a tensor (B, L_q, H D)", where)
        return out

    return attend


def _skips(given: LayerName | Iterable[LayerName] | Mapping[LayerName, Skip]) -> dict[LayerName, Skip]:
    if not isinstance(given, int | str | Iterable):
        raise TypeError(f"skip must be layers, or a mapping from layers to what is left out; got {given!r}")
    if not isinstance(given, Mapping):
        given = dict.fromkeys((given,) if isinstance(given, int | str) else given, True)
    for name, what in given.items():
        if what is not True and what not in get_args(Half):
            raise ValueError(f'skip[{name!r}] is {what!r}: choose from "attention", "mlp", or True for all')
    return dict(given)


def _chains(row: str, given: Mapping[LayerName, Hook | Iterable[Hook]]) -> dict[LayerName, tuple[Hook, ...]]:
    chains = {name: (fs,) if callable(fs) else tuple(fs) for name, fs in dict(given).items()}
    for name, chain in chains.items():
        for f in chain:
            _called(f"{row}[{name!r}]", f, " or a sequence of callables")
    return chains


def _called(place: str, f: Hook, more: str = "") -> Hook:
    if not callable(f):
        raise TypeError(f"{place} must be callable{more}; got {f!r}")
    return f


def _numbers(layers: Layers, row: str, name: LayerName) -> tuple[int, ...]:
    """The layers that a name stands for; ValueError, with the plan's row, for a layer that is not there."""
    try:
        return layers.expand(name)
    except ValueError as error:
        raise ValueError(f"{row}[{name!r}]: {error}") from None


def _joined(
    layers: Layers, row: str, chains: Mapping[LayerName, tuple[Hook, ...]]
) -> dict[int, tuple[Hook, ...]]:
    """Chains by a layer's number, those of one layer joined in order."""
    joined: dict[int, tuple[Hook, ...]] = {}
    for name, chain in chains.items():
        for index in _numbers(layers, row, name):
            joined[index] = joined.get(index, ()) + chain
    return joined


def _by_number(layers: Layers, row: str, given: Mapping[LayerName, Any]) -> dict[int, Any]:
    """A row that has one entry for each layer, by the layer's number."""
    numbered: dict[int, Any] = {}
    for name, value in given.items():
        for index in _numbers(layers, row, name):
            if numbered.setdefault(index, value) != value:
                raise ValueError(f"{row} names layer {index} twice, as {numbered[index]!r} and as {value!r}")
    return numbered
