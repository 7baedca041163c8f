"""Train the autoencoder: first mostly on crops around things, since whole pictures are mostly sky, then on
whole ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flux.modules.autoencoder import AutoEncoder
from flux.sampling import unpack
from flux.tiny.scenes import Scene, thing_box
from flux.tiny.training.data import pictures, scenes, to_model, to_uint8
from flux.tiny.training.device import CPU, device_of, half_convolutions
from flux.tiny.training.loop import Drawn, Stage
from flux.tiny.training.muon import FloatMuon
from flux.tiny.training.shapes import AE_PARAMS

PICTURES = 12_000
CROP = 64
WHOLE = 0.3
"""The last share of the steps, which sees whole pictures alone and weighs squares more: PSNR counts squares,
and what norms and attention do depends on the size. Before it every third batch is of whole pictures."""
CROPS = {"thing": 0.65, "anywhere": 0.2, "rain": 0.15}
"""What crops show, by share. Streaks of rain by day are so faint that whole pictures hardly teach them."""
KL_WEIGHT = 1e-6


def train(
    folder: Path, steps: int, seed: int = 0, batch: int = 16, device: torch.device = CPU
) -> AutoEncoder:
    """Returns the trained autoencoder, its latent channels of unit variance."""
    images = pictures(folder, seed, PICTURES, 128, 128)
    truth = scenes(seed, PICTURES, 128, 128)
    rainy = np.flatnonzero([scene.weather == "rainy" for scene in truth])
    torch.manual_seed(seed)
    model = AutoEncoder(AE_PARAMS, sample_z=False)
    with torch.no_grad():
        # Start with little noise on the latents, or the decoder learns to ignore them.
        model.encoder.conv_out.bias[AE_PARAMS.z_channels :] = -6.0
    model.to(device)

    def draw(rng: np.random.Generator, step: int) -> Drawn:
        late = step >= (1 - WHOLE) * steps
        if late or step % 3 == 0:
            whole = np.array(images[np.sort(rng.integers(PICTURES, size=batch // 4))])
            return Drawn(("whole", late), whole)
        crops = np.stack([_crop(images, truth, rainy, rng) for _ in range(batch)])
        return Drawn(("crop", late), crops)

    def given(drawn: Tensor) -> tuple[Tensor, Tensor]:
        side = drawn.shape[1] // 2 ** (len(AE_PARAMS.ch_mult) - 1)
        return drawn, torch.randn(len(drawn), AE_PARAMS.z_channels, side, side, device=device)

    def loss(kind: tuple[str, bool], drawn: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        (seen, late), (pixels, noise) = kind, drawn
        x = to_model(pixels)
        with half_convolutions(device):
            mean, logvar = model.encoder(x).float().chunk(2, dim=1)
            out = model.decoder(mean + torch.exp(0.5 * logvar) * noise).float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=(1, 2, 3)).mean()
        mse, absolute, edges = F.mse_loss(out, x), F.l1_loss(out, x), edge_loss(out, x)
        total = 20 * mse + 0.3 * absolute + 0.5 * edges if late else 10 * mse + absolute + edges
        psnr = -10 * torch.log10(mse.detach() / 4)
        return total + KL_WEIGHT * kl, {f"psnr_{seen}": psnr, "kl": kl.detach()}

    stage = Stage("autoencoder", folder, model, optimizers(model), draw, loss, steps, seed, ema_decay=0.998)
    stage.given = given
    model = stage.run()
    return normalised(model, images)


def optimizers(model: nn.Module, rate: float = 1.0) -> list[torch.optim.Optimizer]:
    """Muon for the kernels between the two ends of encoder and decoder, AdamW for the rest; rate: a factor of
    both learning rates."""
    kernels, rest = [], []
    for name, p in model.named_parameters():
        (kernels if p.ndim == 4 and "conv_in" not in name and "conv_out" not in name else rest).append(p)
    return [
        FloatMuon(kernels, lr=0.01 * rate),
        torch.optim.AdamW(rest, lr=1e-3 * rate, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def polish_decoder(
    folder: Path,
    model: AutoEncoder,
    images: np.ndarray,
    truth: Sequence[Scene],
    latents: np.ndarray,
    steps: int,
    seed: int = 0,
) -> AutoEncoder:
    """Train the decoder on, from the latents the flow model learns, without noise; the encoder stays as it
    is.

    images: (N, 128, 128, 3), those of the scenes. latents: theirs, packed, (N, 64, 64), as
    `flow.load_examples` keeps them.
    """
    decoder, device = model.decoder, device_of(model)

    def draw(rng: np.random.Generator, step: int) -> Drawn:
        chosen = np.sort(rng.integers(len(images), size=4))
        weight = np.stack([_thing_boxes(truth[i]) for i in chosen])[:, None]
        return Drawn("whole", (np.array(images[chosen]), latents[chosen], weight))

    def loss(kind: str, drawn: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        pictures, packed, weight = drawn
        x, z = to_model(pictures), unpack(packed.float(), 128, 128)
        with half_convolutions(device):
            out = decoder(z / model.scale_factor + model.shift_factor).float()
        difference = (out - x) * weight
        total = 20 * difference.square().mean() + 0.3 * difference.abs().mean() + 0.5 * edge_loss(out, x)
        return total, {"psnr": -10 * torch.log10(F.mse_loss(out, x).detach() / 4)}

    stage = Stage(
        "decoder", folder, decoder, optimizers(decoder, 0.4), draw, loss, steps, seed, ema_decay=0.998
    )
    stage.run()
    return model.eval()


def _thing_boxes(scene: Scene) -> np.ndarray:
    """Weight of each pixel's error, (H, W): 2 in the boxes of things, 1 elsewhere."""
    weight = np.ones((scene.height, scene.width), np.float32)
    for thing in scene.things:
        left, top, right, bottom = (max(0, round(v)) for v in thing_box(thing))
        weight[top:bottom, left:right] = 2.0
    return weight


@torch.no_grad()
def normalised(model: AutoEncoder, images: np.ndarray) -> AutoEncoder:
    """Give every latent channel unit variance by scaling the weights on both sides of the latent.

    The autoencoder computes the same as before, and its scale factor stays 1, whatever a training ended with.
    """
    device = device_of(model)
    parts = [to_model(images[i : i + 32]).to(device) for i in range(0, 512, 32)]
    z = torch.cat([model.encode(part) for part in parts if len(part)])
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
        error = to_uint8(model(to_model(part).to(device_of(model)))).astype(np.float64) - part
        values += list(10 * np.log10(255**2 / np.square(error).mean(axis=(1, 2, 3))))
    return float(np.mean(values))


def edge_loss(out: Tensor, x: Tensor) -> Tensor:
    """L1 distance of horizontal and vertical differences: blurred outlines cost."""
    d = out - x
    return (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()


def _crop(images: np.ndarray, truth: tuple, rainy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop of 64 x 64: around some thing, anywhere, or in the sky of a rainy picture, as `CROPS` says."""
    shows = rng.choice(list(CROPS), p=list(CROPS.values()))
    index = int(rng.choice(rainy) if shows == "rain" and len(rainy) else rng.integers(len(truth)))
    scene = truth[index]
    left, top = (int(rng.integers(side - CROP + 1)) for side in (scene.width, scene.height))
    if shows == "rain":
        top = int(rng.integers(20))
    elif shows == "thing":
        thing = scene.things[int(rng.integers(len(scene.things)))]
        left, top = (
            int(np.clip(centre - CROP / 2 + rng.integers(-20, 21), 0, side - CROP))
            for centre, side in ((thing.x, scene.width), (thing.y - 20, scene.height))
        )
    return images[index, top : top + CROP, left : left + CROP]
