"""What becomes of an edit's velocity, seen beside its source's: each a small function of its settings.

An operator takes the edit's velocity and what stands beside it (`Beside`, `field.py`), and returns a new one;
`Field.pair` applies them in turn. D is the edit's velocity less the source's, elementwise.
"""

import torch
from torch import Tensor

from flux.methods.field import Beside, Operator


def masked(strength: float = 0.0) -> Operator:
    """D times the mask M, or times strength + (1 - strength) M; all of D where there is no mask."""

    def apply(v_edit: Tensor, beside: Beside) -> Tensor:
        if beside.mask is None:
            return v_edit
        weight = strength + (1 - strength) * beside.mask
        return beside.v_source + weight * (v_edit - beside.v_source)

    return apply


def gate(limit: float) -> Operator:
    """D where it is large against the source's velocity: 0 at |v_src| / (|v_src| + |D|) >= limit."""

    def apply(v_edit: Tensor, beside: Beside) -> Tensor:
        return _gated(v_edit, beside.v_source, limit)

    return apply


def velo_edit(limit: float) -> Operator:
    """The gate of VeloEdit: its reference is (z - x) / t, straight back from the edit to the source's latent.

    Where |v_ref| / (|v_ref| + |v - v_ref|) reaches `limit`, the edit's velocity v becomes the reference. At
    t = 0, where some integrators ask, no way leads back any more and v stays.
    """

    def apply(v_edit: Tensor, beside: Beside) -> Tensor:
        if beside.t == 0:
            return v_edit
        return _gated(v_edit, (beside.z_edit - beside.clean) / beside.t, limit)

    return apply


def perpendicular(share: float = 1.0) -> Operator:
    """D without the share of it that is parallel to the source's velocity, token by token (arXiv 2609.06288).

    D less share <D, v_src> / <v_src, v_src> v_src, <,> over a token's 64 channels. The paper's further gate
    against the change's running mean is left out: its constants are not published.
    """

    def apply(v_edit: Tensor, beside: Beside) -> Tensor:
        v, change = beside.v_source, v_edit - beside.v_source
        along = (change * v).sum(-1, keepdim=True) / (v * v).sum(-1, keepdim=True).clamp(min=1e-12)
        return v_edit - share * along * v

    return apply


def blend(share: float) -> Operator:
    """(1 - share) D: `share` of the edit's velocity becomes the source's."""

    def apply(v_edit: Tensor, beside: Beside) -> Tensor:
        return torch.lerp(v_edit, beside.v_source, share)

    return apply


def _gated(v: Tensor, reference: Tensor, limit: float) -> Tensor:
    size, change = reference.abs(), (v - reference).abs()
    return torch.where(size >= limit * (size + change), reference, v)
