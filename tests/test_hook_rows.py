"""The rows of a plan besides whole skips and injections, reference tokens, and parts of a client's own."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flux.hooks import AttentionMaps, CopySource, Hooks, Mask, Site, TopRatio
from flux.math import apply_rope, attention
from flux.model import steering_vector
from flux.sampling import Evaluation, denoise, euler, midpoint, velocity

DTYPES = (torch.float32, torch.bfloat16)
LAYERS = (0, 1, 2, 3, 4)
"""Of the small model: 0 and 1 are double blocks, the others single ones."""


def plain_attention(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
    return attention(q, k, v, pe=site.pe)


def same_residual(img: Tensor, txt: Tensor, site: Site) -> tuple[Tensor, Tensor]:
    return img, txt


class Keep:
    """A residual hook that changes nothing and keeps what it sees."""

    def __init__(self):
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, img: Tensor, txt: Tensor, site: Site) -> tuple[Tensor, Tensor]:
        self.seen[site.layer] = img, txt
        return img, txt


# Halves


def zeroed(model: nn.Module, layer: int, half: str) -> nn.Module:
    """A copy whose weights make the half's residual nothing."""
    model = copy.deepcopy(model)
    if layer < 2:
        block = model.double_blocks[layer]
        ends = (block.img_attn.proj, block.txt_attn.proj)
        if half == "mlp":
            ends = (block.img_mlp[2], block.txt_mlp[2])
        for linear in ends:
            linear.weight.zero_()
            linear.bias.zero_()
        return model
    block = model.single_blocks[layer - 2]
    columns = slice(None, block.hidden_size) if half == "attention" else slice(block.hidden_size, None)
    block.linear2.weight[:, columns] = 0
    return model


@pytest.mark.parametrize("half", ["attention", "mlp"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_half_left_out_is_its_residual_gone(small_flux, small_inputs, layer, half):
    model, inputs = small_flux(), small_inputs()
    found = model(**inputs, hooks=Hooks(skip={layer: half}))
    torch.testing.assert_close(found, zeroed(model, layer, half)(**inputs), rtol=1e-5, atol=1e-6)
    assert (found - model(**inputs)).abs().max() > 1e-3


def test_the_bias_of_a_single_block_stays_with_either_half(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    plain = {half: model(**inputs, hooks=Hooks(skip={3: half})) for half in ("attention", "mlp")}
    model.single_blocks[1].linear2.bias.add_(1.0)
    for half, before in plain.items():
        assert (model(**inputs, hooks=Hooks(skip={3: half})) - before).abs().max() > 1e-3


def test_hooks_of_a_half_left_out_are_not_called(small_flux, small_inputs):
    def refuse(*arguments):
        raise AssertionError("called")

    plan = Hooks(skip={1: "attention", 3: "attention"}, inject={1: refuse}, attend={3: refuse})
    small_flux()(**small_inputs(), hooks=plan)


def test_what_a_skip_may_say():
    assert Hooks(skip=[3, "single.1"]).skip == {3: True, "single.1": True}
    assert Hooks(skip=7).skip == {7: True} and Hooks(skip="double.0").skip == {"double.0": True}
    with pytest.raises(
        ValueError, match=r"skip\[3\] is 'atention': choose from \"attention\", \"mlp\", or True"
    ):
        Hooks(skip={3: "atention"})
    with pytest.raises(ValueError, match=r"skip\[3\] is False"):
        Hooks(skip={3: False})


def test_a_layer_named_twice_must_mean_one_thing(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    with pytest.raises(ValueError, match="skip names layer 2 twice, as 'mlp' and as True"):
        model(**inputs, hooks=Hooks(skip={2: "mlp", "single.0": True}))
    with pytest.raises(ValueError, match="attend names layer 2 twice"):
        model(**inputs, hooks=Hooks(attend={2: plain_attention, "single.0": lambda *qkv: None}))
    twice = model(**inputs, hooks=Hooks(skip=[2, "single.0"]))
    assert torch.equal(twice, model(**inputs, hooks=Hooks(skip=[2])))


# Attend


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_do_what_the_block_does_are_bit_identical(small_flux, small_inputs, dtype):
    model, inputs = small_flux(dtype=dtype), small_inputs(dtype=dtype)
    plan = Hooks(attend=dict.fromkeys(LAYERS, plain_attention), after=dict.fromkeys(LAYERS, same_residual))
    assert torch.equal(model(**inputs, hooks=plan), model(**inputs))


@pytest.mark.parametrize("layer", LAYERS)
def test_keys_may_be_longer_than_queries(small_flux, small_inputs, layer):
    """Every key twice gives every query what it had."""

    def doubled(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        k, v = torch.cat((k, k), dim=2), torch.cat((v, v), dim=2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    model, inputs = small_flux(), small_inputs()
    found = model(**inputs, hooks=Hooks(attend={layer: doubled}))
    torch.testing.assert_close(found, model(**inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_mask_keeps_the_picture_from_the_text(small_flux, small_inputs, layer):
    def no_text(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        q, k = apply_rope(q, k, site.pe)
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        mask[site.img, : site.txt_len] = False
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    model, inputs = small_flux(), small_inputs()
    other = {**inputs, "txt": inputs["txt"].flip(1) + 1}
    upto = tuple(layer for layer in LAYERS if layer < 2)  # what comes before sees the text
    masked = tuple(dict.fromkeys((*upto, *range(layer + 1))))
    plan = Hooks(attend=dict.fromkeys(masked, no_text))
    first, second = Keep(), Keep()
    for keep, given in ((first, inputs), (second, other)):
        model(**given, hooks=Hooks(attend=plan.attend, after={layer: keep}))
    torch.testing.assert_close(first.seen[layer][0], second.seen[layer][0])
    assert (first.seen[layer][1] - second.seen[layer][1]).abs().max() > 1e-2
    assert (model(**inputs) - model(**inputs, hooks=plan)).abs().max() > 1e-3


def test_attend_sees_what_inject_returns(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    seen = {}

    def zero_values(q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        return q, k, torch.zeros_like(v)

    def look(q: Tensor, k: Tensor, v: Tensor, site: Site) -> Tensor:
        seen[site.layer] = v
        return attention(q, k, v, pe=site.pe)

    model(**inputs, hooks=Hooks(inject={1: zero_values, 3: zero_values}, attend={1: look, 3: look}))
    assert all(not v.any() for v in seen.values()) and seen.keys() == {1, 3}


def test_attend_is_one_callable():
    with pytest.raises(TypeError, match=r"attend\[3\] must be callable; got \[\]"):
        Hooks(attend={3: []})
    with pytest.raises(TypeError, match="attend must map layers to callables; got <function"):
        Hooks(attend=plain_attention)
    with pytest.raises(TypeError, match="skip must be layers, or a mapping from layers .*; got 3.5"):
        Hooks(skip=3.5)


@pytest.mark.parametrize(
    "plan, says",
    [
        (
            Hooks(attend={3: lambda q, k, v, site: None}),
            r"attend\[3\] must return a tensor \(B, L_q, H D\); got None",
        ),
        (Hooks(after={1: lambda img, txt, site: img}), r"after\[1\] must return \(img, txt\); got Tensor"),
        (Hooks(after={4: lambda img, txt, site: None}), r"after\[4\] must return \(img, txt\); got NoneType"),
        (Hooks(inject={2: lambda q, k, v, site: (k, v)}), r"inject\[2\] must return \(q, k, v\); got tuple"),
    ],
)
def test_what_a_hook_returns_is_checked_by_its_name(small_flux, small_inputs, plan, says):
    with pytest.raises(TypeError, match=says):
        small_flux()(**small_inputs(), hooks=plan)


def wrong(row, make):
    """A plan whose hook at layer 1 or 3 spoils the last of what it was given."""

    def returns(*given):
        *tensors, site = given
        if row == "attend":
            return make(attention(*tensors, pe=site.pe))
        return *tensors[:-1], make(tensors[-1])

    return returns


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize(
    "row, name", [("inject", "v"), ("attend", r"a tensor \(B, L_q, H D\)"), ("after", "txt")]
)
@pytest.mark.parametrize(
    "make, says",
    [
        (lambda x: x[:1], r"of shape \(3, .*\); got \(1, "),
        (lambda x: x[..., :-1], r"of shape \(3, .*\); got \(3, "),
        (lambda x: x.double(), "in float32; got float64"),
        (lambda x: x.to("meta"), "on cpu; got meta"),
    ],
)
def test_tensors_unlike_those_given_are_refused(small_flux, small_inputs, row, name, layer, make, says):
    with pytest.raises(ValueError, match=rf"^{row}\[{layer}\] must return {name} {says}"):
        small_flux()(**small_inputs(), hooks=Hooks(**{row: {layer: wrong(row, make)}}))


def test_the_hook_of_several_is_named(small_flux, small_inputs):
    def fine(q, k, v, site):
        return q, k, v

    def half(q, k, v, site):
        return q, None, v

    with pytest.raises(
        TypeError, match=r"^inject\[2\], hook 2 of 2, must return \(q, k, v\); got tuple of Ten"
    ):
        small_flux()(**small_inputs(), hooks=Hooks(inject={"single.0": fine, 2: half}))


def test_under_autocast_any_dtype_will_do(small_flux, small_inputs):
    plan = Hooks(inject={2: lambda q, k, v, site: (q, k, v.float())})
    with torch.autocast("cpu", torch.bfloat16):
        small_flux()(**small_inputs(), hooks=plan)


@pytest.mark.parametrize("group, layers", [("double.*", [0, 1]), ("single.*", [2, 3, 4]), ("all", range(5))])
def test_groups_stand_for_their_layers(small_flux, small_inputs, group, layers):
    model, inputs, seen = small_flux(), small_inputs(), []

    def after(img, txt, site):
        seen.append(site.layer)
        return img, txt

    skipped = model(**inputs, hooks=Hooks(skip=group))
    assert torch.equal(skipped, model(**inputs, hooks=Hooks(skip=list(layers))))
    model(**inputs, hooks=Hooks(after={group: after}))
    assert seen == list(layers)
    with pytest.raises(ValueError, match="skip names layer . twice, as 'mlp' and as True"):
        model(**inputs, hooks=Hooks(skip={group: "mlp", layers[-1]: True}))


@pytest.mark.parametrize("row", ["skip", "inject", "attend", "after"])
def test_a_layer_that_is_not_there_is_named_with_its_row(small_flux, small_inputs, row):
    with pytest.raises(
        ValueError, match=rf"^{row}\['double.2'\]: layer 'double.2' does not exist: the model has"
    ):
        value = "mlp" if row == "skip" else plain_attention
        small_flux()(**small_inputs(), hooks=Hooks(**{row: {"double.2": value}}))


def test_maps_are_of_the_first_evaluation_of_a_step(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(batch=1)
    maps = {}
    for name, integrator in (("euler", euler), ("midpoint", midpoint)):
        maps[name] = AttentionMaps()
        texts = [inputs[key] for key in ("img_ids", "txt", "txt_ids", "y")]
        predicted = velocity(model, *texts, hooks=Hooks(inject={2: maps[name]}))
        list(integrator(predicted, inputs["img"], [1.0, 0.5]))
    assert torch.equal(maps["euler"].maps[2, 0], maps["midpoint"].maps[2, 0])


# After


def test_after_sees_what_each_layer_returns(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    returned = {}
    for layer, block in enumerate([*model.double_blocks, *model.single_blocks]):
        block.register_forward_hook(lambda module, args, out, layer=layer: returned.update({layer: out}))
    keep = Keep()
    model(**inputs, hooks=Hooks(after=dict.fromkeys(LAYERS, keep)))
    txt_len = inputs["txt"].shape[1]
    for layer, (img, txt) in keep.seen.items():
        if layer < 2:
            assert torch.equal(img, returned[layer][0]) and torch.equal(txt, returned[layer][1])
        else:
            assert torch.equal(img, returned[layer][:, txt_len:])
            assert torch.equal(txt, returned[layer][:, :txt_len])
    assert keep.seen.keys() == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_after_returns_goes_on(small_flux, small_inputs, layer):
    model, inputs = small_flux(), small_inputs()
    before = Keep()
    model(**inputs, hooks=Hooks(after={layer: before}))
    img, txt = before.seen[layer]
    img, txt = img.flip(-1), txt.flip(-1)  # a constant would go in the next layer norm

    def replaced(old_img: Tensor, old_txt: Tensor, site: Site) -> tuple[Tensor, Tensor]:
        assert torch.equal(old_img, before.seen[layer][0])
        return img, txt

    after = Keep()
    found = model(**inputs, hooks=Hooks(after={layer: [replaced, after]}))
    assert torch.equal(after.seen[layer][0], img) and torch.equal(after.seen[layer][1], txt)
    assert (found - model(**inputs)).abs().max() > 1e-3
    skipped = model(**inputs, hooks=Hooks(after={layer: replaced}, skip=range(layer + 1, 5)))
    last = model.final_layer(
        img, steering_vector(model, inputs["timesteps"], inputs["y"], inputs["guidance"])
    )
    torch.testing.assert_close(skipped, last)


def test_after_is_not_called_where_a_layer_is_skipped(small_flux, small_inputs):
    keep = Keep()
    plan = Hooks(skip={0: True, 2: True, 3: "mlp"}, after=dict.fromkeys(LAYERS, keep))
    small_flux()(**small_inputs(), hooks=plan)
    assert keep.seen.keys() == {1, 3, 4}


# Reference tokens behind the picture


def with_references(model, inputs: dict[str, Tensor], count: int = 3, seed: int = 0, **options) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = {**inputs, "vec": inputs["y"]}
    del inputs["y"], inputs["timesteps"]
    batch = len(inputs["img"])
    cond = torch.randn(batch, count, 64, generator=generator)
    ids = torch.ones(batch, count, 3)
    return denoise(
        model, **inputs, timesteps=[1.0, 0.5, 0.0], img_cond_seq=cond, img_cond_seq_ids=ids, **options
    )


def test_an_injection_leaves_reference_tokens_alone(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(batch=2)
    seen = []

    def record(q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((k, v, site))
        return q, k, v

    with_references(model, inputs, hooks=Hooks(inject={2: [record, CopySource(), record]}))
    for (k, v, site), (new_k, new_v, _) in zip(seen[::2], seen[1::2], strict=True):
        start, stop = site.img.start, site.img.stop
        assert (start, stop, k.shape[2]) == (5, 5 + 16, 5 + 16 + 3)
        for old, new in ((k, new_k), (v, new_v)):
            assert torch.equal(new[1, :, start:stop], old[0, :, start:stop])
            assert torch.equal(new[1, :, stop:], old[1, :, stop:])
            assert torch.equal(new[1, :, :start], old[1, :, :start])
            assert torch.equal(new[0], old[0])
            assert (old[1, :, stop:] - old[0, :, stop:]).abs().max() > 0


def test_masks_and_maps_are_of_the_picture_alone(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(batch=2)
    maps = AttentionMaps()
    with_references(model, inputs, hooks=Hooks(inject={0: maps, 4: maps}))
    assert maps.maps.keys() == {(0, 0), (0, 1), (4, 0), (4, 1)}
    assert {tuple(found.shape) for found in maps.maps.values()} == {(2, 16)}

    copied = with_references(model, inputs, hooks=Hooks(inject={2: CopySource()}))
    whole = CopySource(select=Mask(torch.ones(4, 4)))
    assert torch.equal(with_references(model, inputs, hooks=Hooks(inject={2: whole})), copied)
    every = CopySource(select=TopRatio(1.0))
    assert torch.equal(with_references(model, inputs, hooks=Hooks(inject={2: every})), copied)
    with pytest.raises(ValueError, match="the mask has 19 tokens, the picture 16"):
        with_references(model, inputs, hooks=Hooks(inject={2: CopySource(select=Mask(torch.ones(19)))}))


def test_a_site_says_where_it_is(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(batch=1)
    sites = []

    def record(q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        sites.append(site)
        return q, k, v

    predicted = velocity(
        model,
        *(inputs[name] for name in ("img_ids", "txt", "txt_ids", "y")),
        guidance=2.0,
        hooks=Hooks(inject={3: record}),
    )
    predicted(inputs["img"], 0.3, Evaluation(index=4, steps=9, substep=1))
    (site,) = sites
    assert (site.layer, site.step, site.steps, site.substep, site.t) == (3, 4, 9, 1, 0.3)
    assert site.img == slice(5, 21) and site.img_len(21) == 16
    assert Site(0, 5, site.pe).img_len(21) == 16, "all image tokens, unless references are told of"


# Plans and parts of others


def test_a_plan_can_be_pickled_and_copied(small_flux, small_inputs):
    how = CopySource(strength=0.5, select=TopRatio(0.5), steps=(0, 2))
    plan = Hooks(
        skip={0: "mlp", "single.2": True},
        inject={1: how},
        attend={2: plain_attention},
        after={3: same_residual},
    ).at(1, 5, substep=1, t=0.5, img_len=16)
    for again in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan), copy.copy(plan)):
        assert again == plan and again.step == 1 and again.img_len == 16
        with pytest.raises(TypeError):
            again.inject[1] = how
    model, inputs = small_flux(), small_inputs()
    assert torch.equal(model(**inputs, hooks=pickle.loads(pickle.dumps(plan))), model(**inputs, hooks=plan))


def test_hooks_can_be_given_by_position(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    names = ("img", "img_ids", "txt", "txt_ids", "timesteps", "y", "guidance")
    plan = Hooks(skip=[1])
    assert torch.equal(model(*(inputs[name] for name in names), plan), model(**inputs, hooks=plan))
    block, x = model.single_blocks[0], torch.randn(1, 6, 48)
    vec, pe = torch.randn(1, 48), model.pe_embedder(torch.zeros(1, 6, 3))
    assert torch.equal(block(x, vec, pe, True, None, None), x)
    img, txt = model.double_blocks[0](x, x, vec, pe, True, None, None)
    assert img is x and txt is x


class Foreign(nn.Module):
    """A client's own block, which has never heard of hooks."""

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        return x * 2


def test_a_block_of_another_class_can_be_skipped_and_looked_at(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    without = model(**inputs, hooks=Hooks(skip=[3]))
    model.single_blocks[1] = Foreign()
    assert torch.equal(model(**inputs, hooks=Hooks(skip=[3])), without)
    keep = Keep()
    model(**inputs, hooks=Hooks(after={2: keep, 3: keep}))
    assert torch.equal(keep.seen[3][0], keep.seen[2][0] * 2)


def test_a_block_asks_attention_for_no_more_than_its_weights(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    plain = model(**inputs)
    for block in model.double_blocks:
        for name in ("img_attn", "txt_attn"):
            own, theirs = getattr(block, name), nn.Module()
            theirs.qkv, theirs.norm, theirs.proj = own.qkv, own.norm, own.proj
            setattr(block, name, theirs)
    assert torch.equal(model(**inputs), plain)
