"""The table of models, upstream's small helpers, and what importing `flux.util` does not do."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers_models import (
    SMALL_AE,
    SMALL_FLOW,
    random_state,
    save_text_encoders,
    save_weights,
)

from flux import util
from flux.device import OutOfMemory, out_of_memory_hint, pick_device, pick_dtype
from flux.model import Flux, FluxLoraWrapper
from flux.modules.autoencoder import AutoEncoder
from flux.pictures import usage
from flux.util import configs
from flux.weights import hub
from flux.weights.find import CheckpointError

TINY = configs["flux-tiny"]
UPSTREAM = json.loads((Path(__file__).parent / "data" / "upstream_state_dict.json").read_text())


def on_meta(model, *args, **kwargs):
    with torch.device("meta"):
        return {key: list(x.shape) for key, x in model(*args, **kwargs).state_dict().items()}


def unfolded(table, params):
    """The keys of `upstream_state_dict.json` with `{i}` counted out."""
    counts = {"double_blocks": params.depth, "single_blocks": params.depth_single_blocks}
    return {
        key.replace("{i}", str(i)): shape
        for key, shape in table.items()
        for i in range(counts.get(key.split(".")[0], 1))
    }


# The table


@pytest.mark.parametrize("name", [name for name in configs if name != "flux-tiny"])
def test_flow_models_have_upstreams_keys_and_shapes(name):
    """All differ from FLUX.1 [dev] in at most the width of the input and the guidance embedding."""
    params = configs[name].params
    wanted = unfolded(UPSTREAM["flux-dev"], params)
    wanted["img_in.weight"] = [3072, params.in_channels]
    if not params.guidance_embed:
        wanted = {key: shape for key, shape in wanted.items() if not key.startswith("guidance_in")}
    assert on_meta(Flux, params) == wanted


def test_flux_dev_has_as_many_parameters_as_upstream():
    shapes = on_meta(Flux, configs["flux-dev"].params)
    assert len(shapes) == UPSTREAM["flux-dev.count"]
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == UPSTREAM["flux-dev.params"]


def test_the_autoencoder_has_upstreams_keys_and_shapes():
    assert on_meta(AutoEncoder, configs["flux-dev"].ae_params) == UPSTREAM["ae"]


def test_the_table_of_models():
    """Repository, file, input channels, guidance embedding, steps, guidance, tokens of T5."""
    dev, lora = "FLUX.1-dev", "flux1-dev.safetensors"
    table = {
        "flux-dev": (dev, "flux1-dev.safetensors", 64, True, 50, 3.5, 512),
        "flux-dev-krea": ("FLUX.1-Krea-dev", "flux1-krea-dev.safetensors", 64, True, 50, 3.5, 512),
        "flux-schnell": ("FLUX.1-schnell", "flux1-schnell.safetensors", 64, False, 4, None, 256),
        "flux-dev-canny": ("FLUX.1-Canny-dev", "flux1-canny-dev.safetensors", 128, True, 50, 30, 512),
        "flux-dev-depth": ("FLUX.1-Depth-dev", "flux1-depth-dev.safetensors", 128, True, 50, 10, 512),
        "flux-dev-canny-lora": (dev, lora, 128, True, 50, 30, 512),
        "flux-dev-depth-lora": (dev, lora, 128, True, 50, 10, 512),
        "flux-dev-redux": ("FLUX.1-Redux-dev", "flux1-redux-dev.safetensors", 64, True, 50, 2.5, 512),
        "flux-dev-fill": ("FLUX.1-Fill-dev", "flux1-fill-dev.safetensors", 384, True, 50, 30, 128),
        "flux-dev-kontext": ("FLUX.1-Kontext-dev", "flux1-kontext-dev.safetensors", 64, True, 30, 2.5, 512),
    }
    assert configs.keys() == table.keys() | {"flux-tiny"}
    for name, (repo, file, channels, embedded, steps, guidance, length) in table.items():
        spec = configs[name]
        assert (spec.repo_id, spec.repo_flow) == (f"black-forest-labs/{repo}", file)
        assert (spec.params.in_channels, spec.params.out_channels) == (channels, 64)
        assert spec.params.guidance_embed == embedded == (spec.guidance is not None)
        assert (spec.num_steps, spec.guidance, spec.t5_length) == (steps, guidance, length)
        assert spec.repo_ae == "ae.safetensors" and spec.clip_length == 77
        assert spec.shift == (name != "flux-schnell")
    for kind in ("Canny", "Depth"):
        spec = configs[f"flux-dev-{kind.lower()}-lora"]
        assert spec.lora_repo_id == f"black-forest-labs/FLUX.1-{kind}-dev-lora"
        assert spec.lora_filename == f"flux1-{kind.lower()}-dev-lora.safetensors"
        assert (spec.lora_rank, spec.lora_scale) == (128, 0.85)


def test_the_lora_model_can_be_built():
    spec = configs["flux-dev-canny-lora"]
    shapes = on_meta(FluxLoraWrapper, lora_rank=spec.lora_rank, params=spec.params)
    assert shapes["double_blocks.0.img_attn.qkv.lora_A.weight"] == [128, 3072]


def test_upstreams_spec_fields_come_first():
    fields = ["params", "ae_params", "repo_id", "repo_flow", "repo_ae", "lora_repo_id", "lora_filename"]
    assert list(util.ModelSpec.__dataclass_fields__)[:7] == fields


def test_unknown_models_are_refused_with_the_choices():
    for load in (
        util.load_flow_model,
        util.load_ae,
        util.load_models,
        lambda name: util.load_t5("cpu", name=name),
    ):
        with pytest.raises(ValueError, match="^model 'flux-pro' is unknown: the models are flux-tiny, "):
            load("flux-pro")
        with pytest.raises(KeyError):  # as upstream's dict of models raises it
            load("flux-pro")


# flux-tiny


@pytest.fixture
def tiny_folder(tmp_path, monkeypatch):
    """Random weights in the layout flux-tiny's have, in the place of the package's own."""
    folder = tmp_path / "weights"
    spec = configs["flux-tiny"]
    save_weights(folder / "flux1-tiny.safetensors", random_state(Flux, spec.params))
    save_weights(folder / "ae.safetensors", random_state(AutoEncoder, spec.ae_params))
    save_text_encoders(folder, t5_width=TINY.params.context_in_dim, clip_width=TINY.params.vec_in_dim)
    monkeypatch.setattr(TINY, "home", folder)
    return folder


def test_flux_tiny_ignores_the_variables_of_flux_dev(tiny_folder, tmp_path, monkeypatch):
    for variable in ("FLUX_MODEL", "FLUX_AE", "FLUX_T5", "FLUX_CLIP", "FLUX_REPO", "FLUX_LORA"):
        monkeypatch.setenv(variable, str(tmp_path / "flux-dev"))
    with pytest.warns(UserWarning, match="FLUX_AE, .*FLUX_T5 are set and not used: flux-tiny is loaded from"):
        models = util.load_models("flux-tiny", device="cpu")
    assert (models.flow.params, models.ae.params) == (TINY.params, TINY.ae_params)
    assert models.t5(["a boat"]).shape == (1, TINY.t5_length, TINY.params.context_in_dim)
    assert models.clip(["a boat"]).shape == (1, TINY.params.vec_in_dim)
    assert models.clip.max_length == TINY.t5_length
    assert {p.dtype for p in models.flow.parameters()} == {torch.float32} == {models.dtype}


def test_flux_tiny_takes_weights_that_are_given(tiny_folder, tmp_path, monkeypatch):
    other = tiny_folder.rename(tmp_path / "other")
    with pytest.raises(CheckpointError, match="flux-tiny are not at .*: reinstall"):
        util.load_flow_model("flux-tiny", "cpu")
    assert util.load_flow_model("flux-tiny", "cpu", weights=other).params == TINY.params


def test_dtype_and_offload(tiny_folder):
    models = util.load_models("flux-tiny", device="cpu", dtype="bfloat16", offload=True)
    assert models.flow.img_in.weight.dtype == models.t5.hf_module.dtype == torch.bfloat16
    assert models.ae.decoder.conv_in.weight.dtype == torch.float32


def test_t5_reads_no_more_than_the_model_takes(tiny_folder):
    assert util.load_t5("cpu", name="flux-tiny").max_length == TINY.t5_length
    assert util.load_t5("cpu", 8, name="flux-tiny").max_length == 8


# Helpers


def test_aspect_ratios():
    assert util.aspect_ratio_to_height_width("1:1") == (1024, 1024)
    assert util.aspect_ratio_to_height_width("16:9") == (1360, 768)
    assert util.aspect_ratio_to_height_width("9:16", area=512**2) == (384, 672)
    for wrong in ("16x9", "0:1", "1:0", "-1:2", "1:2:3", "nan:1", ""):
        with pytest.raises(ValueError, match="not two positive numbers"):
            util.aspect_ratio_to_height_width(wrong)


def test_kontext_resolutions():
    sizes = util.PREFERED_KONTEXT_RESOLUTIONS
    assert len(sizes) == 17 and sizes == sorted(sizes) and (1024, 1024) in sizes
    assert sizes[0] == (672, 1568) and set(sizes) == {(b, a) for a, b in sizes}
    assert all(a % 16 == b % 16 == 0 for a, b in sizes)


def test_expanding_a_state_dict():
    model = torch.nn.Linear(5, 3)
    state = {"weight": torch.ones(2, 4), "bias": torch.ones(3), "other": torch.ones(2)}
    bias, other = state["bias"], state["other"]
    expanded = util.optionally_expand_state_dict(model, state)
    assert expanded is state
    assert torch.equal(
        expanded["weight"], torch.tensor([[1.0, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    )
    assert expanded["bias"] is bias and expanded["other"] is other
    wide = {"weight": torch.ones(3, 9)}
    assert util.optionally_expand_state_dict(model, dict(wide)) == wide


def test_load_warnings(capsys):
    util.print_load_warning([], [])
    assert capsys.readouterr().out == ""
    util.print_load_warning(["a"], [f"b{i}" for i in range(12)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 missing keys: a" and lines[1].endswith("b9 and 2 more")


def test_get_checkpoint_path(monkeypatch, tmp_path):
    monkeypatch.setattr(util, "CHECKPOINTS_DIR", tmp_path)
    file = save_weights(
        tmp_path / "black-forest-labs_FLUX.1-Redux-dev" / "r.safetensors", {"a": torch.ones(1)}
    )
    monkeypatch.delenv("FLUX_REDUX", raising=False)
    repo = "black-forest-labs/FLUX.1-Redux-dev"
    assert util.get_checkpoint_path(repo, "r.safetensors", "FLUX_REDUX") == file
    monkeypatch.setenv("FLUX_REDUX", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="FLUX_REDUX names"):
        util.get_checkpoint_path(repo, "r.safetensors", "FLUX_REDUX")


def test_hub_tokens(monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert util.ensure_hf_auth() is False
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    assert util.ensure_hf_auth() is True

    logins = []
    monkeypatch.setattr(huggingface_hub, "login", lambda token: logins.append(token))
    monkeypatch.setattr(hub.getpass, "getpass", lambda prompt: " hf_y ")
    assert util.prompt_for_hf_auth() is True and logins == ["hf_y"]
    monkeypatch.setattr(hub.getpass, "getpass", lambda prompt: "")
    assert util.prompt_for_hf_auth() is False

    def refuse(token):
        raise ValueError("Invalid token\nsee the docs")

    monkeypatch.setattr(huggingface_hub, "login", refuse)
    monkeypatch.setattr(hub.getpass, "getpass", lambda prompt: "hf_z")
    assert util.prompt_for_hf_auth() is False
    assert capsys.readouterr().out == "the login failed: Invalid token\n"


@pytest.mark.parametrize("key", [None, "key"])
def test_usage_is_not_reported_and_that_is_said(monkeypatch, capsys, key):
    """Nothing is sent, even where it is asked for and there is a key for it."""

    def connect(*args, **options):
        raise AssertionError("something is sent")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    monkeypatch.setattr(usage, "BFL_API_KEY", key)
    util.track_usage_via_api("flux-dev")
    util.track_usage_via_api("flux-tiny", 3)
    for name, line in zip(("flux-dev", "flux-tiny"), capsys.readouterr().out.splitlines(), strict=True):
        assert line.startswith(f"the use of {name} is not reported: this package sends nothing")


def test_tensorrt_is_refused_in_one_line():
    match = "no TensorRT engines: run flux-dev without trt=True"
    with pytest.raises(NotImplementedError, match=match):
        util.download_onnx_models_for_trt("flux-dev")
    with pytest.raises(NotImplementedError, match=match):
        util.check_onnx_access_for_trt("flux-dev")


def test_importing_writes_and_prints_nothing(tmp_path):
    """In a read-only folder, with the variables upstream sets left as they are."""
    tmp_path.chmod(0o555)
    code = "import os; before = dict(os.environ); import flux.util; assert dict(os.environ) == before"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# Devices


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (
        pick_device("auto") == pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    )
    for wrong, told in (
        ("gpu", "auto, cpu, cuda"),
        ("cuda", "no CUDA GPU"),
        ("cuda:1", "no CUDA GPU"),
        (1.5, "auto"),
        ("xpu", "'xpu' cannot compute here: give auto or cpu"),
        ("meta", "'meta' cannot compute here"),
        ("xla:0", "'xla:0' cannot compute here"),
        ("vulkan", "'vulkan' cannot compute here"),
    ):
        with pytest.raises(ValueError, match=told) as error:
            pick_device(wrong)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == torch.device("cuda") and pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:2' does not exist: this machine has cuda:0 to cuda:1"):
        pick_device("cuda:2")


def test_dtypes():
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("float16", torch.device("cpu")) == pick_dtype(torch.float16, torch.device("cpu"))
    for wrong in ("half", torch.int8, None):
        with pytest.raises(ValueError, match="auto, float32, bfloat16, float16"):
            pick_dtype(wrong, torch.device("cpu"))


def test_running_out_of_memory_is_one_line_with_the_remedy():
    with pytest.raises(torch.cuda.OutOfMemoryError) as told, out_of_memory_hint(), out_of_memory_hint():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\n20 GiB")
    assert isinstance(told.value, OutOfMemory)
    message = str(told.value)
    assert "\n" not in message and all(word in message for word in ("smaller", "batch", "dtype", "offload"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_where_no_dtype_is_asked_for_the_files_is_kept(tmp_path, monkeypatch, dtype):
    """As upstream does; load_models always asks for one."""
    spec = replace(configs["flux-dev"], params=SMALL_FLOW, ae_params=SMALL_AE)
    monkeypatch.setitem(configs, "flux-dev", spec)
    save_weights(tmp_path / "flux1-dev.safetensors", random_state(Flux, SMALL_FLOW), dtype)
    save_weights(tmp_path / "ae.safetensors", random_state(AutoEncoder, SMALL_AE), dtype)
    for load in (util.load_flow_model, util.load_ae):
        assert {p.dtype for p in load("flux-dev", "cpu", weights=tmp_path).parameters()} == {dtype}
