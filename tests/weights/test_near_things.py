"""Names that are nearly right, variables nobody uses, no network, dry runs, and silence while loading."""

import json
import shutil
import warnings
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from helpers_layouts import make_small, place, shrink
from helpers_models import save_weights

from flux.device import pick_device
from flux.formats.header import CheckpointError
from flux.models import configs
from flux.pictures.features import Dino
from flux.studies.needed import needed_files
from flux.studies.text.spec import TestSpec as TextSpec
from flux.util import load_ae, load_flow_model, load_models, load_t5
from flux.weights import hub
from flux.weights.load import check_ae

TINY = configs["flux-tiny"].home


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def world(monkeypatch, tmp_path):
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)


def refusal(load, *args, **kwargs) -> str:
    with pytest.raises(CheckpointError) as error:
        load(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_says_which_files_it_holds(world, small, tmp_path, monkeypatch):
    file = place("flow", small.states["flow"], tmp_path / "models", small, "flux1-dev-fp8.safetensors")
    monkeypatch.setenv("FLUX_MODEL", str(file.parent))
    assert "it holds flux1-dev-fp8.safetensors: name the file itself" in refusal(
        load_flow_model, "flux-dev", "cpu"
    )
    monkeypatch.setenv("FLUX_T5", str(file.parent))
    assert "name the encoder's folder or a clone" in refusal(load_t5, "cpu")
    monkeypatch.setenv("FLUX_REPO", str(file))
    monkeypatch.delenv("FLUX_MODEL")
    assert "FLUX_MODEL, FLUX_AE, FLUX_T5 and FLUX_CLIP name single files" in refusal(
        load_flow_model, "flux-dev", "cpu"
    )


def test_a_cache_of_two_releases_asks_for_one(world, tmp_path, monkeypatch):
    for release in ("one", "two"):
        (tmp_path / "models--org--name" / "snapshots" / release).mkdir(parents=True)
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "models--org--name"))
    assert "2 releases in snapshots/: name the folder of one" in refusal(load_flow_model, "flux-dev", "cpu")


def test_a_text_encoders_file_finds_its_tokenizer_in_the_clone(world, small, tmp_path, monkeypatch):
    folder = place("T5", small.states["T5"], tmp_path / "clip", small, "t5xxl_fp16.safetensors")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    monkeypatch.setenv("FLUX_T5", str(folder / "t5xxl_fp16.safetensors"))
    monkeypatch.setenv("FLUX_REPO", str(small.clone))
    assert load_t5("cpu", 8)(["a boat"]).shape == (1, 8, 48)


def test_shards_of_which_one_is_missing(world, small, tmp_path, monkeypatch):
    for i in (1, 3):
        save_weights(tmp_path / f"model-{i:05}-of-00003.safetensors", {f"a{i}": torch.ones(1)})
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "model-00001-of-00003.safetensors"))
    assert "model-00002-of-00003.safetensors is missing" in refusal(load_flow_model, "flux-dev", "cpu")


@pytest.mark.parametrize("name, variable, why", [
    ("flux-tiny", "FLUX_MODEL", "FLUX_MODEL is set and not used: flux-tiny is loaded"),
    ("flux-dev", "FLUX_DEV", "FLUX_DEV is set and not used: flux-dev looks at FLUX_AE, FLUX_CLIP"),
])  # fmt: skip
def test_variables_that_nobody_uses_are_said(monkeypatch, name, variable, why, tmp_path):
    monkeypatch.setenv(variable, "something")
    monkeypatch.setitem(configs, "flux-dev", replace(configs["flux-dev"], params=configs["flux-tiny"].params))
    monkeypatch.setattr("flux.weights.load.find_flow", lambda *args: _stop())
    with pytest.warns(UserWarning) as caught, pytest.raises(KeyboardInterrupt):
        load_models(name, device="cpu")
    (line,) = [str(w.message) for w in caught if "FLUX_" in str(w.message)]
    assert line.startswith(why)


def _stop():
    raise KeyboardInterrupt


def test_without_a_network_the_hubs_client_is_not_asked(world, monkeypatch):
    """It would keep on trying for half a minute, and print a line for each time."""
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args, **kwargs: pytest.fail("asked"))
    message = refusal(load_flow_model, "flux-dev", "cpu")
    assert "no answer from" in message and "set FLUX_MODEL to a file" in message
    assert "T5" in refusal(load_t5, "cpu")


def test_the_hub_is_asked_once(monkeypatch):
    asked = []

    def urlopen(request, timeout):
        asked.append(request.full_url)
        raise OSError("no route")

    monkeypatch.setattr(hub.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(hub.NoHub, match="does not answer"):
        hub.require_hub()
    assert len(asked) == 1


# Dry runs


def tiny_clone(folder):
    shutil.copytree(TINY, folder)
    return folder


def cut(file):
    file.write_bytes(file.read_bytes()[:-50])


def without_tensors(file):
    file.write_bytes((2).to_bytes(8, "little") + b"{}")


def with_fewer_layers(file):
    from safetensors.torch import load_file, save_file

    tensors = {key: x for key, x in load_file(file).items() if "block.2." not in key}
    save_file(tensors, file, metadata={"format": "pt"})


SPOILT = {
    "a truncated T5": ("text_encoder_2/model.safetensors", cut, 2, "damaged"),
    "a T5 of fewer layers": (
        "text_encoder_2/model.safetensors",
        with_fewer_layers,
        2,
        "missing: encoder.block.2",
    ),
    "an autoencoder of no tensors": ("ae.safetensors", without_tensors, 1, "missing: encoder.conv_in.weight"),
    "an empty autoencoder": ("ae.safetensors", lambda file: file.write_bytes(b""), 1, "empty"),
    "an empty tokenizer": (
        "tokenizer/tokenizer.json",
        lambda file: file.write_text("{}"),
        3,
        "empty JSON object",
    ),
    "a web page as DINO": ("dino/model.safetensors", lambda file: file.write_text("<html>"), 4, "a web page"),
}


@pytest.mark.parametrize("path, spoil, row, said", SPOILT.values(), ids=SPOILT)
def test_a_dry_run_looks_at_headers(tmp_path, path, spoil, row, said):
    clone = tiny_clone(tmp_path / "clone")
    spec = TextSpec.model_validate(
        {"model": {"name": "flux-tiny", "weights": str(clone)}, "prompts": ["a hat"]}
    )
    others = {"DINO": str(clone / "dino")}
    assert all(state.startswith("there") for _, _, state in needed_files(spec, others))
    spoil(clone / path)
    states = [state for _, _, state in needed_files(spec, others)]
    assert said in states[row] and all(
        state.startswith("there") for i, state in enumerate(states) if i != row
    )


def test_checks_of_headers_read_no_tensor(monkeypatch):
    monkeypatch.setattr("flux.formats.weights.Weights.__getitem__", lambda *args: pytest.fail("read"))
    check_ae(configs["flux-tiny"], TINY / "ae.safetensors")


def test_a_flow_model_that_does_not_fit_is_refused_before_t5_is_read(world, small, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    shutil.copytree(small.clone, clone)
    few = {key: x for key, x in small.states["flow"].items() if not key.startswith("final_layer")}
    save_weights(clone / "flux1-dev.safetensors", few)
    save_weights(clone / "ae.safetensors", small.states["autoencoder"])
    monkeypatch.setattr("flux.weights.load.load_t5", lambda *args, **kwargs: pytest.fail("T5 was read"))
    assert "missing: final_layer" in refusal(load_models, "flux-dev", device="cpu", weights=clone)


# Silence


def test_nothing_is_shown_while_models_load(capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_models("flux-tiny", device=pick_device("cpu"))
        Dino(TINY / "dino")
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()  # of other models, as it was


def test_an_autoencoder_of_the_package_computes_in_float32():
    assert json.loads((TINY / "card.json").read_text())  # the folder that load_ae takes
    assert {p.dtype for p in load_ae("flux-tiny", "cpu").parameters()} == {torch.float32}
