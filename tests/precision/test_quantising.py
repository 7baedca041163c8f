"""Weights in int8, fp8 and nf4: which, when, in how many bytes, and with LoRAs, hooks and compilation."""

import sys
from dataclasses import replace

import pytest
import torch
from helpers_loras import SMALL, kohya, updates
from helpers_models import SMALL_FLOW, flow_inputs, random_state, save_weights
from torch import nn

from flux.formats.fill import load_into
from flux.formats.header import CheckpointError
from flux.hooks import Hooks
from flux.lora.applying import MergesFirst, apply_loras
from flux.lora.choice import LoraChoice
from flux.lora.reading import read_lora
from flux.model import Flux
from flux.models import configs
from flux.precision.choice import Precision
from flux.precision.quantising import Quantiser, is_quantised
from flux.precision.sizes import flow_bytes, t5_bytes
from flux.util import load_models

pytest.importorskip("torchao")

ERROR = {"int8": 0.02, "fp8": 0.06, "nf4": 0.25}
"""How far a quantised layer's output may be from the plain one's, relative, root mean square."""


def bytes_of(tensor):
    """Of a tensor, or of the plain ones that it is made of."""
    if not is_quantised(tensor):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    parts = [getattr(tensor, name) for name in names]
    return sum(bytes_of(part) for part in parts if isinstance(part, torch.Tensor))


def filled_with(tmp_path, precision, params=SMALL_FLOW, dtype=torch.float32, state=None, **more):
    file = save_weights(tmp_path / "flow.safetensors", state or random_state(Flux, params))
    with torch.device("meta"):
        model = Flux(params)
    quantiser = Quantiser(precision, "flow model", params.depth, **more)
    load_into(model, file, "cpu", dtype, filled=quantiser)
    return model.requires_grad_(False)


def plain_model(state):
    model = Flux(SMALL_FLOW)
    model.load_state_dict(state)
    return model.requires_grad_(False)


def quantised_names(model):
    return {name for name, parameter in model.named_parameters() if is_quantised(parameter)}


def wanted_names(state, but=()):
    """The weights of linear layers in blocks, modulation left out, and layers left out."""
    before = tuple(
        f"double_blocks.{i}." if i < SMALL_FLOW.depth else f"single_blocks.{i - SMALL_FLOW.depth}."
        for i in but
    )
    return {
        key
        for key, x in state.items()
        if "blocks." in key and x.ndim == 2 and "mod" not in key and not key.startswith(before or ("-",))
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ERROR)
@torch.no_grad()
def test_the_right_weights_are_quantised_and_the_others_as_they_were(tmp_path, name, dtype):
    state = random_state(Flux, SMALL_FLOW)
    model = filled_with(tmp_path, Precision(name), dtype=dtype)
    assert quantised_names(model) == wanted_names(state)
    for key, parameter in model.named_parameters():
        assert is_quantised(parameter) or torch.equal(parameter, state[key].to(dtype))
        assert parameter.dtype == dtype
    x = flow_inputs(dtype)
    plain = plain_model(state).to(dtype)
    found, wanted = model(**x).float(), plain(**x).float()
    error = ((found - wanted).pow(2).mean() / wanted.pow(2).mean()).sqrt()
    assert 0 < error < 3 * ERROR[name]
    for key in ("double_blocks.0.img_attn.qkv", "single_blocks.1.linear2"):
        layer, before = model.get_submodule(key), plain.get_submodule(key)
        y = torch.randn(4, layer.in_features, dtype=dtype)
        gone = (layer(y) - before(y)).float().pow(2).mean() / before(y).float().pow(2).mean()
        assert gone.sqrt() < ERROR[name]


def test_layers_that_are_kept_stay_in_full(tmp_path):
    state = random_state(Flux, SMALL_FLOW)
    model = filled_with(tmp_path, Precision("int8", (1, 2, 4)))
    assert quantised_names(model) == wanted_names(state, but=(1, 2, 4))


def test_there_is_never_more_than_one_weight_in_full(tmp_path):
    wanted, waiting = wanted_names(random_state(Flux, SMALL_FLOW)), []

    def count(model, layer):
        there = dict(model.named_parameters())
        waiting.append(sum(not (there[key].is_meta or is_quantised(there[key])) for key in wanted))

    filled_with(tmp_path, Precision("int8"), before=count)
    assert waiting == [1] * len(wanted)


@pytest.mark.parametrize("kept", [(), (0, 5)], ids=["all", "but two"])
@pytest.mark.parametrize("name", ERROR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bytes_are_those_that_are_told_before(tmp_path, name, kept, dtype):
    spec = configs["flux-tiny"]
    model = filled_with(tmp_path, Precision(name, kept), spec.params, dtype)
    counted = sum(map(bytes_of, model.parameters()))
    told = flow_bytes(spec, Precision(name, kept), dtype.itemsize)
    assert abs(counted - told) < 0.05 * counted
    assert counted < 0.9 * flow_bytes(spec, None, dtype.itemsize)


def test_figures_of_flux_dev():
    """24 GB in bfloat16; in 8 and 4 bits what stays is mostly modulation, 6.5 GB of it."""
    spec = configs["flux-dev"]
    told = {name: flow_bytes(spec, name and Precision(name), 2) / 1e9 for name in (None, "int8", "nf4")}
    assert told == pytest.approx({None: 23.8, "int8": 15.3, "nf4": 11.1}, abs=0.15)
    assert t5_bytes(spec, Precision("int8"), 2) / 1e9 == pytest.approx(4.9, abs=0.1)


@torch.no_grad()
def test_hooks_see_what_they_see_in_full(tmp_path):
    model = filled_with(tmp_path, Precision("int8"))
    plain = plain_model({key: _numbers(x) for key, x in model.state_dict().items()})
    for hooks in (Hooks(skip=(0, 3)), Hooks(inject={1: lambda q, k, v, site: (q, k.roll(1, 2), v)})):
        found, wanted = model(**flow_inputs(), hooks=hooks), plain(**flow_inputs(), hooks=hooks)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(found, model(**flow_inputs()), atol=1e-2)


def _numbers(x):
    return x.dequantize() if is_quantised(x) else x


def lora(tmp_path):
    only = {"double_blocks.0.img_mlp.0", "single_blocks.1.linear1", "img_in"}
    style = save_weights(tmp_path / "style.safetensors", kohya(updates(SMALL_FLOW, only=lambda n: n in only)))
    return (read_lora(LoraChoice(style), SMALL, "flux-dev"),)


@torch.no_grad()
def test_loras_are_merged_before_weights_are_quantised(tmp_path):
    state, loras = random_state(Flux, SMALL_FLOW), lora(tmp_path)
    first = MergesFirst(loras, "flow model")
    model = filled_with(tmp_path, Precision("int8"), before=first)
    assert first.merged == {"double_blocks.0.img_mlp.0", "single_blocks.1.linear1"}
    apply_loras(model, loras, merged=first.merged, keep=False)
    merged = plain_model(state)
    apply_loras(merged, loras)
    wanted = filled_with(tmp_path, Precision("int8"), state=merged.state_dict())
    for (key, found), (_, other) in zip(model.named_parameters(), wanted.named_parameters(), strict=True):
        assert torch.equal(_numbers(found), _numbers(other)), key


@pytest.mark.parametrize("name", ERROR)
@torch.no_grad()
def test_loras_beside_quantised_weights(tmp_path, name):
    loras, model = lora(tmp_path), filled_with(tmp_path, Precision(name))
    before = model(**flow_inputs())
    with pytest.raises(CheckpointError, match=r"style.safetensors cannot be merged into .*\(lora_live\)$"):
        apply_loras(model, loras)
    assert torch.equal(model(**flow_inputs()), before)
    with apply_loras(model, loras, live=True):
        assert not torch.allclose(model(**flow_inputs()), before, atol=1e-2)
    assert torch.equal(model(**flow_inputs()), before)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    state = random_state(Flux, SMALL_FLOW)
    state["double_blocks.1.txt_mlp.2.weight"][3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"flow model's double_blocks.1.txt_mlp.2.weight is not finite"):
        filled_with(tmp_path, Precision("int8"), state=state)


@pytest.mark.parametrize("name", ERROR)
@torch.no_grad()
def test_a_quantised_block_compiles_to_one_graph(tmp_path, name):
    model = filled_with(tmp_path, Precision(name))
    mlp, x = model.double_blocks[0].img_mlp, torch.randn(2, 5, 64)
    compiled = torch.compile(mlp, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), mlp(x), rtol=0, atol=1e-5)


def test_without_torchao_nothing_is_read(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr("flux.weights.load.load_t5", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(ImportError) as error:
        load_models("flux-tiny", device="cpu", precision="fp8")
    assert str(error.value).startswith("precision fp8 needs torchao") and "flux[quant]" in str(error.value)


@torch.no_grad()
def test_a_whole_model_with_its_text_encoder(tmp_path):
    plain = load_models("flux-tiny", device="cpu", dtype="float32")
    models = load_models(
        "flux-tiny", device="cpu", dtype="float32", precision={"others": "int8", "keep": [0, 11]}
    )
    assert models.precision == Precision("int8", (0, 11)) and models.dtype == torch.float32
    linear = {
        f"{name}.weight"
        for name, module in plain.t5.hf_module.named_modules()
        if isinstance(module, nn.Linear)
    }
    assert quantised_names(models.t5.hf_module) == linear and not quantised_names(models.clip)
    assert not quantised_names(models.ae) and len(quantised_names(models.flow)) == 3 * 8 + 7 * 2
    prompt = ["a red house"]
    found, wanted = models.t5(prompt).float(), plain.t5(prompt).float()
    assert 0 < (found - wanted).pow(2).mean() < 1e-3 * wanted.pow(2).mean()
    told = t5_bytes(configs["flux-tiny"], Precision("int8"), 4)
    counted = sum(map(bytes_of, models.t5.parameters()))
    assert abs(told - counted) < 0.05 * counted
    assert replace(models, precision=None).precision is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ERROR)
@torch.no_grad()
def test_on_a_gpu_as_on_a_cpu(tmp_path, name):
    model = filled_with(tmp_path, Precision(name), dtype=torch.bfloat16)
    at_once = filled_with(tmp_path, Precision(name), dtype=torch.bfloat16, at=torch.device("cuda"))
    here = model(**flow_inputs(torch.bfloat16)).float()
    on_gpu = {key: x.cuda() for key, x in flow_inputs(torch.bfloat16).items()}
    for each in (model, at_once):
        there = each.cuda()(**on_gpu).float().cpu()
        assert (there - here).pow(2).mean() < 1e-3 * here.pow(2).mean()


@torch.no_grad()
def test_a_client_passes_a_quantization_config(tmp_path):
    from helpers_models import save_text_encoders
    from transformers import TorchAoConfig

    from flux.modules.conditioner import HFEmbedder

    quantization = pytest.importorskip("torchao.quantization")
    save_text_encoders(tmp_path)
    folder, options = str(tmp_path / "text_encoder_2"), {"torch_dtype": torch.float32}
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    encoder = HFEmbedder(folder, 8, quantization_config=config, **options)
    assert quantised_names(encoder.hf_module) and encoder(["a boat"]).isfinite().all()
    with pytest.raises(ValueError, match="load_in_8bit is no option of transformers 5.*quantization_config$"):
        HFEmbedder(folder, 8, load_in_8bit=True, **options)


@torch.no_grad()
def test_offload_changes_no_picture_of_quantised_weights():
    from flux.generate import Sampling, generate

    models = load_models("flux-tiny", device="cpu", dtype="float32", precision="int8")
    sampling, prompts = Sampling(2, 3.5, 64, 64), ["a red house"]
    wanted = generate(models, prompts, [1], sampling)
    for offload in (True, "modulation", "stream"):
        assert torch.equal(generate(models, prompts, [1], sampling, offload=offload), wanted), offload
