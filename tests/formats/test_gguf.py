"""GGUF files: unpacked as their own package does, kept packed in the model, refused in one line."""

import os
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_gguf import as_llama_cpp, packed, write_gguf
from helpers_layouts import make_small, place, shrink
from helpers_models import SMALL_FLOW, flow_inputs, random_state

from flux.formats.gguf_blocks import BLOCKS, unpack
from flux.formats.header import CheckpointError
from flux.formats.packed import is_packed
from flux.hooks import Hooks
from flux.lora.applying import apply_loras
from flux.lora.choice import LoraChoice
from flux.lora.reading import read_lora
from flux.model import Flux
from flux.precision.choice import Precision
from flux.util import load_ae, load_flow_model, load_models, load_t5
from flux.weights.load import _kept_in as kept_in
from flux.weights.load import load_flow_model as load_with_choice

gguf = pytest.importorskip("gguf")


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def state():
    return random_state(Flux, SMALL_FLOW)


def in_blocks(kind):
    """As published files have it: what is not in a block, and what has one axis, is not packed."""
    return lambda key: kind if "blocks." in key else None


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of random bytes, some are no numbers
@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_unpacked_as_by_their_package(kind):
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, (7, 3 * BLOCKS[kind].size), dtype=np.uint8)
    wanted = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    found = unpack(torch.from_numpy(data), kind, torch.float32).numpy()
    assert np.array_equal(found, wanted, equal_nan=True) and np.isfinite(wanted).mean() > 0.5


def test_blocks_are_those_of_the_package():
    sizes = {kind: gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] for kind in BLOCKS}
    assert sizes == {kind: (layout.numbers, layout.size) for kind, layout in BLOCKS.items()}


def test_unpacking_in_parts_changes_nothing(monkeypatch):
    weight = packed(torch.randn(9, 64, generator=torch.Generator().manual_seed(0)), "Q5_1")
    whole = unpack(torch.from_numpy(weight), "Q5_1", torch.bfloat16)
    monkeypatch.setattr("flux.formats.gguf_blocks.AT_A_TIME", 130)
    assert torch.equal(unpack(torch.from_numpy(weight), "Q5_1", torch.bfloat16), whole)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q6_K"])
@torch.no_grad()
def test_a_model_keeps_its_weights_packed_and_draws_as_with_its_numbers(state, tmp_path, monkeypatch, kind):
    numbers = write_gguf(tmp_path / "flux1-dev-Q.gguf", state, in_blocks(kind))
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "flux1-dev-Q.gguf"))
    model = load_flow_model("flux-dev", "cpu", dtype=torch.float32)
    plain = Flux(SMALL_FLOW)
    plain.load_state_dict(numbers)
    layers = {name for name, module in model.named_modules() if is_packed(module)}
    assert layers == {
        key.removesuffix(".weight")
        for key, x in state.items()
        if "blocks." in key and x.ndim == 2 and x.shape[1] % BLOCKS[kind].numbers == 0
    }
    for name in layers:
        kept = model.get_submodule(name).parametrizations.weight.original
        assert kept.dtype == torch.uint8 and kept.numel() * BLOCKS[kind].numbers == (
            numbers[f"{name}.weight"].numel() * BLOCKS[kind].size
        )
    for hooks in (None, Hooks(skip=(1,))):
        assert torch.equal(model(**flow_inputs(), hooks=hooks), plain(**flow_inputs(), hooks=hooks))


def test_a_precision_that_is_asked_for_unpacks(state, tmp_path, monkeypatch):
    numbers = write_gguf(tmp_path / "a.gguf", state, in_blocks("Q4_0"))
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "a.gguf"))
    model = load_with_choice("flux-dev", "cpu", dtype=torch.bfloat16, packs=False)
    assert all(torch.equal(x, numbers[key].bfloat16()) for key, x in model.state_dict().items())


def test_a_quantised_precision_is_given_plain_numbers(state, tmp_path, monkeypatch):
    numbers, seen = write_gguf(tmp_path / "a.gguf", state, in_blocks("Q8_0")), []
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "a.gguf"))
    monkeypatch.setattr(
        "flux.precision.quantising.quantise",
        lambda linear, scheme: seen.append((is_packed(linear), linear.weight.detach().clone())),
    )
    cpu = torch.device("cpu")
    kept = kept_in(Precision("int8"), "flow model", cpu, lambda model, layer: None, SMALL_FLOW.depth)
    load_with_choice("flux-dev", cpu, dtype=torch.float32, **kept)
    assert len(seen) > 10 and not any(packed for packed, _ in seen)
    assert any(torch.equal(seen[0][1], each) for each in numbers.values())


def test_a_pipe_in_the_place_of_an_encoder(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "t5.gguf")
    assert fails(
        monkeypatch, tmp_path / "t5.gguf", "FLUX_T5", lambda *at: load_t5("cpu", 8, name="flux-dev")
    ).endswith("t5.gguf is no regular file: name a weight file")


def test_numbers_that_are_not_packed(state, tmp_path, monkeypatch):
    for plain in (np.float16, np.float32):
        numbers = write_gguf(tmp_path / "a.gguf", state, None, plain=plain)
        monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "a.gguf"))
        model = load_flow_model("flux-dev", "cpu")
        assert all(torch.equal(x.float(), numbers[key]) for key, x in model.state_dict().items())
    half = {key: x.bfloat16() for key, x in state.items()}
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    for key, x in half.items():
        writer.add_tensor(key, x.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = load_flow_model("flux-dev", "cpu")
    assert all(torch.equal(x, half[key]) for key, x in model.state_dict().items())


@pytest.mark.parametrize("names", ["llama.cpp", "transformers"])
def test_t5_under_both_names(tmp_path, monkeypatch, names):
    small = make_small(tmp_path / "small")
    own = small.states["T5"]
    state = as_llama_cpp(own) if names == "llama.cpp" else own
    only = {key for key, x in own.items() if x.ndim == 2 and ".layer." in key and "bias" not in key}
    kinds = {theirs: "Q8_0" for theirs, ours in zip(state, own, strict=True) if ours in only}
    numbers = write_gguf(tmp_path / "t5.gguf", state, kinds.get, architecture="t5encoder")
    by_ours = dict(zip(own, numbers.values(), strict=True))
    folder = place("T5", by_ours, tmp_path / "plain", small)
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("FLUX_T5", str(folder))
    plain = load_t5("cpu", 8, name="flux-dev", dtype=torch.float32)(["a boat"])
    monkeypatch.setenv("FLUX_T5", str(tmp_path / "t5.gguf"))
    encoder = load_t5("cpu", 8, name="flux-dev", dtype=torch.float32)
    assert torch.equal(encoder(["a boat"]), plain)
    kept = [module for module in encoder.hf_module.modules() if is_packed(module)]
    assert len(kept) == sum(own[key].shape[1] % 32 == 0 for key in only) > 0


def cut(data):
    return data[: len(data) // 2]


def endless(data):
    """A header whose first field is an array of more bytes than anyone can count."""
    return struct.pack("<4sIQQQ3sIIQ", b"GGUF", 3, 0, 1, 3, b"abc", 9, 0, 2**60) + bytes(64)


@pytest.mark.parametrize("change", [cut, lambda data: data[:30], lambda data: b"GGUF" + bytes(200), endless])
def test_a_damaged_file_is_one_line(state, tmp_path, monkeypatch, change):
    file = tmp_path / "flux1-dev-Q8_0.gguf"
    write_gguf(file, state, in_blocks("Q8_0"))
    file.write_bytes(change(file.read_bytes()))
    monkeypatch.setenv("FLUX_MODEL", str(file))
    with pytest.raises(CheckpointError) as error:
        load_flow_model("flux-dev", "cpu")
    message = str(error.value)
    assert "flux1-dev-Q8_0.gguf" in message and "download it again" in message and "\n" not in message


def fails(monkeypatch, file, variable="FLUX_MODEL", loader=load_flow_model):
    monkeypatch.setenv(variable, str(file))
    with pytest.raises(CheckpointError) as error:
        loader("flux-dev", "cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_models_file(state, tmp_path, monkeypatch):
    file = tmp_path / "a.gguf"
    write_gguf(file, state, architecture="llama")
    assert "another model, 'llama'" in fails(monkeypatch, file)
    wider = random_state(Flux, replace(SMALL_FLOW, depth=3))
    write_gguf(file, wider)
    assert "does not fit the model" in fails(monkeypatch, file)
    write_gguf(file, {"img_in.weight": state["img_in.weight"]})
    assert "missing: " in fails(monkeypatch, file)
    writer = gguf.GGUFWriter(file, "flux")
    writer.add_tensor(
        "img_in.weight", np.zeros((64, 36), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ4_NL
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "numbers of type IQ4_NL (img_in.weight), which are not read" in fails(monkeypatch, file)
    assert "not safetensors" in fails(monkeypatch, file, "FLUX_AE", load_ae)


def test_without_the_package(state, tmp_path, monkeypatch):
    write_gguf(tmp_path / "a.gguf", state)
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "a.gguf"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r'^a GGUF file needs gguf.*pip install.*"flux\[quant\]"$'):
        load_flow_model("flux-dev", "cpu")


@torch.no_grad()
def test_loras_go_beside_what_is_packed(state, tmp_path, monkeypatch):
    from helpers_loras import SMALL, kohya, updates
    from helpers_models import save_weights

    numbers = write_gguf(tmp_path / "a.gguf", state, in_blocks("Q8_0"))
    style = tmp_path / "style.safetensors"
    save_weights(style, kohya(updates(SMALL_FLOW, only=lambda name: name == "double_blocks.0.img_mlp.0")))
    loras = (read_lora(LoraChoice(style), SMALL, "flux-dev"),)
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "a.gguf"))
    model = load_flow_model("flux-dev", "cpu", dtype=torch.float32)
    with pytest.raises(CheckpointError, match=r"style.safetensors cannot be merged into .* \(lora_live\)$"):
        apply_loras(model, loras)
    monkeypatch.setattr("flux.weights.load.load_t5", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(CheckpointError, match=r"style.safetensors cannot be merged into .*a.gguf, whose wei"):
        load_models("flux-dev", device="cpu", lora=str(style))
    plain = Flux(SMALL_FLOW)
    plain.load_state_dict(numbers)
    before = model(**flow_inputs())
    apply_loras(plain, loras)
    with apply_loras(model, loras, live=True):
        torch.testing.assert_close(model(**flow_inputs()), plain(**flow_inputs()), rtol=0, atol=1e-4)
    assert torch.equal(model(**flow_inputs()), before)


@torch.no_grad()
def test_a_packed_layer_compiles_to_one_graph():
    from flux.formats.packed import keep_packed

    linear = torch.nn.Linear(64, 8)
    keep_packed(linear, torch.from_numpy(packed(torch.randn(8, 64), "Q4_0")), "Q4_0", torch.float32)
    x = torch.randn(2, 64)
    wanted = linear(x)
    assert torch.equal(torch.compile(linear, backend="eager", fullgraph=True)(x), wanted)
    assert linear.weight.shape == (8, 64)
