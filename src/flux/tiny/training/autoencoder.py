"""Train the autoencoder, mostly on crops around things: whole pictures are mostly sky."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flux.models import configs
from flux.modules.autoencoder import AutoEncoder
from flux.sampling import unpack
from flux.tiny.scenes import Scene, thing_box
from flux.tiny.training.data import pictures, scenes, to_model, to_uint8
from flux.tiny.training.loop import Stage

TINY = configs["flux-tiny"]

PICTURES = 12_000
CROP = 64
KL_WEIGHT = 1e-6
EDGE_WEIGHT = 2.0


def train(folder: Path, steps: int, seed: int = 0, batch: int = 24) -> AutoEncoder:
    """Returns the trained autoencoder, its latent channels of unit variance."""
    images = pictures(folder, seed, PICTURES, 128, 128)
    truth = scenes(seed, PICTURES, 128, 128)
    torch.manual_seed(seed)
    model = AutoEncoder(TINY.ae_params, sample_z=True)
    with torch.no_grad():
        # Start with little noise on the latents, or the decoder learns to ignore them.
        model.encoder.conv_out.bias[TINY.ae_params.z_channels :] = -6.0

    def loss(rng: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        # The last part sees whole pictures, since attention in the middle depends on the size.
        whole = step >= 0.85 * steps
        chosen = rng.integers(PICTURES, size=batch // 4 if whole else batch)
        x = to_model(
            images[np.sort(chosen)] if whole else np.stack([_crop(images, truth, i, rng) for i in chosen])
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=x.device.type == "cpu"):
            moments = model.encoder(x)
            out = model.decoder(model.reg(moments)).float()
        mean, logvar = moments.float().chunk(2, dim=1)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=(1, 2, 3)).mean()
        mse = F.mse_loss(out, x)
        total = F.l1_loss(out, x) + mse + EDGE_WEIGHT * edge_loss(out, x) + KL_WEIGHT * kl
        return total, {"psnr": float(-10 * torch.log10(mse.detach() / 4)), "kl": float(kl.detach())}

    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.99), weight_decay=0.0)
    stage = Stage("autoencoder", folder, model, [optimizer], loss, steps, seed, ema_decay=0.998)
    model = stage.run()
    model.reg.sample = False
    return normalised(model, images)


def polish_decoder(
    folder: Path, model: AutoEncoder, latents: np.ndarray, steps: int, seed: int = 0
) -> AutoEncoder:
    """Train the decoder on, from the latents the flow model learns, without noise; the encoder stays as it
    is.

    latents: packed, (N, 64, 64), of the first N pictures of 128 x 128, as `flow.load_examples` keeps them.
    """
    count = len(latents)
    images, truth = pictures(folder, seed, count, 128, 128), scenes(seed, count, 128, 128)
    decoder = model.decoder

    def loss(rng: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        chosen = np.sort(rng.integers(count, size=8))
        x = to_model(images[chosen])
        z = unpack(torch.from_numpy(latents[chosen]).float(), 128, 128)
        weight = torch.stack([_thing_boxes(truth[i]) for i in chosen])[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            out = decoder(z / model.scale_factor + model.shift_factor).float()
        difference = (out - x) * weight
        total = difference.abs().mean() + difference.square().mean() + EDGE_WEIGHT * edge_loss(out, x)
        return total, {"psnr": float(-10 * torch.log10(F.mse_loss(out, x).detach() / 4))}

    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    Stage("decoder", folder, decoder, [optimizer], loss, steps, seed, ema_decay=0.998).run()
    return model.eval()


def _thing_boxes(scene: Scene) -> Tensor:
    """Weight of each pixel's error, (H, W): 2 in the boxes of things, 1 elsewhere."""
    weight = torch.ones(scene.height, scene.width)
    for thing in scene.things:
        left, top, right, bottom = (max(0, round(v)) for v in thing_box(thing))
        weight[top:bottom, left:right] = 2.0
    return weight


@torch.no_grad()
def normalised(model: AutoEncoder, images: np.ndarray) -> AutoEncoder:
    """Give every latent channel unit variance by scaling the weights on both sides of the latent.

    The autoencoder computes the same as before, and its scale factor stays 1, whatever a training ended with.
    """
    z = torch.cat([model.encode(to_model(images[i : i + 32])) for i in range(0, 512, 32)])
    std = z.std(dim=(0, 2, 3))
    out, into = model.encoder.conv_out, model.decoder.conv_in
    means = slice(0, len(std))
    out.weight[means] /= std[:, None, None, None]
    out.bias[means] /= std
    out.bias[len(std) :] -= 2 * std.log()
    into.weight *= std[:, None, None]
    return model


@torch.no_grad()
def psnr(model: AutoEncoder, images: np.ndarray) -> float:
    """Mean over pictures, in dB of the 8-bit picture, (N, H, W, 3)."""
    values = []
    for i in range(0, len(images), 16):
        part = images[i : i + 16]
        error = to_uint8(model(to_model(part))).astype(np.float64) - part
        values += list(10 * np.log10(255**2 / np.square(error).mean(axis=(1, 2, 3))))
    return float(np.mean(values))


def edge_loss(out: Tensor, x: Tensor) -> Tensor:
    """L1 distance of horizontal and vertical differences: blurred outlines cost."""
    d = out - x
    return (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()


def _crop(images: np.ndarray, truth: tuple, index: int, rng: np.random.Generator) -> np.ndarray:
    """A crop that shows some thing of picture `index`, at a random offset."""
    things = truth[index].things
    thing = things[int(rng.integers(len(things)))]
    left, top = (
        int(np.clip(centre - CROP / 2 + rng.integers(-20, 21), 0, side - CROP))
        for centre, side in ((thing.x, truth[index].width), (thing.y - 20, truth[index].height))
    )
    return images[index, top : top + CROP, left : left + CROP]
