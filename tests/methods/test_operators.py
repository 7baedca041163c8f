"""Operators against their formulas written out in float64, and in an edit."""

import pytest
import torch
from helpers_methods import small_task
from torch import Tensor

from flux.methods import defaults
from flux.methods.field import Beside
from flux.methods.flowedit import flowedit
from flux.methods.operators import blend, gate, masked, perpendicular, velo_edit
from flux.methods.tables import OPERATORS, build
from flux.sampling import Evaluation


def beside(t: float = 0.6, rows: int = 2) -> tuple[Tensor, Beside]:
    """An edit's velocity and what stands beside it, random; of 6 tokens."""
    generator = torch.Generator().manual_seed(4)
    v_edit, z_source, z_edit, v_source, clean = torch.randn(5, rows, 6, 64, generator=generator)
    mask = torch.rand(rows, 6, 64, generator=generator)
    return v_edit, Beside(z_source, z_edit, v_source, t, Evaluation(1, 4), clean, mask)


def close(out: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("limit", [0.5, 0.85])
def test_the_gate_is_its_formula(limit):
    v_edit, at = beside()
    v, source = v_edit.double(), at.v_source.double()
    share = source.abs() / (source.abs() + (v - source).abs())
    out = gate(limit)(v_edit, at)
    close(out, torch.where(share >= limit, source, v))
    assert 0.02 < (out == v_edit).float().mean() < 0.98


@pytest.mark.parametrize("limit", [0.5, 0.85])
def test_velo_edits_gate_is_its_formula(limit):
    v_edit, at = beside()
    v, back = v_edit.double(), (at.z_edit.double() - at.clean.double()) / 0.6
    share = back.abs() / (back.abs() + (v - back).abs())
    out = velo_edit(limit)(v_edit, at)
    close(out, torch.where(share >= limit, back, v))
    assert 0.02 < (out == v_edit).float().mean() < 0.98


def test_at_the_picture_itself_velo_edit_has_no_way_back():
    v_edit, at = beside(t=0.0)
    assert torch.equal(velo_edit(0.5)(v_edit, at), v_edit)


def test_the_mask_is_a_factor_of_the_change():
    v_edit, at = beside()
    v, source, mask = v_edit.double(), at.v_source.double(), at.mask.double()
    close(masked()(v_edit, at), source + mask * (v - source))
    close(masked(0.3)(v_edit, at), source + (0.3 + 0.7 * mask) * (v - source))


def test_the_perpendicular_part_is_token_by_token():
    v_edit, at = beside()
    out, half = perpendicular()(v_edit, at), perpendicular(0.5)(v_edit, at)
    for row in range(2):
        for token in range(6):
            change = (v_edit - at.v_source)[row, token].double()
            source = at.v_source[row, token].double()
            along = source * (change @ source) / (source @ source)
            close(out[row, token], source + change - along)
            close(half[row, token], source + change - along / 2)
            assert abs((out[row, token].double() - source) @ source) < 1e-4


def test_a_blend_takes_a_share_of_the_source():
    v_edit, at = beside()
    close(blend(0.3)(v_edit, at), 0.7 * v_edit.double() + 0.3 * at.v_source.double())


def test_an_operator_that_does_nothing_leaves_the_velocity():
    v_edit, at = beside()
    for nothing in (masked(1.0), gate(1.0), perpendicular(0.0), blend(0.0)):
        torch.testing.assert_close(nothing(v_edit, at), v_edit)
    unmasked = Beside(at.z_source, at.z_edit, at.v_source, at.t, at.at, at.clean, None)
    assert masked()(v_edit, unmasked) is v_edit


@pytest.mark.parametrize("record", OPERATORS, ids=lambda record: record.name)
def test_in_an_edit_rows_do_not_see_each_other(record):
    mask = torch.rand(3, 6, 64, generator=torch.Generator().manual_seed(9))

    def edited(rows: list[int]) -> Tensor:
        task = small_task(operators=(build(record),)).with_mask(mask).rows(rows)
        *_, last = flowedit(task, **defaults("flowedit"))
        return last.edit

    together = edited([0, 1, 2])
    torch.testing.assert_close(edited([2, 0]), together[[2, 0]], rtol=1e-4, atol=1e-5)
    *_, plain = flowedit(small_task(), **defaults("flowedit"))
    assert not torch.allclose(together, plain.edit, atol=1e-3)
