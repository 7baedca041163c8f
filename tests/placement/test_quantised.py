"""Weights of a class of their own wait, pass through and stay as plain ones do: torchao's and GGUF's."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from helpers_demos import small_models
from helpers_gguf import packed
from helpers_placement import HOOKS, FakeLane, latents, names_sent, same
from torch import nn

from flux.formats.packed import keep_packed
from flux.hooks import Hooks
from flux.lora.applying import LIVE, LiveUpdate, _add_update
from flux.lora.reading import Stack
from flux.placement.masters import composed, composed_weights, parts_of, tensors_of
from flux.placement.shares import modulated
from flux.placement.work import KeptWeights, at_work, kept_weights
from flux.precision.quantising import IN_FULL, quantise

WAYS = ("encoders", "modulation", "stream", "stream:4")
SCHEMES = ("int8", "fp8", "nf4", "Q8_0", "Q4_0")


def quantised_models(scheme, dtype=torch.float32):
    """All linear layers of the blocks but modulation; of GGUF these too, as such files have them."""
    pytest.importorskip("torchao" if scheme.islower() else "gguf")
    models = small_models(dtype)
    for name, layer in models.flow.named_modules():
        if "_blocks." not in name or not isinstance(layer, nn.Linear):
            continue
        if not scheme.islower():
            keep_packed(layer, torch.from_numpy(packed(layer.weight.float(), scheme)), scheme, dtype)
        elif not IN_FULL.search(name):
            quantise(layer, scheme)
    return models


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_way_is_the_plain_one_to_the_bit(scheme, dtype, lane):
    models = quantised_models(scheme, dtype)
    plain = latents(models)
    assert not same(plain, latents(small_models(dtype)))
    for way in WAYS:
        assert same(latents(models, way), plain), way


@pytest.mark.parametrize("scheme", SCHEMES)
def test_blocks_pass_through_with_their_quantised_weights(scheme, lane):
    models = quantised_models(scheme)
    latents(models, "stream:4", hooks=HOOKS["skip"])
    assert names_sent(lane, models) == [2, 5, 8, 11] + [0, 3, 4, 6, 7, 9, 10] * 3
    kept = kept_weights(models.flow, lane, "stream")
    assert not kept.loose
    full = kept_weights(small_models().flow, FakeLane(), "stream")
    assert sum(map(len, kept.blocks.values())) < 0.5 * sum(map(len, full.blocks.values()))


@pytest.mark.parametrize("scheme", ["int8", "Q8_0"])
def test_with_a_lora_beside_the_weights(scheme, lane):
    models = quantised_models(scheme)
    before = latents(models)
    for name in ("double_blocks.1.img_attn.qkv", "single_blocks.2.linear1"):
        linear = models.flow.get_submodule(name)
        down, up = torch.randn(4, linear.in_features), torch.randn(linear.out_features, 4) / 8
        linear.add_module(LIVE, LiveUpdate(Stack(down, up, None), torch.empty(0)))
        linear.register_forward_hook(_add_update)
    plain = latents(models)
    assert not same(plain, before)
    for way in ("modulation", "stream:4"):
        assert same(latents(models, way), plain), way


@pytest.mark.parametrize("scheme", SCHEMES)
def test_modulation_layers_are_never_there_as_a_whole(scheme, lane):
    models = quantised_models(scheme)
    latents(models, "modulation")
    kept = kept_weights(models.flow, lane, "modulation")
    own = {id(each) for layers in modulated(models.flow).values() for each in tensors_of(*layers)}
    assert own and not own & {id(tensor) for master in kept.rest for tensor in master.tensors}
    assert not own & {id(part) for each in kept.loose for part in parts_of(each.host)}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_is_at_home_afterwards_and_packed_once(scheme, lane):
    models = quantised_models(scheme)
    latents(models, "stream")
    home, held = [each.data_ptr() for each in tensors_of(models.flow)], len(lane.held)

    def fail(q, k, v, site):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="^no$"):
        latents(models, "stream:4", hooks=Hooks(inject={6: fail}))
    latents(models, "stream")
    assert len(lane.held) == held and [each.data_ptr() for each in tensors_of(models.flow)] == home


def test_a_weight_says_where_it_is():
    """Kernels are chosen by the device that a weight names. nf4 keeps it beside its parts."""
    (weight, *_) = composed_weights(quantised_models("nf4").flow)
    moved = composed(weight.host, torch.device("meta"))
    assert (weight.host.device.type, moved.device.type) == ("cpu", "meta")
    assert all(a is b for a, b in zip(parts_of(moved), parts_of(weight.host), strict=True))


class Unknown(torch.Tensor):
    """A class that does not say what it is made of."""


def test_what_nobody_can_take_apart_is_moved_as_a_whole(lane):
    layer = nn.Linear(3, 2)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Unknown), False)
    kept = KeptWeights.of(layer, lane, "stream")
    assert len(kept.loose) == 1 and kept.holds(layer)
    with at_work(torch.device("cpu"), "stream", layer):
        assert type(layer.weight.data) is Unknown
    assert layer.weight is kept.loose[0].host


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_on_a_gpu(scheme, way):
    waiting = quantised_models(scheme, torch.bfloat16)
    models = replace(waiting, device=torch.device("cuda"))
    plain = latents(replace(models, flow=deepcopy(waiting.flow).to("cuda")))
    for _ in range(2):
        assert same(latents(models, way), plain)
        assert all(each.device.type == "cpu" for each in tensors_of(models.flow))
