"""A script that asks for flux-dev as upstream's do runs on flux-tiny by FLUX_REPO alone."""

import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from helpers_models import random_state, save_text_encoders, save_weights

from flux.model import Flux
from flux.models import configs
from flux.sampling import denoise, get_noise, get_schedule, prepare, unpack
from flux.util import load_ae, load_clip, load_flow_model, load_models, load_t5
from flux.weights.check import CheckpointError

TINY = configs["flux-tiny"]


@pytest.fixture(params=["name", "folder"])
def repo(request, monkeypatch):
    monkeypatch.setenv("FLUX_REPO", {"name": "flux-tiny", "folder": str(TINY.home)}[request.param])


def loaded(name="flux-dev"):
    t5, clip = load_t5("cpu", max_length=512), load_clip("cpu")
    with pytest.warns(UserWarning, match=f"flux-tiny.*in the place of {name}: it draws 128 x 128") as caught:
        model, ae = load_flow_model(name, device="cpu"), load_ae(name, device="cpu")
    assert len(caught) == 1
    return t5, clip, model, ae


@pytest.mark.parametrize("name", ["flux-dev", "flux-schnell"])
def test_a_script_in_upstreams_shape_runs(repo, name):
    t5, clip, model, ae = loaded(name)
    assert (model.params, ae.params) == (TINY.params, TINY.ae_params)
    for side in (32, 192):
        x = get_noise(1, side, side, device=torch.device("cpu"), dtype=torch.bfloat16, seed=0)
        inputs = prepare(t5, clip, x, prompt="a big red house on the grass")
        times = get_schedule(2, inputs["img"].shape[1], shift=True)
        x = denoise(model, **inputs, timesteps=times, guidance=3.5)
        picture = ae.decode(unpack(x.float(), side, side))
        assert picture.shape == (1, 3, side, side) and picture.isfinite().all()


def test_text_encoders_that_nobody_named_are_as_wide_and_long_as_they_are(monkeypatch, tmp_path):
    save_text_encoders(tmp_path, t5_width=24, clip_width=16)
    monkeypatch.setenv("FLUX_T5", str(tmp_path / "text_encoder_2"))
    monkeypatch.setenv("FLUX_CLIP", str(tmp_path / "text_encoder"))
    assert load_t5("cpu", 9)(["a boat"]).shape == (1, 9, 24)
    assert load_clip("cpu")(["a boat"]).shape == (1, 16)
    with pytest.raises(CheckpointError, match="width 24: name one of width 4096"):
        load_t5("cpu", name="flux-dev")


def test_the_shapes_are_those_of_the_file(monkeypatch, tmp_path):
    """A flux-tiny of another width and depth, trained by the user."""
    params = replace(TINY.params, hidden_size=64, num_heads=2, depth=1, depth_single_blocks=2, mlp_ratio=2.0)
    save_weights(tmp_path / TINY.repo_flow, random_state(Flux, params))
    shutil.copy(TINY.home / "ae.safetensors", tmp_path)
    monkeypatch.setenv("FLUX_REPO", str(tmp_path))
    with pytest.warns(UserWarning, match="in the place of flux-dev"):
        assert load_flow_model("flux-dev", "cpu").params == params


def test_models_whose_entrance_is_wider_are_not_replaced(monkeypatch):
    monkeypatch.setenv("FLUX_REPO", "flux-tiny")
    monkeypatch.setattr("flux.util.hf_hub_download", lambda *args, **kwargs: pytest.fail("asked the hub"))
    monkeypatch.setattr("flux.weights.find.fetch_file", lambda *args, **kwargs: _not_here())
    with pytest.raises(CheckpointError, match="not here"):
        load_flow_model("flux-dev-fill", "cpu")


def _not_here():
    raise CheckpointError("not here")


def test_our_own_loader_wants_the_models_name(repo):
    """So that no run is recorded under the name of a model that it was not made with."""
    with pytest.raises(CheckpointError, match="FLUX_REPO names flux-tiny, not flux-dev: ask for the model"):
        load_models("flux-dev", device="cpu")


def test_a_clone_of_the_model_itself_is_no_stand_in(monkeypatch, tmp_path):
    monkeypatch.setitem(configs, "flux-dev", replace(configs["flux-dev"], params=TINY.params))
    shutil.copy(TINY.home / TINY.repo_flow, tmp_path / "flux1-dev.safetensors")
    shutil.copy(TINY.home / TINY.repo_flow, tmp_path)
    monkeypatch.setenv("FLUX_REPO", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_flow_model("flux-dev", "cpu")
