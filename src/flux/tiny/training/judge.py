"""Train the judge on rendered pictures: plain, noisy, blurred, and passed through the autoencoder."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flux.files import write_atomically
from flux.modules.autoencoder import AutoEncoder
from flux.tiny.judge import CELL, Judge, split_cells, split_scenery
from flux.tiny.scenes import SCENERY, SIZE_PIXELS, THING_VALUES, Scene
from flux.tiny.training.data import pictures, scenes, to_model, to_uint8
from flux.tiny.training.device import device_of, half_convolutions
from flux.tiny.training.loop import Drawn, Stage

PICTURES = 12_000
DECODED = 3_000


def train(folder: Path, ae: AutoEncoder, steps: int, seed: int = 0, batch: int = 32) -> Judge:
    images = pictures(folder, seed, PICTURES, 128, 128)
    truth = scenes(seed, PICTURES, 128, 128)
    decoded = decoded_pictures(folder, ae, images)
    torch.manual_seed(seed)
    device = device_of(ae)
    model = Judge().to(device)

    def draw(rng: np.random.Generator, step: int) -> Drawn:
        chosen = rng.integers(PICTURES, size=batch)
        rows = [decoded[i] if i < DECODED and rng.random() < 0.8 else images[i] for i in chosen]
        return Drawn(None, (np.stack(rows), [truth[i] for i in chosen]))

    def loss(kind: None, drawn: tuple) -> tuple[Tensor, dict[str, float]]:
        pictures, shown = drawn
        with half_convolutions(device):
            cells, scenery = model(disturbed(to_model(pictures)))
        return losses(cells.float(), scenery.float(), shown)

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    return Stage("judge", folder, model, [optimizer], draw, loss, steps, seed, ema_decay=0.998).run()


@torch.no_grad()
def decoded_pictures(folder: Path, ae: AutoEncoder, images: np.ndarray) -> np.ndarray:
    """The first pictures after encoding and decoding, uint8, kept in `folder`."""
    path = folder / "decoded.npy"
    if not path.exists():
        parts = []
        for i in range(0, DECODED, 32):
            with half_convolutions(device_of(ae)):
                parts.append(to_uint8(ae(to_model(images[i : min(i + 32, DECODED)]).to(device_of(ae)))))
        write_atomically(path, partial(np.save, arr=np.concatenate(parts)))
    return np.load(path, mmap_mode="r")


def disturbed(x: Tensor) -> Tensor:
    """Half the pictures blurred a little, half given noise; (B, 3, H, W)."""
    some = torch.rand(2, len(x), 1, 1, 1, device=x.device)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.where(some[0] < 0.5, torch.lerp(x, blurred, torch.rand_like(some[0])), x)
    return x + torch.randn_like(x) * 0.25 * torch.clamp(some[1] - 0.5, min=0)


def losses(cells: Tensor, scenery: Tensor, truth: list[Scene]) -> tuple[Tensor, dict[str, float]]:
    """Focal loss of the centre map, cross-entropies of the parts at centres and of the scenery."""
    centre, parts = split_cells(cells, dim=1)
    heat, owner = centre_targets(truth, cells.shape[2], cells.shape[3])
    row, y, x = torch.nonzero(owner >= 0, as_tuple=True)
    things = [truth[r].things[o] for r, o in zip(row.tolist(), owner[row, y, x].tolist(), strict=True)]
    heat, row, y, x = (part.to(cells.device) for part in (heat, row, y, x))
    p = centre[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4)
    at_peak = heat == 1
    focal = torch.where(at_peak, (1 - p) ** 2 * p.log(), (1 - heat) ** 4 * p**2 * (1 - p).log())
    loss = -focal.sum() / at_peak.sum()
    figures = {"centre": float(loss.detach())}

    for name, logits in parts.items():
        own = [getattr(thing, name) for thing in things]
        target = [-1 if value is None else THING_VALUES[name].index(value) for value in own]
        target = torch.tensor(target, device=logits.device)
        at, has = logits.permute(0, 2, 3, 1)[row, y, x], target >= 0
        if has.any():
            loss = loss + F.cross_entropy(at[has], target[has])
            figures[name] = float((at[has].argmax(-1) == target[has]).float().mean())
    for name, logits in split_scenery(scenery).items():
        target = [SCENERY[name].index(getattr(scene, name)) for scene in truth]
        target = torch.tensor(target, device=logits.device)
        loss = loss + F.cross_entropy(logits, target)
        figures[name] = float((logits.argmax(-1) == target).float().mean())
    return loss, figures


def centre_targets(truth: list[Scene], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Heat (B, h, w), 1 at centres and falling off over about two cells; the thing owning each cell, or
    -1."""
    heat = torch.zeros(len(truth), height, width)
    owner = torch.full((len(truth), height, width), -1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for b, scene in enumerate(truth):
        for i, thing in enumerate(scene.things):
            column, row = int(thing.x / CELL), int((thing.y - SIZE_PIXELS[thing.size] / 2) / CELL)
            square = (x - column) ** 2 + (y - row) ** 2
            bump = torch.exp(-square / 2.0)
            owner[b] = torch.where((square <= 2) & (bump > heat[b]), i, owner[b])
            heat[b] = torch.maximum(heat[b], bump)
    return heat, owner
