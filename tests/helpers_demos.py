"""Stand-ins for flux-tiny with random weights: in memory, and as a clone that loads by `model.weights`."""

import zlib
from dataclasses import replace
from pathlib import Path

import torch
from helpers_models import SMALL_FLOW, random_state, save_text_encoders, save_weights, small_ae, small_model
from torch import Tensor, nn

from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.util import Models, configs

TINY = configs["flux-tiny"]
# As many layers as flux-tiny, so that its specs fit.
FLOW = replace(SMALL_FLOW, depth=4, depth_single_blocks=8)


class FakeEncoder(nn.Module):
    """Random numbers from each prompt's letters, shaped as a text encoder's output; keeps what it read."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape
        self.calls: list[str] = []

    def forward(self, prompts: list[str]) -> Tensor:
        self.calls += prompts
        seeds = (zlib.crc32(prompt.encode()) for prompt in prompts)
        rows = [torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).bfloat16()


def small_models(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Models:
    """All parts of a model, small and random."""
    return Models(
        name="flux-tiny",
        flow=small_model(Flux, FLOW).to(device, dtype),
        ae=small_ae().to(device),
        t5=FakeEncoder(6, FLOW.context_in_dim),
        clip=FakeEncoder(FLOW.vec_in_dim),
        device=torch.device(device),
        dtype=dtype,
        spec=configs["flux-tiny"],
    )


def save_clone(folder: Path) -> Path:
    """flux-tiny with random weights, laid out as its own: flow model, autoencoder, text encoders, DINO."""
    from transformers import Dinov2Config, Dinov2Model

    save_weights(folder / "flux1-tiny.safetensors", random_state(Flux, TINY.params))
    save_weights(folder / "ae.safetensors", random_state(AutoEncoder, TINY.ae_params))
    save_text_encoders(folder, TINY.params.context_in_dim, TINY.params.vec_in_dim)
    shape = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Dinov2Model(shape).save_pretrained(folder / "dino")
    (folder / "dino" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "BitImageProcessor", "do_resize": true, "do_center_crop": false, '
        '"size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    return folder
