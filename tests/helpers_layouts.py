"""A small file for each layout of weights, and a loader for each part, see docs/weights.md."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from helpers_models import SMALL_AE, SMALL_FLOW, random_state, save_text_encoders, save_weights
from safetensors.torch import load_file

from flux.formats.packed import is_packed
from flux.model import Flux, FluxLoraWrapper
from flux.models import configs
from flux.modules.autoencoder import AutoEncoder
from flux.pictures.features import Dino
from flux.util import load_ae, load_clip, load_flow_model, load_t5

VARIABLES = {
    "flow": "FLUX_MODEL",
    "autoencoder": "FLUX_AE",
    "T5": "FLUX_T5",
    "CLIP": "FLUX_CLIP",
    "LoRA": "FLUX_LORA",
}
FOLDERS = {"flow": "transformer", "autoencoder": "vae", "T5": "text_encoder_2", "CLIP": "text_encoder"}
OFFICIAL = {"flow": "flux1-dev.safetensors", "autoencoder": "ae.safetensors"}
LORA = "flux-dev-canny-lora"
ENCODERS = ("T5", "CLIP")


def shrink(monkeypatch):
    """Small models under the official names, and no network."""
    for name, spec in list(configs.items()):
        params = replace(
            SMALL_FLOW, in_channels=spec.params.in_channels, guidance_embed=spec.params.guidance_embed
        )
        monkeypatch.setitem(configs, name, replace(spec, params=params, ae_params=SMALL_AE, lora_rank=4))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    for module in ("hub", "load"):
        monkeypatch.setattr(f"flux.weights.{module}.require_hub", _no_network)


def _no_network():
    from flux.weights.hub import NoHub

    raise NoHub("there is no network in tests")


@dataclass(frozen=True)
class Small:
    """Small weights of every part. clone: text encoders with their tokenizers; dino: a folder."""

    clone: Path
    states: dict[str, dict[str, torch.Tensor]]

    @property
    def dino(self) -> Path:
        return self.clone / "dino"

    def source(self, part: str) -> Path:
        """The folder that holds an encoder's or DINO's model."""
        return self.dino if part == "DINO" else self.clone / FOLDERS[part]


def make_small(folder: Path) -> Small:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    save_text_encoders(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Dinov2Config(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        )
        Dinov2Model(config).save_pretrained(folder / "dino")
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder / "dino"
    )
    states = {"flow": random_state(Flux, SMALL_FLOW), "autoencoder": random_state(AutoEncoder, SMALL_AE, 1)}
    spec = configs["flux-dev-canny-lora"]
    params = replace(SMALL_FLOW, in_channels=128)
    with torch.device("meta"):
        shapes = FluxLoraWrapper(lora_rank=4, params=params).state_dict()
    generator = torch.Generator().manual_seed(2)
    states["LoRA"] = {
        key: torch.randn(x.shape, generator=generator) for key, x in shapes.items() if ".lora_" in key
    }
    assert spec.lora_filename
    for part in (*ENCODERS, "DINO"):
        source = folder / ("dino" if part == "DINO" else FOLDERS[part])
        states[part] = {k: v for f in sorted(source.glob("*.safetensors")) for k, v in load_file(f).items()}
    return Small(folder, states)


def numbers_of(model) -> dict[str, torch.Tensor]:
    """A state dict in which packed weights are unpacked."""
    packed = {f"{name}.weight": module.weight for name, module in model.named_modules() if is_packed(module)}
    return dict(model.state_dict()) | packed


def load(part: str, path: Path, small: Small, monkeypatch, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a part that was loaded from `path` as a user names it, in float32."""
    if part in VARIABLES:
        monkeypatch.setenv(VARIABLES[part], str(path))
    if part == "flow":
        return numbers_of(load_flow_model("flux-dev", "cpu", dtype=torch.float32))
    if part == "autoencoder":
        return load_ae("flux-dev", "cpu", dtype=torch.float32).state_dict()
    if part == "T5":
        encoder = load_t5("cpu", 8, name="flux-dev", dtype=torch.float32)
        assert encoder(["a boat"]).isfinite().all()
        return numbers_of(encoder.hf_module)
    if part == "CLIP":
        encoder = load_clip("cpu", name="flux-dev", dtype=torch.float32)
        assert encoder(["a boat"]).isfinite().all()
        return encoder.hf_module.state_dict()
    if part == "DINO":
        loaded = list(Dino(path).model.state_dict().values())
        # Its names are transformers' own affair: by the file's keys, where the model has such a tensor.
        file = small.states[part]
        return {key: x for key, x in file.items() if any(torch.equal(x, each) for each in loaded)}
    base = save_weights(folder / "base.safetensors", small.states["flow"])
    monkeypatch.setenv("FLUX_MODEL", str(base))
    return load_flow_model(LORA, "cpu", dtype=torch.float32).state_dict()


def stripped(state):
    """Without what releases of transformers put before CLIP's keys, or leave out."""
    return {key.removeprefix("text_model."): tensor for key, tensor in state.items()}


def holds(state, expected) -> bool:
    """Whether every tensor of `expected` is in `state`, bit by bit."""
    state, expected = stripped(state), stripped(expected)
    return all(key in state and torch.equal(state[key], x.float()) for key, x in expected.items())


def place(part: str, state, folder: Path, small: Small, name: str | None = None, save=None) -> Path:
    """A file of these tensors as a user would name it, with what its part needs beside it."""
    save = save or save_as_they_are
    folder.mkdir(parents=True, exist_ok=True)
    if part not in (*ENCODERS, "DINO"):
        return save(folder / (name or "weights.safetensors"), state)
    source = small.source(part)
    for file in source.iterdir():
        if file.suffix == ".json" and ".index." not in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    if part in ENCODERS:
        tokenizer = FOLDERS[part].replace("text_encoder", "tokenizer")
        for file in (small.clone / tokenizer).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    save(folder / (name or "model.safetensors"), state)
    return folder


def save_as_they_are(file: Path, state) -> Path:
    from safetensors.torch import save_file

    save_file({key: x.clone().contiguous() for key, x in state.items()}, file, metadata={"format": "pt"})
    return file


def add_to_config(folder: Path, **values) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder
