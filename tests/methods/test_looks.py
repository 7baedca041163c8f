"""Where edits look at their sources, against the same written out token by token in float64."""

import math

import pytest
import torch
from helpers_methods import small_task
from torch import Tensor

from flux.hooks import AboveThreshold, CopySource, Hooks, LookAtSource, Site, TopRatio
from flux.hooks.attention import received_attention
from flux.methods import defaults
from flux.methods.field import Field
from flux.methods.flowedit import flowedit
from flux.methods.looks import Role, constant, cosine, linear, listed, look_at_source
from flux.methods.tables import CURVES, build
from flux.models import Layers
from flux.sampling import Evaluation, image_ids

LAYERS = Layers(4, 8)
OF = (0, 1, 0, 0, 1)  # two sources and three edits
TEXT = 2


def projections() -> tuple[Tensor, Tensor, Tensor, Site]:
    """q, k, v of five rows: two tokens of text and six of the picture."""
    q, k, v = torch.randn(3, 5, 2, TEXT + 6, 4, generator=torch.Generator().manual_seed(1))
    eye = torch.eye(2).expand(1, 1, TEXT + 6, 2, 2, 2)
    return q, k, v, Site(3, TEXT, eye, step=2, steps=8)


def by_hand(x: Tensor, weight: Tensor) -> Tensor:
    """Token by token; weight (5, 6)."""
    out = x.double().clone()
    for row, source in enumerate(OF):
        if row == source:
            continue
        for token in range(6):
            at, share = TEXT + token, float(weight[row, token])
            out[row, :, at] = (1 - share) * x[row, :, at].double() + share * x[source, :, at].double()
    return out


def close(out: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


def test_tokens_take_what_the_weight_and_the_strength_say():
    q, k, v, site = projections()
    weight = torch.rand(5, 6, generator=torch.Generator().manual_seed(2))
    look = LookAtSource(OF, weight, strength=lambda step, steps: step / steps)
    new_q, new_k, new_v = look(q, k, v, site)
    assert new_q is q
    close(new_k, by_hand(k, weight / 4))
    close(new_v, by_hand(v, weight / 4))


@pytest.mark.parametrize("select", [TopRatio(0.5), AboveThreshold(1.0)])
def test_each_row_takes_the_tokens_selected_in_its_own_source(select):
    q, k, v, site = projections()
    weight = torch.zeros(5, 6)
    for row, source in enumerate(OF):
        received = received_attention(q[source : source + 1], k[source : source + 1], site)[0]
        if isinstance(select, TopRatio):
            weight[row, received.argsort(descending=True)[:3]] = 1
        else:
            weight[row] = (received * 8 >= 1).float()
    assert not torch.equal(weight[2], weight[4])
    _, new_k, new_v = LookAtSource(OF, values=False, select=select)(q, k, v, site)
    close(new_k, by_hand(k, weight))
    assert new_v is v


@pytest.mark.parametrize("side", ["everywhere", "outside", "inside"])
def test_a_role_looks_on_its_side_of_the_mask(side):
    q, k, v, site = projections()
    mask = torch.rand(3, 6, 64, generator=torch.Generator().manual_seed(3))
    hooks = look_at_source([Role((3,), side, keys=False, strength=0.5)], LAYERS)(OF[2:], 2, mask)
    inside = torch.cat((torch.zeros(2, 6), mask.mean(dim=-1)))
    weight = {"everywhere": torch.ones(5, 6), "outside": 1 - inside, "inside": inside}[side]
    (injection,) = hooks.inject[3]
    _, new_k, new_v = injection(q, k, v, site)
    assert new_k is k
    close(new_v, by_hand(v, weight / 2))


def test_without_a_mask_all_is_inside():
    for side, layers in (("everywhere", {3}), ("inside", {3}), ("outside", set()), ("off", set())):
        assert set(look_at_source([Role((3,), side)], LAYERS)(OF[2:], 2, None).inject) == layers


def test_the_last_role_that_names_a_layer_counts():
    roles = [Role(("all",), "outside"), Role(("single.*",)), Role((5, "double.0"), "off")]
    hooks = look_at_source(roles, LAYERS)(OF[2:], 2, torch.ones(3, 6, 64))
    assert set(hooks.inject) == {1, 2, 3, 4, *range(6, 12)}
    assert hooks.inject[1][0].weight is not None
    assert hooks.inject[4][0].weight is None


def test_curves_are_their_formulas():
    assert constant(0.3)(0.7) == 0.3
    assert linear(1, 0.5)(0.25) == pytest.approx(0.875)
    assert cosine(1, 0)(0.25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    values = [0.9, 0.1, 0.5, 0.7, 0.2, 0.3]
    assert [listed(values)(i / 5) for i in range(6)] == pytest.approx(values)
    assert listed([1, 0.5, 0])(0.25) == pytest.approx(0.75)
    assert listed([0.4])(0.6) == 0.4
    assert [build(record)(0.0) for record in CURVES] == [1, 1, 1]


def test_a_strength_counts_within_its_window():
    role = Role((0,), strength=linear(1, 0), steps=(2, 5))
    assert [role.strength_at(step, 8) for step in range(8)] == [0, 0, 1, 0.5, 0, 0, 0, 0]
    assert [Role((0,), strength=linear(1, 0)).strength_at(step, 3) for step in range(3)] == [1, 0.5, 0]
    assert [Role((0,), steps=(1, 2)).strength_at(step, 3) for step in range(3)] == [0, 1, 0]


def test_roles_are_checked():
    for wrong, words in (
        ({"side": "above"}, "everywhere, outside, inside, off"),
        ({"strength": 2}, "between 0 and 1; got 2"),
        ({"steps": (3, 1)}, r"got \(3, 1\)"),
    ):
        with pytest.raises(ValueError, match=words):
            Role((0,), **wrong)
    with pytest.raises(ValueError, match="layer 12 does not exist"):
        look_at_source([Role((12,))], LAYERS)


def beside_copies(field: Field, z_source: Tensor, z_edit: Tensor, pair: int, hooks: Hooks) -> Tensor:
    """The velocity of one edit with its source in row 0, as Stable Flow injects."""
    source = field.of[pair]
    txt = torch.cat((field.sources.txt[source : source + 1], field.edits.txt[pair : pair + 1]))
    vec = torch.cat((field.sources.vec[source : source + 1], field.edits.vec[pair : pair + 1]))
    with torch.no_grad():
        return field.flow(
            img=torch.stack((z_source[source], z_edit[pair])),
            img_ids=image_ids(*field.size).expand(2, -1, -1),
            txt=txt,
            txt_ids=torch.zeros(2, txt.shape[1], 3),
            y=vec,
            timesteps=torch.full((2,), 0.5),
            guidance=torch.tensor([1.0, 3.0]),
            hooks=hooks,
        )[1]


def test_everywhere_is_what_stable_flow_injects():
    task = small_task(look=look_at_source([Role((1, 11))], LAYERS))
    z_source, z_edit = task.noise(0), task.field.of_edits(task.noise(1))
    _, v_edit = task.field.pair(z_source, z_edit, 0.5, Evaluation(0, 4), (1.0, 3.0))
    for pair in range(3):
        hooks = Hooks(inject=dict.fromkeys((1, 11), CopySource()))
        expected = beside_copies(task.field, z_source, z_edit, pair, hooks)
        torch.testing.assert_close(v_edit[pair], expected, rtol=1e-4, atol=1e-5)
        plain = beside_copies(task.field, z_source, z_edit, pair, Hooks())
        assert not torch.allclose(plain, expected, atol=1e-3)


@pytest.mark.parametrize(
    "roles",
    [
        [Role(("all",), "outside", strength=cosine(1, 0)), Role((1, 11), select=TopRatio(0.5))],
        [Role(("double.*",), "inside", keys=False, select=AboveThreshold(1))],
    ],
)
def test_in_an_edit_rows_do_not_see_each_other(roles):
    mask = torch.rand(3, 6, 64, generator=torch.Generator().manual_seed(9))
    task = small_task(look=look_at_source(roles, LAYERS)).with_mask(mask)
    *_, together = flowedit(task, **defaults("flowedit"))
    *_, alone = flowedit(task.rows([2, 0]), **defaults("flowedit"))
    torch.testing.assert_close(alone.edit, together.edit[[2, 0]], rtol=1e-4, atol=1e-5)
    *_, plain = flowedit(small_task(), **defaults("flowedit"))
    assert not torch.allclose(together.edit, plain.edit, atol=1e-3)
