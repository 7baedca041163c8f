"""Where weight files are looked for, what is wrong with them, and how they get into a model."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from helpers_models import (
    SMALL_AE,
    SMALL_FLOW,
    random_state,
    save_shards,
    save_text_encoders,
    save_weights,
    small_ae,
    small_model,
    without_guidance,
)
from huggingface_hub import errors
from safetensors.torch import save_file

from flux.formats.fill import load_into
from flux.formats.weights import Weights
from flux.model import Flux
from flux.models import configs
from flux.modules.autoencoder import AutoEncoder
from flux.util import load_ae, load_clip, load_flow_model, load_models, load_t5
from flux.weights import convert
from flux.weights import find as checkpoints
from flux.weights.check import CheckpointError, read_header
from flux.weights.find import find_file, find_text_encoder, locate_file
from flux.weights.parts import CLIP, T5

VARIABLES = ("FLUX_MODEL", "FLUX_AE", "FLUX_T5", "FLUX_CLIP", "FLUX_LORA", "FLUX_REDUX", "FLUX_REPO")
DEV = "black-forest-labs/FLUX.1-dev"
STATE = random_state(Flux, SMALL_FLOW)
AE_STATE = random_state(AutoEncoder, SMALL_AE, seed=1)


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    """Small models under the official names, an empty working folder, no variables and no network."""
    for name, spec in list(configs.items()):
        params = replace(
            SMALL_FLOW, in_channels=spec.params.in_channels, guidance_embed=spec.params.guidance_embed
        )
        monkeypatch.setitem(configs, name, replace(spec, params=params, ae_params=SMALL_AE, lora_rank=4))
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", raising(AssertionError("no download here")))
    for module in ("hub", "load"):
        monkeypatch.setattr(f"flux.weights.{module}.require_hub", lambda: None)


def raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def one_line(told):
    """The message of an error, which must be one line."""
    message = str(told.value)
    assert "\n" not in message and len(message) > 20
    return message


def fails(*parts, name="flux-dev", load=load_flow_model, **kwargs):
    """Loading fails in one line that has every one of `parts`."""
    with pytest.raises(CheckpointError) as told:
        load(name, "cpu", **kwargs)
    message = one_line(told)
    for part in parts:
        assert str(part) in message, message


def assert_holds(model, state, dtype=torch.float32):
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    for key, tensor in state.items():
        assert loaded[key].dtype == dtype and torch.equal(loaded[key], tensor.to(dtype)), key


def official(folder, state=STATE, name="flux1-dev.safetensors"):
    return save_weights(folder / name, state)


def diffusers_flow(folder, params=SMALL_FLOW, state=STATE, **config):
    tensors = dict(convert.to_diffusers(convert.flow_rules(params), state))
    config = {"_class_name": "FluxTransformer2DModel", **convert.flow_config(params), **config}
    return save_shards(folder, tensors, config)


def diffusers_ae(folder, **config):
    tensors = dict(convert.to_diffusers(convert.ae_rules(SMALL_AE), AE_STATE))
    config = {"_class_name": "AutoencoderKL", **convert.ae_config(SMALL_AE), **config}
    save_weights(folder / "diffusion_pytorch_model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    clone = tmp_path_factory.mktemp("encoders")
    save_text_encoders(clone)
    return clone


# Where


def test_a_variable_names_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("FLUX_MODEL", str(official(tmp_path, name="mine.safetensors")))
    assert_holds(load_flow_model("flux-dev", "cpu"), STATE)
    assert_holds(load_flow_model("flux-dev", "cpu", dtype=torch.bfloat16), STATE, torch.bfloat16)


@pytest.mark.parametrize("make", [official, lambda f: diffusers_flow(f / "transformer"), diffusers_flow])
def test_a_variable_names_a_folder_that_holds_the_model(monkeypatch, tmp_path, make):
    make(tmp_path / "folder")
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "folder"))
    assert_holds(load_flow_model("flux-dev", "cpu", dtype=torch.float32), STATE)


@pytest.mark.parametrize("inner", ["vae", "."])
def test_the_autoencoder_in_diffusers_layout(monkeypatch, tmp_path, inner):
    diffusers_ae(tmp_path / "folder" / inner)
    monkeypatch.setenv("FLUX_AE", str(tmp_path / "folder"))
    assert_holds(load_ae("flux-dev", "cpu"), AE_STATE)


def test_a_single_file_with_the_keys_of_diffusers(monkeypatch, tmp_path):
    tensors = dict(convert.to_diffusers(convert.flow_rules(SMALL_FLOW), STATE))
    monkeypatch.setenv("FLUX_MODEL", str(save_weights(tmp_path / "x.safetensors", tensors)))
    assert_holds(load_flow_model("flux-dev", "cpu", dtype=torch.float32), STATE)


def test_a_single_file_of_all_parts_behind_prefixes(monkeypatch, tmp_path):
    tensors = {f"model.diffusion_model.{key}": tensor for key, tensor in STATE.items()}
    tensors |= {f"vae.{key}": tensor for key, tensor in AE_STATE.items()}
    file = save_weights(tmp_path / "all.safetensors", tensors)
    monkeypatch.setenv("FLUX_MODEL", str(file))
    monkeypatch.setenv("FLUX_AE", str(file))
    assert_holds(load_flow_model("flux-dev", "cpu", dtype=torch.float32), STATE)
    assert_holds(load_ae("flux-dev", "cpu"), AE_STATE)


def test_order_of_places(monkeypatch, tmp_path):
    """weights, the part's variable, FLUX_REPO, checkpoints/, the hub's cache, the hub."""

    def found():
        return find_file(DEV, "flux1-dev.safetensors", "FLUX_MODEL")

    def located():
        return locate_file(DEV, "flux1-dev.safetensors", "FLUX_MODEL")

    downloaded = []

    def download(repo_id, filename, local_dir):
        downloaded.append((repo_id, filename, local_dir))
        return str(official(local_dir))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    local = checkpoints.CHECKPOINTS_DIR / "black-forest-labs_FLUX.1-dev" / "flux1-dev.safetensors"
    assert located() is None and not downloaded
    assert found() == local and found() == local
    assert downloaded == [(DEV, "flux1-dev.safetensors", local.parent)]

    cached = official(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: str(cached))
    assert found() == local
    assert located() == local
    local.unlink()
    assert found() == cached and located() is None
    clone = official(tmp_path / "clone")
    monkeypatch.setenv("FLUX_REPO", str(clone.parent))
    assert found() == located() == clone
    named = official(tmp_path / "named")
    monkeypatch.setenv("FLUX_MODEL", str(named))
    assert found() == named
    given = official(tmp_path / "given")
    for weights in (given, given.parent, str(given.parent)):
        assert find_file(DEV, "flux1-dev.safetensors", "FLUX_MODEL", weights=weights) == given


def test_the_home_folder_and_empty_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = official(tmp_path)
    monkeypatch.setenv("FLUX_MODEL", "~/flux1-dev.safetensors")
    assert find_file(DEV, "flux1-dev.safetensors", "FLUX_MODEL") == file
    monkeypatch.setenv("FLUX_MODEL", "")
    monkeypatch.setenv("FLUX_REPO", "~")
    assert find_file(DEV, "flux1-dev.safetensors", "FLUX_MODEL") == file


@pytest.mark.parametrize("layout", ["single files", "diffusers"])
@pytest.mark.parametrize("by", ["weights", "FLUX_REPO"])
def test_one_cloned_folder_is_enough(monkeypatch, tmp_path, encoders, layout, by):
    clone = tmp_path / "FLUX.1-dev"
    clone.mkdir()
    for folder in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"):
        (clone / folder).symlink_to(encoders / folder)
    if layout == "single files":
        official(clone)
        save_weights(clone / "ae.safetensors", AE_STATE)
    else:
        diffusers_flow(clone / "transformer")
        diffusers_ae(clone / "vae")
    if by == "FLUX_REPO":
        monkeypatch.setenv("FLUX_REPO", str(clone))
    models = load_models("flux-dev", device="cpu", weights=clone if by == "weights" else None)
    assert_holds(models.flow, STATE)
    assert_holds(models.ae, AE_STATE)
    assert models.t5(["a boat"]).shape == (1, 512, SMALL_FLOW.context_in_dim)
    assert models.clip(["a boat"]).shape == (1, SMALL_FLOW.vec_in_dim)
    assert (models.name, models.dtype, models.device) == ("flux-dev", torch.float32, torch.device("cpu"))
    assert models.spec is configs["flux-dev"]


def test_the_layout_that_was_pulled_is_taken(monkeypatch, tmp_path):
    clone = diffusers_flow(tmp_path / "clone" / "transformer").parent
    write_pointer(clone / "flux1-dev.safetensors")
    monkeypatch.setenv("FLUX_REPO", str(clone))
    assert_holds(load_flow_model("flux-dev", "cpu", dtype=torch.float32), STATE)


@pytest.mark.parametrize("telltale", ["file", "path"])
def test_a_clone_of_one_model_is_not_taken_for_another(monkeypatch, tmp_path, telltale):
    clone = tmp_path / ("FLUX.1-dev" if telltale == "path" else "clone")
    diffusers_flow(clone / "transformer")
    if telltale == "file":
        official(clone)
    fails("flux1-krea-dev.safetensors", clone, name="flux-dev-krea", weights=clone)
    monkeypatch.setenv("FLUX_REPO", str(clone))
    own = official(
        tmp_path / "checkpoints/black-forest-labs_FLUX.1-Krea-dev", name="flux1-krea-dev.safetensors"
    )
    assert find_file(configs["flux-dev-krea"].repo_id, own.name, "FLUX_MODEL").samefile(own)


def test_text_encoders(monkeypatch, encoders):
    assert find_text_encoder(T5, "google/t5-v1_1-xxl") == "google/t5-v1_1-xxl"
    monkeypatch.setenv("FLUX_REPO", str(encoders))
    assert find_text_encoder(T5, "hub") == str(encoders / "text_encoder_2")
    assert find_text_encoder(CLIP, "hub") == str(encoders / "text_encoder")
    monkeypatch.setenv("FLUX_CLIP", str(encoders / "text_encoder"))
    assert find_text_encoder(CLIP, "hub") == str(encoders / "text_encoder")
    assert load_t5("cpu", 7)(["a boat"]).shape == (1, 7, SMALL_FLOW.context_in_dim)
    assert load_clip("cpu", dtype=torch.float32).hf_module.dtype == torch.float32


def test_a_clone_without_text_encoders_leaves_them_to_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("FLUX_REPO", str(tmp_path))
    assert find_text_encoder(CLIP, "openai/clip") == "openai/clip"


# What is wrong


def write_pointer(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 23802932552\n")
    return file


def cut(file, keep):
    """A copy of a weight file cut after `keep` bytes; negative counts from the end."""
    copy = file.with_name(f"cut{keep}.safetensors")
    copy.write_bytes(file.read_bytes()[:keep])
    return copy


def foreign(folder, content):
    file = folder / "foreign.safetensors"
    file.write_bytes(content)
    return file


BROKEN = {
    "missing": (lambda d: d / "none.safetensors", ["does not exist", "leave FLUX_MODEL out"]),
    "git-lfs pointer": (lambda d: write_pointer(d / "p.safetensors"), ["git lfs pull"]),
    "folder": (lambda d: d, ["flux1-dev.safetensors", "transformer/", DEV]),
    "cut in the data": (lambda d: cut(official(d), -1000), ["bytes where", "download it again"]),
    "cut in the header": (
        lambda d: cut(official(d), 500),
        ["500 bytes where more than", "download it again"],
    ),
    "empty": (lambda d: foreign(d, b""), ["empty", "download it again"]),
    "too long": (
        lambda d: foreign(d, official(d).read_bytes() + b"more"),
        ["4 bytes too many", "download it again"],
    ),
    "web page": (lambda d: foreign(d, b"<!DOCTYPE html><html>Sign in</html>"), ["a web page"]),
    "pt": (lambda d: torch.save({"a": torch.ones(3)}, d / "m.pt") or d / "m.pt", ["missing: img_in.weight"]),
    "gguf": (lambda d: foreign(d, b"GGUF" + bytes(100)), ["GGUF"]),
    "noise": (lambda d: foreign(d, bytes(range(255, 100, -1))), ["not a safetensors file"]),
    "a header of something else": (
        lambda d: foreign(d, (2).to_bytes(8, "little") + b"{]"),
        ["not a safetensors"],
    ),
    "an index that is none": (lambda d: index(d, "[]"), ["not an index"]),
    "a missing shard": (
        lambda d: index(d, '{"weight_map": {"a": "b.safetensors"}}'),
        ["b.safetensors is missing"],
    ),
}


def index(folder, text):
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    return folder


@pytest.mark.parametrize("make, parts", BROKEN.values(), ids=BROKEN)
def test_broken_files(monkeypatch, tmp_path, make, parts):
    path = make(tmp_path)
    monkeypatch.setenv("FLUX_MODEL", str(path))
    fails(path, *parts)


def test_the_size_of_a_cut_file_is_told(tmp_path):
    file = official(tmp_path)
    size = file.stat().st_size
    fails(f"{size - 1000:,} bytes where {size:,} are needed", weights=cut(file, -1000))


def test_a_file_that_may_not_be_read(monkeypatch, tmp_path):
    file = official(tmp_path)
    monkeypatch.setattr("builtins.open", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(CheckpointError, match="Permission denied"):
        read_header(file)


def test_flux_repo_must_be_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FLUX_REPO", str(tmp_path / "nowhere"))
    fails("FLUX_REPO", "not a folder")
    fails("FLUX_REPO", "not a folder", load=lambda name, device: load_t5(device))


def test_weights_must_hold_every_part(tmp_path):
    official(tmp_path)
    fails("weights", "ae.safetensors", "vae/", load=load_ae, weights=tmp_path)
    fails("T5", "text_encoder_2", load=lambda *args: load_t5("cpu", weights=tmp_path))
    with pytest.raises(CheckpointError) as told:
        load_models("flux-dev", device="cpu", weights=tmp_path / "flux1-dev.safetensors")
    assert "not a folder" in one_line(told) and "FLUX_MODEL" in one_line(told)


def test_keys_that_do_not_fit_are_listed_and_long_lists_shortened(tmp_path):
    few = {key: tensor for key, tensor in STATE.items() if not key.startswith("final_layer")}
    file = official(tmp_path, few | {"stranger": torch.ones(2)})
    fails(file, "missing: final_layer.linear.weight", "unexpected: stranger", weights=file)
    fails(f"and {len(STATE) - 10} more", weights=official(tmp_path / "none", {"stranger": torch.ones(2)}))


def test_misshapen_tensors_are_listed_and_nothing_is_read(monkeypatch, tmp_path):
    state = STATE | {"img_in.weight": torch.zeros(64, 128), "txt_in.bias": torch.zeros(3)}
    monkeypatch.setattr(Weights, "__getitem__", raising(AssertionError("a tensor was read")))
    fails(
        "misshapen: img_in.weight (64, 128) where (64, 64) is needed, txt_in.bias (3,) where (64,) is needed",
        weights=official(tmp_path, state),
    )


def test_partial_loading_returns_the_keys_and_leaves_the_rest(tmp_path):
    model = small_model(seed=7)
    kept = model.final_layer.linear.bias.clone()
    few = {key: tensor for key, tensor in STATE.items() if key != "final_layer.linear.bias"}
    file = official(tmp_path, few | {"stranger": torch.ones(2)})
    with pytest.warns(UserWarning, match="1 keys that no part of the model has, they are left out: stranger"):
        told = load_into(model, file, "cpu", torch.float32, optional=lambda key: True)
    assert told == (["final_layer.linear.bias"], ["stranger"])
    assert torch.equal(model.final_layer.linear.bias, kept)
    assert torch.equal(model.img_in.weight, STATE["img_in.weight"])


@pytest.mark.parametrize(
    "config, part",
    [
        ({"num_layers": 19}, "num_layers is 19 where 2 is needed"),
        ({"guidance_embeds": False}, "guidance_embeds is False"),
        ({"_class_name": "SD3Transformer2DModel"}, "SD3Transformer2DModel"),
    ],
)
def test_the_config_of_another_model(tmp_path, config, part):
    fails("config.json", part, weights=diffusers_flow(tmp_path / "transformer", **config))


def test_the_config_of_another_autoencoder(tmp_path):
    fails("latent_channels is 4", load=load_ae, weights=diffusers_ae(tmp_path / "vae", latent_channels=4))


def test_a_missing_part_of_a_stacked_tensor(tmp_path):
    folder = diffusers_flow(tmp_path / "transformer")
    shard = folder / "diffusion_pytorch_model-00001-of-00003.safetensors"
    tensors = dict(Weights([shard]))
    gone = next(key for key in tensors if "to_q.weight" in key)
    save_weights(shard, {key: tensor.clone() for key, tensor in tensors.items() if key != gone})
    fails("missing", weights=folder)


TEXT_FAILURES = {
    "not there": (lambda f: None, ["does not exist"]),
    "nothing in it": (lambda f: f.mkdir(), ["holds no T5 text encoder"]),
    "CLIP": (lambda f: text_folder(f, {"model_type": "clip_text_model"}), ["clip_text_model", "FLUX_T5"]),
    "another width": (
        lambda f: text_folder(f, {"model_type": "t5", "d_model": 512}),
        ["width 512", "width 48"],
    ),
    "no weights": (lambda f: text_folder(f, {"model_type": "t5"}), ["no weights"]),
    "bad config": (lambda f: text_folder(f, []), ["config.json", "not a JSON object"]),
    "a file of another name": (
        lambda f: save_weights(with_config(f) / "t5xxl_fp16.safetensors", {}),
        ["no weights", "it holds t5xxl_fp16.safetensors: name the file itself"],
    ),
    "no tokenizer": (
        lambda f: save_weights(with_config(f) / "model.safetensors", {}),
        ["no tokenizer: put tokenizer_2/ beside it"],
    ),
    "pointer": (lambda f: write_pointer(with_config(f) / "model.safetensors"), ["git lfs pull"]),
    "tokenizer pointer": (lambda f: pointer_tokenizer(f), ["spiece.model", "git lfs pull"]),
}


def text_folder(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_config(folder):
    return text_folder(folder, {"model_type": "t5"})


def pointer_tokenizer(folder):
    save_weights(with_config(folder) / "model.safetensors", {})
    write_pointer(folder / "spiece.model")


@pytest.mark.parametrize("make, parts", TEXT_FAILURES.values(), ids=TEXT_FAILURES)
def test_text_encoders_that_cannot_be_used(monkeypatch, tmp_path, make, parts):
    make(tmp_path / "t5")
    monkeypatch.setenv("FLUX_T5", str(tmp_path / "t5"))
    fails(tmp_path / "t5", *parts, load=lambda name, device: load_t5(device, name=name))


@pytest.mark.parametrize(
    "variable, folder, load", [("FLUX_T5", "tokenizer_2", load_t5), ("FLUX_CLIP", "tokenizer", load_clip)]
)
def test_a_tokenizer_beside_a_folder_of_any_name(monkeypatch, tmp_path, variable, folder, load):
    save_text_encoders(tmp_path)
    encoder = (tmp_path / folder.replace("tokenizer", "text_encoder")).rename(tmp_path / "mine")
    tokenizer = (tmp_path / folder).rename(tmp_path / "away")
    monkeypatch.setenv(variable, str(encoder))
    fails(encoder, f"no tokenizer: put {folder}/ beside it", load=lambda name, device: load(device))
    tokenizer.rename(tmp_path / folder)
    beside = load("cpu", name=None)(["a boat"])
    for file in (tmp_path / folder).iterdir():  # its own goes before the one beside it
        file.rename(encoder / file.name)
    (tmp_path / folder / "tokenizer.json").write_text("{}")
    assert torch.equal(load("cpu", name=None)(["a boat"]), beside)


def test_text_encoders_that_lack_weights(monkeypatch, tmp_path):
    """transformers itself would go on with random numbers in their place."""
    clone = tmp_path / "clone"
    save_text_encoders(clone)
    file = clone / "text_encoder" / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in dict(Weights([file])).items()}
    gone = next(name for name in tensors if "layers.0.mlp.fc1.weight" in name)
    kept = {name: tensor for name, tensor in tensors.items() if name != gone}
    save_file(kept, file, metadata={"format": "pt"})
    monkeypatch.setenv("FLUX_CLIP", str(clone / "text_encoder"))
    fails("missing: ", "layers.0.mlp.fc1.weight", load=lambda name, device: load_clip(device))


def test_text_encoders_that_cannot_be_downloaded(monkeypatch):
    message = "We couldn't connect to the hub.\nCheck your connection\nor see the docs"
    monkeypatch.setattr("flux.weights.load.HFEmbedder", raising(OSError(message)))
    fails("google/t5-v1_1-xxl", "couldn't connect", "FLUX_T5", load=lambda name, device: load_t5(device))
    fails("openai/clip", "FLUX_CLIP", "FLUX_REPO", load=lambda name, device: load_clip(device))


def hub_error(kind, status):
    """An error of the hub's client as it is raised, made without a server."""
    error = kind.__new__(kind)
    Exception.__init__(error, f"{status} Client Error.\n\nCannot access the repository.\nVisit the page.")
    error.response = SimpleNamespace(status_code=status, headers={})
    return error


# Older clients have one class for both places.
NOT_THERE = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)
HUB = {
    "licence": (hub_error(errors.GatedRepoError, 403), ["accept it at", DEV, "hf auth login", "HF_TOKEN"]),
    "not open": (
        hub_error(errors.RepositoryNotFoundError, 401),
        ["not open to you", "HF_TOKEN", "HF_ENDPOINT"],
    ),
    "forbidden": (hub_error(errors.HfHubHTTPError, 403), ["accept the licence", "HF_TOKEN"]),
    "server": (hub_error(errors.HfHubHTTPError, 500), ["500 Client Error", "check network"]),
    "no such file": (hub_error(NOT_THERE, 404), ["is not at", "HF_ENDPOINT"]),
    "no network": (
        errors.LocalEntryNotFoundError("Cannot find\nthe file"),
        ["check the network", "HF_ENDPOINT"],
    ),
    "broken off": (ConnectionError("reset\nby peer"), ["check the network"]),
    "offline": (errors.OfflineModeIsEnabled("offline\nmode"), ["HF_HUB_OFFLINE"]),
    "disk": (OSError(28, "No space left on device"), ["No space left"]),
}


@pytest.mark.parametrize("error, parts", HUB.values(), ids=HUB)
def test_downloads_that_fail(monkeypatch, error, parts):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", raising(error))
    fails("flux1-dev.safetensors", "FLUX_MODEL", *parts)


# Into the model


@pytest.mark.parametrize("name", configs)
def test_every_model_loads(monkeypatch, tmp_path, name):
    spec = configs[name]
    base = replace(spec.params, in_channels=64) if spec.lora_filename else spec.params
    state = random_state(Flux, base)
    official(tmp_path, state, configs[spec.flow_name or name].repo_flow)
    if spec.lora_filename:
        save_weights(tmp_path / spec.lora_filename, lora_state(spec))
    model = load_flow_model(name, "cpu", dtype=torch.float32, weights=tmp_path)
    assert model.params == spec.params
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state if key != "img_in.weight")


def lora_state(spec):
    from flux.model import FluxLoraWrapper

    shapes = FluxLoraWrapper(lora_rank=spec.lora_rank, params=spec.params).state_dict()
    return {key: torch.full_like(x, 0.01) for key, x in shapes.items() if ".lora_" in key}


def test_a_lora_widens_the_input_and_overrides(monkeypatch, tmp_path, capsys):
    spec = configs["flux-dev-canny-lora"]
    monkeypatch.setenv("FLUX_MODEL", str(diffusers_flow(tmp_path / "base", SMALL_FLOW)))
    scale = "double_blocks.0.img_attn.norm.query_norm.scale"
    lora = lora_state(spec) | {scale: torch.full((32,), 3.0)}
    left_out = [key for key in lora if key.startswith("txt_in.lora_")]
    for key in left_out:
        del lora[key]
    monkeypatch.setenv("FLUX_LORA", str(save_weights(tmp_path / "lora.safetensors", lora)))
    loaded = load_flow_model("flux-dev-canny-lora", "cpu", dtype=torch.float32).state_dict()
    assert torch.equal(loaded["img_in.weight"][:, :64], STATE["img_in.weight"])
    assert loaded["img_in.weight"].shape == (64, 128) and not loaded["img_in.weight"][:, 64:].any()
    assert torch.equal(loaded[scale], lora[scale])
    assert torch.equal(loaded["txt_in.lora_B.weight"], torch.zeros(64, 4))
    assert f"3 missing keys: {', '.join(left_out)}" in capsys.readouterr().out


def test_loras_that_do_not_fit(monkeypatch, tmp_path):
    name = "flux-dev-canny-lora"
    monkeypatch.setenv("FLUX_MODEL", str(official(tmp_path)))
    monkeypatch.setenv("FLUX_LORA", str(official(tmp_path, {"unet.lora": torch.ones(1)}, "lora.safetensors")))
    fails("unexpected: unet.lora", name=name)
    official(tmp_path, {"img_in.bias": torch.ones(64)}, "lora.safetensors")
    fails("holds no LoRA", "FLUX_LORA", name=name)


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path):
    file = official(tmp_path)
    model = load_flow_model("flux-dev", "cpu", dtype=torch.float32, weights=file)
    file.write_bytes(bytes(file.stat().st_size))
    assert_holds(model, STATE)


def test_diffusers_shards_compute_the_same(tmp_path):
    small = small_ae()
    ae = load_ae("flux-dev", "cpu", weights=diffusers_ae(tmp_path / "vae"))
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(ae.encode(x), small.encode(x))


def test_a_model_without_guidance_from_shards(tmp_path):
    params = without_guidance()
    state = random_state(Flux, params)
    folder = diffusers_flow(tmp_path / "transformer", params, state)
    assert_holds(load_flow_model("flux-schnell", "cpu", dtype=torch.float32, weights=folder), state)


@pytest.mark.gpu
def test_loading_onto_a_gpu(tmp_path):
    official(tmp_path)
    model = load_flow_model("flux-dev", "cuda", dtype=torch.bfloat16, weights=tmp_path)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert_holds(model.cpu(), STATE, torch.bfloat16)


MEASURE = """
import sys, threading, time
from pathlib import Path
import torch
from torch import nn
from flux.formats.fill import load_into

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

def watch():
    while not done:
        peaks.append(anonymous())
        time.sleep(0.004)

models = []  # kept, so that no model is built in the freed memory of the one before
for path in sys.argv[1:]:
    with torch.device("meta"):
        models.append(nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(16))))
    before, peaks, done = anonymous(), [], False
    thread = threading.Thread(target=watch)
    thread.start()
    load_into(models[-1], Path(path), "cpu", torch.float32)
    done = True
    thread.join()
    print(max(*peaks, anonymous()) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_loading_needs_memory_for_one_copy(tmp_path):
    """64 MiB of weights; pages of the file itself do not count, the system drops them when it likes."""
    tensors = {f"{i}.weight": torch.randn(1024, 1024) for i in range(16)}
    paths = [
        save_weights(tmp_path / "float32.safetensors", tensors),
        save_weights(tmp_path / "bfloat16.safetensors", tensors, torch.bfloat16),
        save_shards(tmp_path / "shards", tensors, {}),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    used = [float(line) for line in told.split()]
    assert all(60 < mebibytes < 64 * 1.15 for mebibytes in used), used
