"""Every probe against the layer written out plainly, and what they have in common: heads, windows, sets."""

import math

import pytest
import torch
from helpers_models import SMALL_FLOW, small_model

from flux.hooks import Hooks
from flux.math import apply_rope
from flux.probes import PROBES, RECORDS, hooks_of

HEADS = SMALL_FLOW.num_heads
TXT, IMG = 5, 6
DOUBLE, SINGLE = 1, 3  # double.1 and single.1 of 2 + 3 layers


@pytest.fixture(scope="module")
def model():
    return small_model().double()


@pytest.fixture(scope="module")
def inputs():
    draw = torch.Generator().manual_seed(1)
    ids = torch.zeros(4, IMG, 3)
    ids[:, :, 1], ids[:, :, 2] = torch.arange(IMG) // 3, torch.arange(IMG) % 3
    return {
        "img": torch.randn(4, IMG, 64, generator=draw).double(),
        "img_ids": ids,
        "txt": torch.randn(4, TXT, SMALL_FLOW.context_in_dim, generator=draw).double(),
        "txt_ids": torch.zeros(4, TXT, 3),
        "y": torch.randn(4, SMALL_FLOW.vec_in_dim, generator=draw).double(),
        "timesteps": torch.full((4,), 0.7).double(),
        "guidance": torch.full((4,), 3.5).double(),
    }


def plain_attention(q, k, v, pe):
    """softmax(q k / sqrt(D)) v, head by head, from before RoPE: (B, H, L, D)."""
    q, k = apply_rope(q, k, pe)
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def changed_attention(probe, q, k, v, pe, head=None, **options):
    """What attention returns under a probe, written out: (B, H, L, D). Row 0 is source of 2, 1 of 3."""
    plain = plain_attention(q, k, v, pe)
    if probe == "attention":
        other = torch.zeros_like(plain)
    elif probe == "carry":
        new_k, new_v = k.clone(), v.clone()
        for row in (2, 3):
            for here in range(HEADS) if head is None else [head]:
                if options.get("keys", True):
                    new_k[row, here, TXT:] = k[row - 2, here, TXT:]
                if options.get("values", True):
                    new_v[row, here, TXT:] = v[row - 2, here, TXT:]
        return plain_attention(q, new_k, new_v, pe)
    elif probe == "region":
        other, half = plain.clone(), TXT + IMG // 2
        for row in (2, 3):
            mixed_k, mixed_v = k[row : row + 1].clone(), v[row : row + 1].clone()
            mixed_k[:, :, :TXT], mixed_v[:, :, :TXT] = k[row - 2, :, :TXT], v[row - 2, :, :TXT]
            other[row, :, half:] = plain_attention(q[row : row + 1], mixed_k, mixed_v, pe[:1])[0, :, half:]
    elif probe == "mean":
        new_v = v.clone()
        new_v[:, :, TXT:] = v[:, :, TXT:].mean(dim=2, keepdim=True)
        other = plain_attention(q, k, new_v, pe)
    else:
        rotated_q, rotated_k = apply_rope(q, k, pe)
        scores = rotated_q @ rotated_k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        new_v = v.clone()
        if probe == "text":
            scores[:, :, :, :TXT] = -torch.inf
        else:
            new_v[:, :, :TXT] *= options["scale"]
        other = plain.clone()
        other[:, :, TXT:] = (scores.softmax(-1) @ new_v)[:, :, TXT:]
    if head is None:
        return other
    result = plain.clone()
    result[:, head] = other[:, head]
    return result


def by_hand(model, inputs, layer, probe, head=None, **options):
    """The model's velocity with one layer's attention changed: its own blocks, but that attention."""

    def attend(q, k, v, site):
        out = changed_attention(probe, q, k, v, site.pe, head, **options)
        return out.transpose(1, 2).flatten(-2)

    return model(**inputs, hooks=Hooks(attend={layer: attend}))


CASES = [
    ("attention", {}),
    ("carry", {}),
    ("carry", {"keys": False}),
    ("carry", {"values": False}),
    ("region", {}),
    ("text", {}),
    ("text-scale", {"scale": 0.0}),
    ("text-scale", {"scale": 2.5}),
    ("mean", {}),
]


@pytest.mark.parametrize("layer", [DOUBLE, SINGLE])
@pytest.mark.parametrize("head", [None, 1])
@pytest.mark.parametrize(("probe", "options"), CASES)
def test_a_probe_is_the_plain_rule(model, inputs, layer, head, probe, options):
    if probe == "attention" and head is None:
        pytest.skip("it leaves out biases too: see below")
    hooks = hooks_of(probe, (layer,), head=head, sources=2, options=options)
    found, plain = model(**inputs, hooks=hooks), model(**inputs)
    torch.testing.assert_close(
        found, by_hand(model, inputs, layer, probe, head, **options), rtol=1e-8, atol=1e-8
    )
    assert not torch.allclose(found[2:], plain[2:], atol=1e-4)
    if probe in ("carry", "region"):
        torch.testing.assert_close(found[:2], plain[:2])


@pytest.mark.parametrize(("probe", "left_out"), [("skip", True), ("attention", "attention"), ("mlp", "mlp")])
def test_what_is_left_out_is_the_blocks_own_way(model, inputs, probe, left_out):
    found = model(**inputs, hooks=hooks_of(probe, (0, 3)))
    assert torch.equal(found, model(**inputs, hooks=Hooks(skip=dict.fromkeys([0, 3], left_out))))


@pytest.mark.parametrize("row", PROBES, ids=lambda row: row.name)
def test_layers_together_are_both(model, inputs, row):
    options = {"scale": 0.5} if row.name == "text-scale" else {}
    where = {"img_len": IMG - 2} if row.references else {}  # the last two tokens are a reference
    *apart, together = (
        hooks_of(row.name, layers, sources=2, options=options).at(0, 1, **where)
        for layers in ((DOUBLE,), (SINGLE,), (DOUBLE, SINGLE))
    )
    found = model(**inputs, hooks=together)
    assert not any(torch.allclose(found, model(**inputs, hooks=one), atol=1e-6) for one in apart)
    assert torch.equal(found, model(**inputs, hooks=apart[0].joined(apart[1])))


@pytest.mark.parametrize("layer", [DOUBLE, SINGLE])
@pytest.mark.parametrize("head", [None, 1])
def test_a_hidden_reference_is_the_plain_rule(model, inputs, layer, head):
    """Its two tokens are no keys to text and picture, and see all themselves."""
    own = TXT + IMG - 2

    def attend(q, k, v, site):
        plain = plain_attention(q, k, v, site.pe)
        blind = plain_attention(q[:, :, :own], k[:, :, :own], v[:, :, :own], site.pe[:, :, :own])
        changed = torch.cat((blind, plain[:, :, own:]), dim=2)
        if head is not None:
            changed = torch.cat((plain[:, :head], changed[:, head : head + 1], plain[:, head + 1 :]), dim=1)
        return changed.transpose(1, 2).flatten(-2)

    found, expected = (
        model(**inputs, hooks=hooks.at(0, 1, img_len=IMG - 2))
        for hooks in (hooks_of("hide", (layer,), head=head), Hooks(attend={layer: attend}))
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(found, model(**inputs), atol=1e-4)
    # With no reference there is nothing to hide.
    torch.testing.assert_close(model(**inputs, hooks=hooks_of("hide", (layer,))), model(**inputs))


def test_a_window_holds_in_its_steps_alone(model, inputs):
    hooks = hooks_of("skip", (0,), window=(1, 3))
    plain, skipped = model(**inputs), model(**inputs, hooks=Hooks(skip=[0]))
    found = [model(**inputs, hooks=hooks.at(step, 4)) for step in range(4)]
    assert [torch.equal(each, skipped) for each in found] == [False, True, True, False]
    assert torch.equal(found[0], plain) and torch.equal(found[3], plain)
    assert hooks.at(0, 4).at(1, 4).window == (1, 3)


def own(layer: int) -> Hooks:
    return Hooks(skip=[layer])


def wrong(layer: int) -> str:
    return "no hooks"


def test_a_probe_of_ones_own(model, inputs):
    hooks = hooks_of(f"{__name__}:own", (0, 3))
    assert torch.equal(model(**inputs, hooks=hooks), model(**inputs, hooks=Hooks(skip=[0, 3])))
    with pytest.raises(ValueError, match="must return flux.hooks.Hooks; got str"):
        hooks_of(f"{__name__}:wrong", (0,))


def test_two_plans_that_cannot_be_both_are_refused():
    with pytest.raises(ValueError, match="skip: both plans name layer 3"):
        Hooks(skip=[3]).joined(Hooks(skip={3: "mlp"}))


def test_every_probe_has_a_row_that_names_its_function():
    assert len(RECORDS) == len(PROBES)
    for row in PROBES:
        assert isinstance(hooks_of(row.name, (0,), sources=1), Hooks), row.name
