"""What becomes of an edit's velocity, seen beside its source's: each a small function of settings.

An operator takes the edit's velocity and what stands beside it (`Beside`, `field.py`), and returns a new one;
`Field.pair` applies them in turn. D is the edit's velocity less the source's.
"""

import torch
from torch import Tensor

from flux.methods.field import Beside, Operator


def gate(limit: float, reference: str = "source") -> Operator:
    """Keep D only where it is large against a reference velocity, channel by channel.

    D becomes 0 where |v_ref| / (|v_ref| + |v_edit - v_ref|) reaches `limit`. reference: "source" for the
    source's velocity, "line" for (z_edit - x) / t, which leads from the edit straight back to the source's
    latent (VeloEdit); there the edit's velocity becomes the reference itself.
    """

    def apply(v_edit: Tensor, beside: Beside) -> Tensor:
        kept = beside.v_source if reference == "source" else (beside.z_edit - beside.clean) / beside.t
        size, change = kept.abs(), (v_edit - kept).abs()
        closed = size >= limit * (size + change)
        return torch.where(closed, kept, v_edit)

    return apply
