"""A plan for a batch that stands there twice, such as with one text and with another: each half by itself."""

from dataclasses import replace

import torch
from torch import Tensor

from flux.hooks.plan import Attention, Hooks, Injection, Residual, Site


def in_halves(plan: Hooks) -> Hooks:
    """The same plan, each of whose hooks is called with either half of the batch, the first one first."""
    return replace(
        plan,
        inject={layer: tuple(map(_injected, chain)) for layer, chain in plan.inject.items()},
        attend={layer: _attended(each) for layer, each in plan.attend.items()},
        after={layer: tuple(map(_changed, chain)) for layer, chain in plan.after.items()},
    )


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[: len(x) // 2], x[len(x) // 2 :]


def _sites(site: Site) -> tuple[Site, Site]:
    if len(site.pe) == 1:
        return site, site
    return tuple(replace(site, pe=pe) for pe in _halves(site.pe))


def _injected(inject: Injection) -> Injection:
    def both(q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        first, second = zip(*map(_halves, (q, k, v)), strict=True)
        parts = [inject(*half, at) for half, at in zip((first, second), _sites(site), strict=True)]
        return tuple(torch.cat(pair) for pair in zip(*parts, strict=True))

    return both


def _attended(attend: Attention) -> Attention:
    def both(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        first, second = zip(*map(_halves, (q, k, v)), strict=True)
        return torch.cat([attend(*half, at) for half, at in zip((first, second), _sites(site), strict=True)])

    return both


def _changed(after: Residual) -> Residual:
    def both(img: Tensor, txt: Tensor, site: Site) -> tuple[Tensor, Tensor]:
        first, second = zip(*map(_halves, (img, txt)), strict=True)
        parts = [after(*half, at) for half, at in zip((first, second), _sites(site), strict=True)]
        return tuple(torch.cat(pair) for pair in zip(*parts, strict=True))

    return both
