"""Train a small model of DINOv2's architecture for similarity, without any labels.

Two views of one picture (shifted, mirrored, blurred, noisy, a little brighter or darker) must be told from
the views of all others (InfoNCE, arXiv 2002.05709), by the class token and by the mean of the patch tokens.
Colours are not jittered: whether two pictures have the same colours is what the similarity is asked about.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model

from flux.tiny.training.data import pictures, to_model
from flux.tiny.training.device import CPU, half_precision
from flux.tiny.training.loop import Drawn, Stage

PICTURES = 12_000
TEMPERATURE = 0.2


def train(
    folder: Path, out: Path, steps: int, seed: int = 0, batch: int = 96, device: torch.device = CPU
) -> Dinov2Model:
    """Returns the model, saved to `out / "dino"` with the processor's settings beside it."""
    images = pictures(folder, seed, PICTURES, 128, 128)
    torch.manual_seed(seed)
    shape = Dinov2Config(
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=3,
        mlp_ratio=4,
        image_size=128,
        patch_size=16,
        layerscale_value=1.0,
    )
    model = Dinov2Model(shape).to(device)

    def draw(rng: np.random.Generator, step: int) -> Drawn:
        return Drawn(None, np.array(images[np.sort(rng.choice(PICTURES, size=batch, replace=False))]))

    def loss(kind: None, drawn: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = to_model(drawn)
        with half_precision(device):
            hidden = model(pixel_values=torch.cat((view(x), view(x)))).last_hidden_state.float()
        by_class = info_nce(*hidden[:, 0].chunk(2))
        by_patch = info_nce(*hidden[:, 1:].mean(dim=1).chunk(2))
        return by_class + by_patch, {"class": by_class.detach(), "patch": by_patch.detach()}

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02)
    Stage("dino", folder, model, [optimizer], draw, loss, steps, seed, ema_decay=0.995).run()
    save(model, out / "dino")
    return model


def save(model: Dinov2Model, folder: Path) -> None:
    model.save_pretrained(folder)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": 128, "width": 128},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def view(x: Tensor) -> Tensor:
    """One random view of each picture, (B, 3, H, W) in [-1, 1]."""
    count, on = len(x), {"device": x.device}
    zoom = 1 - 0.25 * torch.rand(count, **on)
    mirror = torch.where(torch.rand(count, **on) < 0.5, -1.0, 1.0)
    shift = (torch.rand(count, 2, **on) * 2 - 1) * (1 - zoom)[:, None]
    zero = torch.zeros(count, **on)
    rows = torch.stack((zoom * mirror, zero, shift[:, 0], zero, zoom, shift[:, 1]), dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.lerp(x, blurred, torch.rand(count, 1, 1, 1, **on))
    brightness = 0.1 * torch.randn(count, 1, 1, 1, **on)
    return x + brightness + 0.05 * torch.rand(count, 1, 1, 1, **on) * torch.randn_like(x)


def info_nce(a: Tensor, b: Tensor) -> Tensor:
    """Cross-entropy of finding each row's partner in the other view, both ways."""
    score = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / TEMPERATURE
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(score, target) + F.cross_entropy(score.T, target)) / 2
