"""Conversion to and from diffusers: keys, round trips, laziness. Numbers are compared in test_numerics.py."""

import pytest
import torch
from helpers_models import SMALL_AE, SMALL_FLOW, random_state

from flux.formats.lazy import Lazy
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.weights import convert

FLOW = (Flux, SMALL_FLOW, convert.flow_rules, convert.flow_to_ours)
AE = (AutoEncoder, SMALL_AE, convert.ae_rules, convert.ae_to_ours)


@pytest.mark.parametrize("model, params, rules, back", [FLOW, AE])
def test_round_trip(model, params, rules, back):
    ours = random_state(model, params)
    theirs = dict(convert.to_diffusers(rules(params), ours))
    again = dict(back(theirs, params))
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[key], ours[key]) for key in ours)


def test_keys_and_shapes_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        flow = diffusers.FluxTransformer2DModel(**convert.flow_config(SMALL_FLOW))
        ae = diffusers.AutoencoderKL(**convert.ae_config(SMALL_AE))
    for model, params, rules, theirs in ((*FLOW[:3], flow), (*AE[:3], ae)):
        converted = convert.to_diffusers(rules(params), random_state(model, params))
        shapes = {key: tensor.shape for key, tensor in converted.items()}
        assert shapes == {key: tensor.shape for key, tensor in theirs.state_dict().items()}


def test_the_last_modulation_is_swapped_and_nothing_else():
    ours = random_state(Flux, SMALL_FLOW)
    theirs = convert.to_diffusers(convert.flow_rules(SMALL_FLOW), ours)
    shift, scale = ours["final_layer.adaLN_modulation.1.weight"].chunk(2)
    assert torch.equal(theirs["norm_out.linear.weight"], torch.cat((scale, shift)))
    assert torch.equal(
        theirs["transformer_blocks.1.norm1.linear.weight"], ours["double_blocks.1.img_mod.lin.weight"]
    )


def test_queries_keys_values_and_mlp_are_stacked_in_order():
    ours = random_state(Flux, SMALL_FLOW)
    theirs = convert.to_diffusers(convert.flow_rules(SMALL_FLOW), ours)
    at = "single_transformer_blocks.0."
    parts = [theirs[f"{at}{name}.weight"] for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    assert torch.equal(torch.cat(parts), ours["single_blocks.0.linear1.weight"])


def test_a_prefix_is_taken_off_and_other_parts_of_the_file_are_left():
    ours = random_state(Flux, SMALL_FLOW)
    packed = {f"model.diffusion_model.{key}": tensor for key, tensor in ours.items()}
    packed |= {"vae.decoder.conv_in.weight": torch.zeros(1), "text_encoders.t5.weight": torch.zeros(1)}
    assert dict(convert.flow_to_ours(packed, SMALL_FLOW)).keys() == ours.keys()

    ae = random_state(AutoEncoder, SMALL_AE)
    assert dict(convert.ae_to_ours({f"vae.{key}": ae[key] for key in ae}, SMALL_AE)).keys() == ae.keys()


def test_official_tensors_pass_as_they_are():
    ours = random_state(Flux, SMALL_FLOW)
    assert convert.flow_to_ours(ours, SMALL_FLOW) is ours


def test_a_tensor_with_a_missing_part_is_left_out_and_strangers_pass():
    theirs = dict(convert.to_diffusers(convert.flow_rules(SMALL_FLOW), random_state(Flux, SMALL_FLOW)))
    del theirs["transformer_blocks.0.attn.to_k.weight"]
    ours = convert.flow_to_ours(theirs | {"stranger": torch.ones(1)}, SMALL_FLOW)
    assert "double_blocks.0.img_attn.qkv.weight" not in ours
    assert "double_blocks.0.img_attn.qkv.bias" in ours
    assert ours["stranger"] == 1


def test_tensors_are_made_only_when_asked_for():
    source = Counting(convert.to_diffusers(convert.flow_rules(SMALL_FLOW), random_state(Flux, SMALL_FLOW)))
    ours = convert.flow_to_ours(source, SMALL_FLOW)
    assert len(ours) == len(list(ours)) and "img_in.weight" in ours
    assert source.read == []
    ours["double_blocks.0.txt_attn.qkv.bias"]
    names = ("add_q_proj", "add_k_proj", "add_v_proj")
    assert source.read == [f"transformer_blocks.0.attn.{name}.bias" for name in names]


class Counting(Lazy):
    def __init__(self, tensors):
        super().__init__({key: lambda key=key: tensors[key] for key in tensors})
        self.read = []

    def __getitem__(self, key):
        self.read.append(key)
        return super().__getitem__(key)


def test_config_mismatch_tells_what_differs():
    needed = convert.flow_config(SMALL_FLOW)
    assert convert.config_mismatch(needed, needed) == ""
    assert convert.config_mismatch({"out_channels": None}, needed) == ""
    told = convert.config_mismatch({**needed, "num_layers": 19}, needed)
    assert told == "num_layers is 19 where 2 is needed"
