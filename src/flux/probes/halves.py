"""What is left out of a layer: all of it, its attention or its MLP, or the attention of one head."""

from torch import Tensor

from flux.hooks import Hooks, Site
from flux.math import attention as attend
from flux.probes import Spot


def skip(spot: Spot) -> Hooks:
    """The layer is left out: its residual stream passes by (Stable Flow, arXiv 2411.14430)."""
    return Hooks(skip=[spot.layer])


def attention(spot: Spot) -> Hooks:
    """The attention half is left out; of a head, its output is 0 before the projection."""
    if spot.head is None:
        return Hooks(skip={spot.layer: "attention"})

    def without_head(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        heads = attend(q, k, v, pe=site.pe).unflatten(-1, (q.shape[1], q.shape[3]))
        kept = heads.new_ones(q.shape[1]).index_fill(0, heads.new_tensor([spot.head]).long(), 0)
        return (heads * kept[:, None]).flatten(-2)

    return Hooks(attend={spot.layer: without_head})


def mlp(spot: Spot) -> Hooks:
    """The MLP half is left out; in a single block, that part of the fused output."""
    return Hooks(skip={spot.layer: "mlp"})
