"""Each layout of LoRA files against diffusers' own loader, and what the formula says."""

import json
import re
from dataclasses import replace

import pytest
import torch
from helpers_loras import (
    SMALL,
    diffusers,
    in_blocks,
    kohya,
    noise,
    official,
    save,
    small_clip,
    updates,
    xlabs,
)
from helpers_models import SMALL_FLOW, random_state, small_model
from torch.nn import functional as F

from flux.lora.applying import apply_loras
from flux.lora.choice import LoraChoice
from flux.lora.places import CLIP, linear_shapes
from flux.lora.plan import plan_lora
from flux.lora.reading import by_layer, read_lora, stack
from flux.model import Flux, FluxLoraWrapper
from flux.models import configs
from flux.modules.lora import LinearLora
from flux.util import load_flow_model
from flux.weights import convert

DEV = configs["flux-dev"]


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("peft")
    return pytest.importorskip("diffusers")


def their_model(theirs, params=SMALL_FLOW):
    model = theirs.FluxTransformer2DModel(**convert.flow_config(params))
    ours = random_state(Flux, params)
    model.load_state_dict(dict(convert.to_diffusers(convert.flow_rules(params), ours)))
    return model


def fused(model, scales=None):
    """Our tensors of a model of diffusers into which its LoRAs are fused."""
    if scales is not None:
        model.set_adapters(list(scales), list(scales.values()))
    model.fuse_lora()
    state = {
        key.replace(".base_layer", ""): x for key, x in model.state_dict().items() if ".lora_" not in key
    }
    return dict(convert.flow_to_ours(state, SMALL_FLOW))


def merged(*files, scales=None):
    """The state of our model with LoRAs merged, and its state before."""
    model = small_model()
    before = {key: x.clone() for key, x in model.state_dict().items()}
    scales = scales or [1.0] * len(files)
    loras = [read_lora(LoraChoice(f, s), SMALL, "small") for f, s in zip(files, scales, strict=True)]
    apply_loras(model, loras)
    return model.state_dict(), before


def assert_same(found, wanted, before, changed):
    assert found.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-5, atol=1e-6)
    moved = {key for key in found if (found[key] - before[key]).abs().max() > 1e-3}
    assert moved == changed


def weights(names):
    return {f"{name}.weight" for name in names}


def test_the_places_are_the_linear_layers_of_the_model():
    for params in (SMALL_FLOW, replace(SMALL_FLOW, guidance_embed=False, in_channels=128)):
        with torch.device("meta"):
            layers = dict(Flux(params).named_modules())
        wanted = {n: tuple(x.weight.shape) for n, x in layers.items() if isinstance(x, torch.nn.Linear)}
        assert linear_shapes(params) == wanted


@pytest.mark.parametrize("metadata", [None, {"r": 2, "lora_alpha": 6, "alpha_pattern": {"attn.to_q": 1}}])
def test_diffusers(theirs, tmp_path, metadata):
    model = their_model(theirs)
    state = diffusers(model)
    header = None
    if metadata is not None:
        ranks = {k[12:-14]: x.shape[0] for k, x in state.items() if k.endswith("lora_A.weight")}
        modules = sorted(ranks)
        metadata = metadata | {
            "rank_pattern": {f"^{n}$": r for n, r in ranks.items()},
            "target_modules": modules,
        }
        metadata = {f"transformer.{key}": value for key, value in metadata.items()}
        header = {"lora_adapter_metadata": json.dumps(metadata)}
    model.load_lora_adapter(dict(state), prefix="transformer", metadata=metadata)
    found, before = merged(save(tmp_path / "a.safetensors", state, header))
    assert_same(found, fused(model), before, weights(linear_shapes(SMALL_FLOW)))


def test_several_with_their_scales(theirs, tmp_path):
    model = their_model(theirs)
    states = {name: diffusers(model, rank=r, seed=s) for name, r, s in (("a", 2, 0), ("b", 3, 1000))}
    for name, state in states.items():
        model.load_lora_adapter(dict(state), prefix="transformer", adapter_name=name)
    files = [save(tmp_path / f"{name}.safetensors", state) for name, state in states.items()]
    found, before = merged(*files, scales=[0.5, -0.25])
    wanted = fused(model, {"a": 0.5, "b": -0.25})
    assert_same(found, wanted, before, weights(linear_shapes(SMALL_FLOW)))


def test_xlabs(theirs, tmp_path):
    model = their_model(theirs)
    state = xlabs(updates(SMALL_FLOW), SMALL_FLOW.hidden_size)
    assert len(state) == 2 * (2 * 4 + 3 * 2)
    model.load_lora_adapter(theirs.FluxPipeline.lora_state_dict(dict(state)), prefix="transformer")
    found, before = merged(save(tmp_path / "a.safetensors", state))
    attention = {n for n in linear_shapes(SMALL_FLOW) if "attn" in n or n.endswith(("linear1", "linear2"))}
    assert_same(found, fused(model), before, weights(attention))


# At the real widths, which diffusers' converters fix: an update is compared by what it does to a vector.


def effects(file, seed=9):
    """What a LoRA file adds to the output of each linear layer of FLUX.1-dev, and the inputs it is fed."""
    shapes = linear_shapes(DEV.params)
    lora = read_lora(LoraChoice(file), DEV, "flux-dev")
    found, inputs = {}, {}
    for layer, factors in by_layer(lora.of("flow model")).items():
        each = stack(factors, *shapes[layer])
        inputs[layer] = noise(shapes[layer][1], 2, seed=seed)
        found[layer] = each.up @ (each.down @ inputs[layer])
        if each.bias is not None:
            found[layer] = found[layer] + each.bias[:, None]
    return found, inputs


def their_effects(state, inputs):
    """The same of a state that diffusers has converted."""
    found = {}
    for ours, names in pairs(DEV.params):
        downs = [f"transformer.{name}.lora_A.weight" for name in names]
        if ours not in inputs or downs[0] not in state:
            continue
        parts = []
        for key in downs:
            up = state[key.replace("lora_A", "lora_B")]
            bias = state.get(key.replace("lora_A.weight", "lora_B.bias"))
            part = up @ (state[key] @ inputs[ours])
            parts.append(part if bias is None else part + bias[:, None])
        whole = torch.cat(parts)
        found[ours] = whole.roll(len(whole) // 2, 0) if ours.startswith("final_layer.ada") else whole
    return found


def pairs(params):
    """Our name of every linear layer and diffusers' names, by the conversion of whole weights."""
    for rule in convert.flow_rules(params):
        if rule.ours.endswith(".weight"):
            yield rule.ours.removesuffix(".weight"), [key.removesuffix(".weight") for key in rule.theirs]


def assert_same_effects(file, converted, count):
    converted = {k if k.startswith("transformer.") else f"transformer.{k}": x for k, x in converted.items()}
    found, inputs = effects(file)
    wanted = their_effects(converted, inputs)
    assert found.keys() == wanted.keys() and len(found) == count
    for layer in wanted:
        torch.testing.assert_close(found[layer], wanted[layer], rtol=1e-4, atol=1e-5, msg=layer)


def one_block_each(name):
    return name.startswith(("double_blocks.0.", "single_blocks.0.")) or "blocks" not in name


@pytest.mark.parametrize("alpha", [None, 1, 2, 16])
def test_kohya_at_the_real_widths(theirs, tmp_path, alpha):
    state = kohya(updates(DEV.params, only=one_block_each), alpha)
    if alpha is not None:  # diffusers passes over the alpha of these two
        for name in ("final_layer_linear", "final_layer_adaLN_modulation_1"):
            state[f"lora_unet_{name}.alpha"] = torch.tensor(2.0)
    converted = theirs.FluxPipeline.lora_state_dict(dict(state))
    shared = 13 + 10  # the layers of a block of each kind, and those around the blocks
    assert_same_effects(save(tmp_path / "a.safetensors", state), converted, shared)


def test_kohya_with_the_names_of_diffusers(theirs, tmp_path):
    """As OneTrainer writes them."""
    at = (
        "lora_transformer_transformer_blocks_0_attn_to_k",
        "lora_transformer_single_transformer_blocks_5_attn_to_v",
    )
    state = {}
    for i, name in enumerate(at):
        state |= {f"{name}.lora_down.weight": noise(2, 3072, seed=i), f"{name}.alpha": torch.tensor(4.0)}
        state[f"{name}.lora_up.weight"] = noise(3072, 2, seed=5 + i)
    found, inputs = effects(save(tmp_path / "a.safetensors", state))
    layers = "double_blocks.0.img_attn.qkv", "single_blocks.5.linear1"
    for name, layer, rows in zip(at, layers, (slice(3072, 6144), slice(6144, 9216)), strict=True):
        wanted = 2 * state[f"{name}.lora_up.weight"] @ (state[f"{name}.lora_down.weight"] @ inputs[layer])
        torch.testing.assert_close(found[layer][rows], wanted)
        assert found[layer].abs().sum(1).count_nonzero() == 3072
    assert set(found) == set(layers)
    converted = theirs.FluxPipeline.lora_state_dict(dict(state))
    assert {k.removesuffix(".lora_A.weight") for k in converted if "lora_A" in k} == {
        "transformer.transformer_blocks.0.attn.to_k",
        "transformer.single_transformer_blocks.5.attn.to_v",
    }


def test_the_official_files(theirs, tmp_path):
    """Every layer of FLUX.1-Canny-dev-lora, biases and norms too, in rank 2."""
    params = replace(DEV.params, in_channels=64)
    with torch.device("meta"):
        shapes = FluxLoraWrapper(lora_rank=2, params=params).state_dict()
    state = {
        key: noise(*x.shape, seed=i) if ".lora_" in key else 1 + noise(*x.shape, seed=i)
        for i, (key, x) in enumerate(shapes.items())
        if ".lora_" in key or key.endswith("norm.scale")
    }
    file = save(tmp_path / "a.safetensors", state)
    converted = theirs.FluxPipeline.lora_state_dict(dict(state))
    # diffusers swaps the halves of the outputs, and of this rank with them, which is another product.
    last = "transformer.norm_out.linear.lora_A.weight"
    converted[last] = converted[last].flip(0)
    assert_same_effects(file, converted, len(linear_shapes(params)))
    plan = plan_lora(file, DEV, "flux-dev")
    norms = {key for key in state if key.endswith("norm.scale")}
    assert plan.norms == {key: key for key in norms} and len(norms) == 4 * 19 + 2 * 38 and not plan.left_out


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer.", "base_model.model."])
def test_all_layouts_of_the_same_updates_say_the_same(tmp_path, prefix):
    each = updates(SMALL_FLOW, only=in_blocks)
    plain, before = merged(save(tmp_path / "a.safetensors", official(each, prefix)))
    by_kohya, _ = merged(save(tmp_path / "b.safetensors", kohya(each, alpha=2)))
    for key in plain:
        torch.testing.assert_close(plain[key], by_kohya[key])
    name = "double_blocks.1.img_mlp.0"
    down, up = each[name]
    torch.testing.assert_close(plain[f"{name}.weight"], before[f"{name}.weight"] + up @ down)


# Text encoders


def test_clip(theirs, tmp_path):
    model, other = small_clip(), small_clip()
    state = {}
    layers = [(n, x) for n, x in model.named_modules() if isinstance(x, torch.nn.Linear)]
    for i, (name, layer) in enumerate(layers):
        at = "lora_te1_text_model_" + name.removeprefix("text_model.").replace(".", "_")
        state[f"{at}.lora_down.weight"] = noise(2, layer.in_features, seed=i)
        state[f"{at}.lora_up.weight"] = noise(layer.out_features, 2, seed=50 + i)
        state[f"{at}.alpha"] = torch.tensor(1.0)
    lora = read_lora(LoraChoice(save(tmp_path / "a.safetensors", state)), DEV, "flux-dev")
    assert len(lora.of(CLIP)) == len(layers) == 12
    tokens = torch.arange(10)[None]
    plain = model(tokens).pooler_output
    for live in (False, True):
        with apply_loras(model, [lora], part=CLIP, live=live):
            found = model(tokens).pooler_output
        assert torch.equal(model(tokens).pooler_output, plain)
        assert not torch.allclose(found, plain, atol=1e-2)
        converted = theirs.FluxPipeline.lora_state_dict(dict(state))
        if not live:
            wanted = by_their_names(other, converted, tokens)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def by_their_names(model, converted, tokens):
    """The encoder with the weights that diffusers' converted keys and factors mean."""
    named = {name.removeprefix("text_model."): x for name, x in model.named_modules()}
    for key, down in converted.items():
        if ".down." in key:
            up = converted[key.replace(".down.", ".up.")]
            name = re.sub(r"self_attn\.to_(\w+)_lora", r"self_attn.\1_proj", key.split(".down.")[0])
            name = name.removeprefix("text_encoder.text_model.").removesuffix(".lora_linear_layer")
            layer = named[name]
            layer.weight = torch.nn.Parameter(layer.weight + up @ down)
    return model(tokens).pooler_output


def test_a_model_that_is_made_of_a_lora_takes_any_layout(theirs, tmp_path, monkeypatch):
    """A control LoRA as diffusers trains and saves it, beside diffusers' own model with a wider input."""
    wide = replace(SMALL_FLOW, in_channels=128)
    for name, params in (("flux-dev", SMALL_FLOW), ("flux-dev-canny-lora", wide)):
        monkeypatch.setitem(configs, name, replace(configs[name], params=params, lora_rank=4))
    model = their_model(theirs, wide)
    state = diffusers(model)
    model.load_lora_adapter(dict(state), prefix="transformer")
    base = {key: x for key, x in random_state(Flux, wide).items()}
    base["img_in.weight"] = base["img_in.weight"][:, :64]
    monkeypatch.setenv("FLUX_MODEL", str(save(tmp_path / "base.safetensors", base)))
    monkeypatch.setenv("FLUX_LORA", str(save(tmp_path / "lora.safetensors", state)))
    ours = load_flow_model("flux-dev-canny-lora", "cpu", verbose=False)
    assert isinstance(ours, FluxLoraWrapper) and ours.state_dict()["img_in.lora_A.weight"].shape[1] == 128
    wanted = fused(model)
    wanted["img_in.weight"][:, 64:] -= random_state(Flux, wide)["img_in.weight"][:, 64:]
    found = ours.state_dict()
    for scale in (1.0, 0.0):
        ours.set_lora_scale(scale)
        for name, layer in ours.named_modules():
            if isinstance(layer, LinearLora):
                x = noise(3, layer.in_features)
                base_weight, bias = found[f"{name}.weight"], found.get(f"{name}.bias")
                weight = wanted[f"{name}.weight"] if scale else base_weight
                torch.testing.assert_close(layer(x), F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)
