"""A probe of our own, to try a claim of others with: a layer that does not know where its tokens stand."""

from torch import Tensor
from torch.nn import functional as F

from flux.hooks import Hooks, Site


def position(layer: int) -> Hooks:
    """Attention without RoPE: all tokens stand at one place (FreeFlux, arXiv 2503.16153, scales it)."""

    def attend(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)

    return Hooks(attend={layer: attend})
