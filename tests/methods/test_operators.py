"""Operators against their formulas written out in float64."""

import pytest
import torch

from flux.methods.field import Beside
from flux.methods.operators import gate
from flux.sampling import Evaluation


def beside(t: float = 0.6, rows: int = 2) -> tuple[torch.Tensor, Beside]:
    """An edit's velocity and what stands beside it, random; of 6 tokens."""
    generator = torch.Generator().manual_seed(4)
    v_edit, z_source, z_edit, v_source, clean = torch.randn(5, rows, 6, 64, generator=generator)
    mask = torch.rand(rows, 6, 64, generator=generator)
    return v_edit, Beside(z_source, z_edit, v_source, t, Evaluation(1, 4), clean, mask)


@pytest.mark.parametrize("reference", ["source", "line"])
@pytest.mark.parametrize("limit", [0.0, 0.5, 0.85, 1.0])
def test_the_gate_is_its_formula(limit, reference):
    v_edit, at = beside()
    out = gate(limit, reference)(v_edit, at)
    kept = at.v_source.double() if reference == "source" else (at.z_edit - at.clean).double() / at.t
    v = v_edit.double()
    share = kept.abs() / (kept.abs() + (v - kept).abs())
    expected = torch.where(share >= limit, kept, v)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    if limit in (0.5, 0.85):
        assert 0.02 < (out == v_edit).float().mean() < 0.98
