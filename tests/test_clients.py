"""What clients of upstream's package do with it: a test for each rule, by its number, and the autograd graph.

Rules 9 and 10 are about loading and stand with the tests of weights.
"""

import copy
import importlib
import io
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from helpers_models import SMALL_AE, SMALL_FLOW, random_state, save_text_encoders, save_weights, small_ae
from PIL import Image
from torch import Tensor, nn

import flux
from flux import hooks, util
from flux.generate import Sampling, generate
from flux.hooks import AttentionMaps, CopySource, Hooks, Mask, TopRatio
from flux.model import Flux, FluxLoraWrapper, layers_of
from flux.models import configs
from flux.modules import conditioner
from flux.modules.autoencoder import AutoEncoder
from flux.modules.lora import LinearLora
from flux.sampling import denoise, get_noise, get_schedule, prepare, unpack

UPSTREAM = json.loads(
    (Path(__file__).parent / "data" / "upstream_interface.json").read_text(encoding="utf-8")
)


SMALL_BLOCKS = replace(
    SMALL_FLOW, vec_in_dim=24, context_in_dim=40, hidden_size=48, num_heads=3, axes_dim=[4, 6, 6]
)


def exported(module: nn.Module, arguments: tuple, names: list[str], **options) -> bytes:
    """A module by the exporter that traces, which fills every parameter by position."""
    file = io.BytesIO()
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(
            module, arguments, file, dynamo=False, input_names=names, opset_version=17, **options
        )
    return file.getvalue()


def run_onnx(model: bytes, inputs: dict[str, Tensor]) -> list[Tensor]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}
    given = {name: value.numpy() for name, value in inputs.items() if name in wanted}
    return [torch.from_numpy(array) for array in session.run(None, given)]


def block_inputs(kind: str, batch: int = 2) -> dict[str, Tensor]:
    """Arguments of a block of the small model by name."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 9, (batch, 11, 3), generator=generator).float()
    pe = Flux(replace(SMALL_BLOCKS, depth=0, depth_single_blocks=0)).pe_embedder(ids)

    def random(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    streams = {"img": random(6, 48), "txt": random(5, 48)} if kind == "double" else {"x": random(11, 48)}
    return {**streams, "vec": random(48), "pe": pe}


# Forward


def test_rule_1_every_parameter_can_be_filled_by_position(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    assert torch.equal(model(*inputs.values(), None), model(**inputs))
    for kind in ("double", "single"):
        block, arguments = getattr(model, f"{kind}_blocks")[0], block_inputs(kind)
        plain, filled = block(**arguments), block(*arguments.values(), False, None, None)
        torch.testing.assert_close(filled, plain, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_rule_1_the_model_is_exported_by_tracing(small_flux, small_inputs):
    onnx = pytest.importorskip("onnx")
    model, inputs = small_flux(), small_inputs()
    names = list(inputs)
    axes = {name: {0: "batch", 1: "tokens_" + name[:3]} for name in ("img", "img_ids", "txt", "txt_ids")}
    axes |= {name: {0: "batch"} for name in ("timesteps", "y", "guidance")}
    file = exported(model, (*inputs.values(), None), names, dynamic_axes=axes)
    onnx.checker.check_model(onnx.load_from_string(file))
    for given in (inputs, small_inputs(batch=1, txt_len=8, size=(2, 6), seed=4)):
        (out,) = run_onnx(file, given)
        torch.testing.assert_close(out, model(**given), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["double", "single"])
def test_rule_1_the_blocks_are_exported_by_tracing(small_flux, kind):
    onnx = pytest.importorskip("onnx")
    block, arguments = getattr(small_flux(), f"{kind}_blocks")[1], block_inputs(kind)
    file = exported(block, (*arguments.values(), False, None, None), list(arguments))
    onnx.checker.check_model(onnx.load_from_string(file))
    expected = block(**arguments)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for out, mine in zip(run_onnx(file, arguments), expected, strict=True):
        torch.testing.assert_close(out, mine, rtol=1e-4, atol=1e-5)


class Bare(nn.Module):
    """The attention module of a client: weights and an integer, and no more."""

    def __init__(self, attn: nn.Module):
        super().__init__()
        self.qkv, self.norm, self.proj, self.heads = attn.qkv, attn.norm, attn.proj, 3


def test_rule_2_a_block_takes_no_more_from_its_attention_than_weights(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    plans = (Hooks(), Hooks(skip={0: "mlp"}, inject={0: CopySource()}, attend={1: attend_plainly}))
    expected = [model(**inputs, hooks=plan) for plan in plans]
    for block in model.double_blocks:
        block.img_attn, block.txt_attn = Bare(block.img_attn), Bare(block.txt_attn)
    for plan, before in zip(plans, expected, strict=True):
        assert torch.equal(model(**inputs, hooks=plan), before)


def attend_plainly(q, k, v, site):
    from flux.math import attention

    return attention(q, k, v, pe=site.pe)


class OwnBlock(nn.Module):
    """A client's block, which knows no hooks. Its signature is upstream's."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block


class OwnDouble(OwnBlock):
    def forward(self, img, txt, vec, pe):
        return self.block(img, txt, vec, pe)


class OwnSingle(OwnBlock):
    def forward(self, x, vec, pe):
        return self.block(x, vec, pe)


def test_rule_3_a_block_of_a_clients_own_can_be_skipped(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs()
    plan = Hooks(skip=[0, "single.2"], after={1: lambda img, txt, site: (2 * img, txt)})
    plain, expected = model(**inputs), model(**inputs, hooks=plan)
    model.double_blocks = nn.ModuleList(map(OwnDouble, model.double_blocks))
    model.single_blocks = nn.ModuleList(map(OwnSingle, model.single_blocks))
    assert torch.equal(model(**inputs), plain)
    assert torch.equal(model(**inputs, hooks=plan), expected)


class Crowded(Flux):
    """A subclass that gives names of its own to what it adds, modules, tensors and plain values."""

    def __init__(self, params):
        super().__init__(params)
        self.layers = nn.ModuleList([nn.Linear(2, 2)])
        self.vector = nn.Linear(2, 2)
        self._vector = nn.Parameter(torch.zeros(3))
        self.plan, self.hooks, self.index, self.skip = "mine", [1], {"a": 1}, None

    def layers_of(self):
        return "mine"


def test_rule_4_subclasses_have_attributes_by_any_name(small_flux, small_inputs):
    plain, inputs = small_flux(), small_inputs()
    model = Crowded(plain.params).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    assert isinstance(model.layers, nn.ModuleList) and isinstance(model.vector, nn.Linear)
    assert isinstance(model._vector, nn.Parameter) and model.layers_of() == "mine"
    for plan in (None, Hooks(skip=["single.1"], inject={0: CopySource()})):
        assert torch.equal(model(**inputs, hooks=plan), plain(**inputs, hooks=plan))
    assert len(layers_of(model)) == 5


@pytest.mark.parametrize(
    "kind", [Flux, FluxLoraWrapper, AutoEncoder, LinearLora], ids=lambda kind: kind.__name__
)
def test_rule_4_no_helpers_stand_on_the_classes(kind):
    known = UPSTREAM[kind.__module__][kind.__name__]["methods"]
    assert {name for name in vars(kind) if not name.startswith("__")} <= set(known)


EMBEDDERS = ("time_in", "guidance_in", "vector_in", "txt_in", "img_in", "final_layer")


@pytest.mark.parametrize("wide", [*((name,) for name in EMBEDDERS), EMBEDDERS[:4], EMBEDDERS], ids=" ".join)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rule_5_a_part_is_fed_in_its_own_dtype(small_flux, small_inputs, wide, dtype):
    model, inputs = small_flux(dtype=dtype), small_inputs(dtype=dtype)
    plain = model(**inputs)
    for name in wide:
        getattr(model, name).float()
    fed = {}
    for name in EMBEDDERS:
        part = getattr(model, name)
        part.register_forward_pre_hook(lambda module, given, name=name: fed.update({name: given[0].dtype}))
    out = model(**inputs)
    assert fed == {name: torch.float32 if name in wide else dtype for name in EMBEDDERS}
    torch.testing.assert_close(out.float(), plain.float(), rtol=0.1, atol=0.05)


def test_rule_5_a_wide_embedder_sees_wide_timesteps(small_flux, small_inputs):
    """Whatever is rounded to the picture's dtype on the way could not be told from its neighbours."""
    model, inputs = small_flux(dtype=torch.bfloat16), small_inputs(dtype=torch.bfloat16)
    model.time_in.float()
    seen = []
    model.time_in.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    for t in (0.7, 0.7001):
        model(**{**inputs, "timesteps": torch.full((3,), t)})
    assert not torch.equal(*seen)


class EightBit(nn.Module):
    """An embedder of 8-bit weights, as quantisers leave it: no parameter that one could compute in."""

    def __init__(self, embedder: nn.Module):
        super().__init__()
        self.layers = [embedder.in_layer, embedder.out_layer]
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float8_e4m3fn), requires_grad=False)
        self.register_buffer("codes", torch.zeros(2, dtype=torch.int8))

    def forward(self, x):
        first, second = self.layers
        return second(nn.functional.silu(first(x.to(first.weight.dtype))))


def test_rule_5_parts_in_eight_bits_are_fed_what_there_is(small_flux, small_inputs):
    model, inputs = small_flux(dtype=torch.bfloat16), small_inputs(dtype=torch.bfloat16)
    plain = model(**inputs)
    model.time_in, model.vector_in = EightBit(model.time_in), EightBit(model.vector_in)
    assert torch.equal(model(**inputs), plain)


def test_rule_5_autocast_casts_by_itself(small_flux, small_inputs):
    model, inputs = small_flux(), small_inputs(dtype=torch.bfloat16)
    seen = {}
    model.final_layer.register_forward_pre_hook(lambda module, given: seen.update(x=given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**inputs).dtype == torch.bfloat16
    assert seen == {"x": torch.bfloat16}


def test_rule_5_holds_on_the_meta_device_and_compiled_in_one_graph(small_flux, small_inputs):
    model, inputs = small_flux(dtype=torch.bfloat16), small_inputs(dtype=torch.bfloat16)
    model.time_in.float()
    expected = model(**inputs)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="eager")(**inputs), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.compile(model, fullgraph=True, backend="eager")(**inputs).dtype == torch.bfloat16
    out = model.to("meta")(**{name: tensor.to("meta") for name, tensor in inputs.items()})
    assert (out.shape, out.dtype, out.device.type) == (expected.shape, torch.bfloat16, "meta")


def test_rule_5_the_autoencoder_takes_any_dtype():
    ae = small_ae()
    picture = torch.rand(1, 3, 32, 32).bfloat16() * 2 - 1
    latent = ae.encode(picture)
    assert latent.dtype == torch.float32
    assert torch.equal(ae.decode(latent.bfloat16()), ae.decode(latent.bfloat16().float()))
    assert torch.equal(ae(picture), ae.decode(latent))


@pytest.mark.parametrize("guidance", [4.0, [4.0], torch.tensor(4.0), torch.tensor([4.0]).expand(3)], ids=str)
def test_rule_6_guidance_is_a_tensor_of_its_own(small_flux, small_inputs, guidance):
    inputs = small_inputs(batch=1 if isinstance(guidance, list) else 3)
    seen = []

    class Writer(nn.Module):
        def forward(self, img, guidance, **others):
            seen.append(guidance.tolist())
            guidance[-1] = 9.0
            assert guidance.tolist() == [4.0] * (len(img) - 1) + [9.0]
            return img

    texts = {name: inputs[name] for name in ("img", "img_ids", "txt", "txt_ids")}
    denoise(Writer(), **texts, vec=inputs["y"], timesteps=[1.0, 0.5, 0.0], guidance=guidance)
    assert seen == [[4.0] * len(inputs["img"])] * 2, "each evaluation gets its own"
    if isinstance(guidance, Tensor):
        assert guidance.flatten()[0] == 4.0


# Sampling


class Encoder:
    """Encodes in the dtype that it is given."""

    def __init__(self, dtype: torch.dtype, *shape: int):
        self.dtype, self.shape = dtype, shape

    def __call__(self, prompts):
        generator = torch.Generator().manual_seed(len(prompts[0]))
        return torch.randn(len(prompts), *self.shape, generator=generator).to(self.dtype)


@pytest.mark.parametrize("encoder", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("picture", [torch.bfloat16, torch.float32], ids=str)
def test_rule_7_texts_keep_the_encoders_dtype_and_unpack_what_it_gets(small_flux, encoder, picture):
    noise = get_noise(1, 32, 48, "cpu", picture, seed=0)
    t5, clip = Encoder(encoder, 5, 40), Encoder(encoder, 24)
    inputs = prepare(t5, clip, noise, "a boat")
    assert (inputs["img"].dtype, inputs["txt"].dtype, inputs["vec"].dtype) == (picture, encoder, encoder)
    assert torch.equal(unpack(inputs["img"], 32, 48), noise)
    assert unpack(inputs["img"], 32, 48).dtype == picture

    inputs["img"] = inputs["img"].float()  # clients cast the picture alone
    out = denoise(small_flux(), **inputs, timesteps=[1.0, 0.5, 0.0])
    assert out.dtype == torch.float32 and out.isfinite().all()


UPSTREAM_NAMES = {
    "flux": ["version_tuple"],
    "flux.util": [
        *("AutoEncoder", "AutoEncoderParams", "Flux", "FluxLoraWrapper", "FluxParams", "HFEmbedder"),
        *("WatermarkEncoder", "hf_hub_download", "load_sft", "login", "requests"),
    ],
    "flux.cli": ["denoise", "load_ae", "load_clip", "load_flow_model", "load_t5", "pipeline", "prepare"],
    "flux.modules.conditioner": ["CLIPTextModel", "CLIPTokenizer", "T5EncoderModel", "T5Tokenizer"],
}
PLACES = [(module, name) for module, names in UPSTREAM_NAMES.items() for name in names]


@pytest.mark.parametrize(("module", "name"), PLACES, ids=[".".join(place) for place in PLACES])
def test_rule_8_names_can_be_imported_and_patched(module, name):
    names = {}
    exec(f"from {module} import {name}", names)
    assert names[name] is not None
    assert name in dir(importlib.import_module(module))
    with mock.patch(f"{module}.{name}", "theirs"):
        exec(f"from {module} import {name}", names)
        assert names[name] == "theirs"
    exec(f"from {module} import {name}", names)
    assert names[name] != "theirs"


def test_rule_8_costly_names_are_imported_when_asked_for():
    code = (
        "import sys, flux.util, flux.cli, flux.modules.conditioner as c; "
        "print({'transformers', 'huggingface_hub', 'requests'} & set(sys.modules)); "
        "c.T5Tokenizer; print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["set()", "True"], done.stderr


def test_rule_8_a_missing_package_is_a_missing_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    assert not hasattr(util, "requests")
    with pytest.raises(ImportError, match="requests"):
        exec("from flux.util import requests")
    with pytest.raises(AttributeError, match="module 'flux.util' has no attribute 'reqests'"):
        util.reqests  # noqa: B018


@pytest.fixture
def small_files(tmp_path, monkeypatch) -> Path:
    """Files of a small model called `own`."""
    record = replace(configs["flux-dev"], params=SMALL_FLOW, ae_params=SMALL_AE)
    monkeypatch.setitem(util.configs, "own", record)
    save_weights(tmp_path / record.repo_flow, random_state(Flux, SMALL_FLOW))
    save_weights(tmp_path / record.repo_ae, random_state(AutoEncoder, SMALL_AE))
    save_text_encoders(tmp_path)
    return tmp_path


def test_rule_8_what_is_patched_in_util_takes_effect(small_files, monkeypatch):
    asked = []

    def path(repo_id, filename, env_var):
        asked.append(filename)
        return small_files / filename

    class Own(Flux):
        pass

    monkeypatch.setattr(util, "configs", {"theirs": util.configs["own"]})
    monkeypatch.setattr(util, "get_checkpoint_path", path)
    monkeypatch.setattr(util, "Flux", Own)
    assert type(util.load_flow_model("theirs", "cpu")) is Own
    assert util.load_ae("theirs", "cpu").params == SMALL_AE
    assert asked == ["flux1-dev.safetensors", "ae.safetensors"]
    with pytest.raises(ValueError, match="flux-dev"):
        util.load_ae("flux-dev", "cpu")


def test_rule_8_a_patched_download_takes_effect(small_files, tmp_path, monkeypatch):
    monkeypatch.setattr(util, "CHECKPOINTS_DIR", tmp_path / "none")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    asked = []

    def download(repo_id, filename, **options):
        asked.append((repo_id, filename))
        return str(small_files / filename)

    monkeypatch.setattr(util, "hf_hub_download", download)
    with mock.patch("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None):
        util.load_flow_model("own", "cpu")
    assert asked == [("black-forest-labs/FLUX.1-dev", "flux1-dev.safetensors")]


def test_rule_8_patched_encoders_take_effect(small_files, monkeypatch):
    class Own(conditioner.T5EncoderModel):
        pass

    monkeypatch.setattr(conditioner, "T5EncoderModel", Own)
    monkeypatch.setenv("FLUX_REPO", str(small_files))
    assert type(util.load_t5("cpu", name="own").hf_module) is Own


def test_rule_8_the_watermark_encoder_marks_pictures_of_opencv():
    from flux.pictures.watermark import WATERMARK_BITS, embed_watermark, read_watermark

    levels = np.random.default_rng(0).integers(60, 200, (256, 320, 3), dtype=np.uint8)
    encoder = util.WatermarkEncoder()
    encoder.set_watermark("bits", WATERMARK_BITS)
    marked = encoder.encode(levels, "dwtDct")
    assert (marked.shape, marked.dtype, encoder.get_length()) == (levels.shape, np.uint8, len(WATERMARK_BITS))
    rgb = torch.from_numpy(marked[..., ::-1].copy()).permute(2, 0, 1).float() / 127.5 - 1
    assert read_watermark(rgb) == WATERMARK_BITS
    plain = torch.from_numpy(levels[..., ::-1].copy()).permute(2, 0, 1).float() / 127.5 - 1
    torch.testing.assert_close(rgb, embed_watermark(plain), rtol=0, atol=1e-6)
    encoder.set_watermark("bytes", b"\x05")
    assert encoder.get_length() == 8
    with pytest.raises(ValueError, match="rivaGan"):
        encoder.encode(levels, "rivaGan")
    with pytest.raises(ValueError, match="'uuid'"):
        encoder.set_watermark("uuid", "x")


def parts_of(name: str) -> dict[str, object]:
    record = configs[name]
    return {
        "params": record.params,
        "axes_dim": record.params.axes_dim,
        "ae_params": record.ae_params,
        "ch_mult": record.ae_params.ch_mult,
    }


def test_rule_11_no_two_models_share_a_part(monkeypatch):
    for one, other in combinations(configs, 2):
        ours, theirs = parts_of(one), parts_of(other)
        assert not [part for part in ours if ours[part] is theirs[part]], (one, other)
    monkeypatch.setattr(configs["flux-dev"].params, "depth", 1)
    monkeypatch.setattr(configs["flux-dev"].ae_params, "ch", 32)
    assert {record.params.depth for name, record in configs.items() if "dev-" in name} == {19}
    assert configs["flux-schnell"].ae_params.ch == 128


# Loading


def test_rule_9_a_script_in_upstreams_shape_runs_on_flux_tiny(tmp_path):
    """By environment variables alone; it draws what our own functions draw."""
    script, prompt = (
        Path(__file__).parent / "data" / "upstream_script.py",
        "a big red house on the grass by day",
    )
    source = {"PYTHONPATH": str(Path(flux.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(script), prompt, "pictures"],
        cwd=tmp_path,
        env=os.environ | source | {"FLUX_REPO": "flux-tiny", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("in the place of flux-dev") == 1
    with Image.open(tmp_path / "pictures" / "img_0.jpg") as image:
        made = np.asarray(image.convert("RGB"), dtype=np.float32)
    ours = generate(util.load_models("flux-tiny", device="cpu"), [prompt], [1], Sampling(8, 3.5, 128, 128))
    expected = (ours[0].clamp(-1, 1) + 1).permute(1, 2, 0).numpy() * 127.5
    assert np.square(made - expected).mean() < 100  # 28 dB, of bfloat16 and JPEG
    assert made.std() > 20


def decoded_by_hand(decoder: nn.Module, z: Tensor) -> Tensor:
    """A tiled decoder's loop, which asks each level for its attention."""
    h = decoder.conv_in(z)
    h = decoder.mid.block_2(decoder.mid.attn_1(decoder.mid.block_1(h)))
    for i in reversed(range(decoder.num_resolutions)):
        for j in range(decoder.num_res_blocks + 1):
            h = decoder.up[i].block[j](h)
            if len(decoder.up[i].attn) > 0:
                h = decoder.up[i].attn[j](h)
        if i != 0:
            h = decoder.up[i].upsample(h)
    h = decoder.norm_out(h)
    return decoder.conv_out(h * torch.sigmoid(h))


def test_rule_12_the_autoencoder_has_what_its_loop_needs():
    ae = small_ae()
    keys = set(ae.state_dict())
    for levels in (ae.encoder.down, ae.decoder.up):
        assert [len(level.attn) for level in levels] == [0, 0, 0, 0]
        assert all(isinstance(level.attn, nn.ModuleList) for level in levels)
    assert not [key for key in keys if ".attn." in key]
    assert ae.decoder.z_shape == (1, 16, 4, 4) and ae.encoder.in_ch_mult == (1, 1, 2, 2, 2)
    z = torch.randn(ae.decoder.z_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoded_by_hand(ae.decoder, z), ae.decoder(z))


@pytest.mark.parametrize(
    ("bias", "has"), [(nn.Linear(3, 4).bias, True), (None, False), (True, True), (False, False)]
)
def test_rule_12_lora_layers_say_what_they_are(bias, has):
    place = {"dtype": torch.bfloat16, "device": torch.device("cpu")}
    layer = LinearLora(in_features=3, out_features=4, bias=bias, rank=2, lora_bias=False, **place)
    assert (layer.dtype, layer.device, layer.lora_bias) == (torch.bfloat16, torch.device("cpu"), False)
    assert (layer.bias is not None, layer.lora_B.bias is not None) == (has, False)
    assert layer.weight.dtype == layer.lora_A.weight.dtype == torch.bfloat16
    plain = FluxLoraWrapper(lora_rank=2, params=SMALL_FLOW)
    assert plain.img_in.lora_bias is True and plain.img_in.dtype == torch.float32


def test_rule_12_a_state_dict_is_expanded_in_place():
    model, state = nn.Linear(5, 3), {"weight": torch.ones(2, 4), "bias": torch.ones(3)}
    assert util.optionally_expand_state_dict(model, state) is state
    assert state["weight"].shape == (3, 5) and state["weight"].sum() == 8
    model.load_state_dict(state)


PLANS = {
    "plain": Hooks(),
    "skip": Hooks(skip={0: "mlp", "single.1": True}),
    "inject": Hooks(inject={0: CopySource(select=TopRatio(0.5)), 3: [CopySource(strength=0.5)]}),
    "mask": Hooks(inject={1: CopySource(select=Mask(torch.ones(4, 4)))}).at(1, 4, t=0.5, img_len=16),
    "attend": Hooks(attend={"single.0": attend_plainly}),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_rule_13_plans_can_be_pickled_and_deep_copied(small_flux, small_inputs, plan, duplicate):
    model, inputs = small_flux(), small_inputs()
    twin = duplicate(plan)
    assert twin is not plan and (twin.step, twin.t, twin.img_len) == (plan.step, plan.t, plan.img_len)
    assert torch.equal(model(**inputs, hooks=twin), model(**inputs, hooks=plan))


@pytest.mark.parametrize("name", [name for name in hooks.__all__ if isinstance(getattr(hooks, name), type)])
def test_rule_13_pickles_from_before_hooks_was_a_folder_can_be_read(name):
    assert pickle.loads(b"cflux.hooks\n" + name.encode() + b"\n.") is getattr(hooks, name)


# The autograd graph


def test_what_load_models_gives_builds_no_graph(small_files):
    models = util.load_models("own", device="cpu", weights=small_files)
    for part in (models.flow, models.ae, models.t5, models.clip):
        assert not any(parameter.requires_grad for parameter in part.parameters())
    noise = get_noise(1, 32, 32, models.device, models.dtype, seed=0)
    inputs = prepare(models.t5, models.clip, noise, ["a boat", "the sea"])
    maps = AttentionMaps()
    latent = denoise(models.flow, **inputs, timesteps=get_schedule(2, 4), hooks=Hooks(inject={0: maps}))
    pictures = models.ae.decode(unpack(latent, 32, 32))
    assert not any(each.requires_grad for each in (latent, pictures, *maps.maps.values()))
    assert pictures.numpy().shape == (2, 3, 32, 32)


def test_what_upstreams_loaders_give_can_be_trained(small_files, monkeypatch):
    monkeypatch.setenv("FLUX_REPO", str(small_files))
    monkeypatch.setattr(util.configs["own"], "home", None)
    flow, ae = util.load_flow_model("own", "cpu", dtype=torch.float32), util.load_ae("own", "cpu")
    assert all(parameter.requires_grad for part in (flow, ae) for parameter in part.parameters())
    clip, t5 = util.load_clip("cpu", name="own"), util.load_t5("cpu", name="own")
    inputs = prepare(t5, clip, get_noise(1, 32, 32, "cpu", torch.float32, seed=0).requires_grad_(), "a boat")
    latent = denoise(flow, **inputs, timesteps=[1.0, 0.5, 0.0])
    ae.decode(unpack(latent, 32, 32)).square().mean().backward()
    for part in (flow, ae.decoder):
        assert all(parameter.grad.isfinite().all() for parameter in part.parameters())
    assert flow.img_in.weight.grad.abs().sum() > 0


def test_the_snippet_in_the_readme_builds_no_graph():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    snippet = text.partition("## As a library\n\n```python\n")[2].partition("\nmodels.flow(...")[0]
    assert "inference_mode" not in snippet and "no_grad" not in snippet
    names = {}
    exec(snippet, names)
    assert names["pictures"].shape == (2, 3, 128, 128) and names["pictures"].std() > 0.2
    assert not names["pictures"].requires_grad and not names["latent"].requires_grad
