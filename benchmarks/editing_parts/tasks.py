"""What is edited: pairs of rendered scenes of flux-tiny's world, as photographs or generated anew.

A rendered pair has the right answer: the target's rendering. Where the two renderings are equal the edit
should have kept the photograph. A generated source has only the judge's answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flux.generate import Sampling, Texts, decode, sample_steps
from flux.methods.task import EditTask, open_task
from flux.sampling import pack
from flux.tiny.edit_pairs import PRESENCE, EditPair, draw_pairs
from flux.tiny.scenes import ATTRIBUTES, render
from flux.weights.load import Models

KINDS = (*ATTRIBUTES, *PRESENCE)
SPLITS = {"tuning": 1400, "test": 1401}
"""The seeds of the pairs. Nobody looks at the test split while choosing."""
SOURCES = ("photos", "generated")
BATCH = 33
"""Pairs that are edited side by side: large enough for two cores, small enough for their caches."""
GUIDANCE = 3.5
"""Of generated sources, as in the paper."""


class Pair(Protocol):
    """What is asked for: prompts of source and edit, the kind of the edit, and the seed of the noise."""

    prompts: tuple[str, str]
    attribute: str
    seed: int


@dataclass(frozen=True)
class TaskSet:
    """Pairs and all that is known of them before they are edited.

    photos: the sources, uint8 (N, H, W, 3). clean: their latents, packed (N, L, 64). rebuilt: what the
    autoencoder alone makes of the photos, like them. targets: the right answers, like them. differs: where
    those are unlike the photos, or where an edit may change them, bool (N, H, W). Both are None where nobody
    knows. batch: how many are edited side by side.
    """

    pairs: tuple[Pair, ...]
    texts: Texts
    photos: np.ndarray
    clean: Tensor
    rebuilt: np.ndarray
    targets: np.ndarray | None = None
    differs: np.ndarray | None = None
    batch: int = BATCH

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.photos.shape[1:3]

    def first(self, count: int) -> "TaskSet":
        return TaskSet(
            self.pairs[:count],
            self.texts,
            *(None if x is None else x[:count] for x in (self.photos, self.clean, self.rebuilt)),
            *(None if x is None else x[:count] for x in (self.targets, self.differs)),
            self.batch,
        )

    def batches(self) -> Iterator[slice]:
        return (slice(start, start + self.batch) for start in range(0, len(self), self.batch))

    def open(self, models: Models, rows: slice, steps: int, *, unchanged: bool = False) -> EditTask:
        """The task of some pairs. unchanged: what is asked for is the source itself."""
        pairs = self.pairs[rows]
        sources, edits = zip(*(pair.prompts for pair in pairs), strict=True)
        height, width = self.size
        return open_task(
            models,
            self.texts,
            sources,
            sources if unchanged else edits,
            range(len(pairs)),
            self.clean[rows],
            [pair.seed for pair in pairs],
            Sampling(steps, None, width, height),
        )


def draw(models: Models, sources: str, split: str, count: int, steps: int) -> TaskSet:
    """`count` pairs of a split, the kinds in turn, prepared for editing; sources: one of `SOURCES`."""
    pairs = tuple(draw_pairs(count, SPLITS[split], KINDS))
    texts = encode_together(models, dict.fromkeys([p for pair in pairs for p in pair.prompts] + [""]))
    if sources == "generated":
        clean = _generate(models, texts, pairs, steps)
        photos = decoded(models, clean, (pairs[0].source.height, pairs[0].source.width))
        return TaskSet(pairs, texts, photos, clean, photos)
    photos, targets = (np.stack([render(getattr(p, side)) for p in pairs]) for side in ("source", "target"))
    clean = encoded(models, photos)
    rebuilt = decoded(models, clean, photos.shape[1:3])
    return TaskSet(pairs, texts, photos, clean, rebuilt, targets, (photos != targets).any(axis=-1))


@torch.no_grad()
def encode_together(models: Models, prompts: Sequence[str], together: int = 64) -> Texts:
    """Prompts encoded side by side: hundreds of them one by one would take a minute."""
    prompts, txt, vec = list(prompts), {}, {}
    for start in range(0, len(prompts), together):
        part = prompts[start : start + together]
        for store, encoder in ((txt, models.t5), (vec, models.clip)):
            store.update(zip(part, encoder(part).split(1), strict=True))
    return Texts(txt, vec)


@torch.no_grad()
def encoded(models: Models, pictures: np.ndarray, together: int = BATCH) -> Tensor:
    """uint8 (N, H, W, 3) to packed latents, (N, L, 64) float32."""
    x = to_model(pictures).to(models.device)
    return torch.cat([pack(models.ae.encode(part).float()) for part in x.split(together)])


def decoded(models: Models, latents: Tensor, size: tuple[int, int], together: int = BATCH) -> np.ndarray:
    """Packed latents to pictures, uint8 (N, H, W, 3)."""
    sampling = Sampling(1, None, size[1], size[0])
    return to_levels(decode(models, latents, sampling, together=together))


def to_model(pictures: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to RGB in [-1, 1], (N, 3, H, W)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_levels(pictures: Tensor) -> np.ndarray:
    """RGB in [-1, 1], (N, 3, H, W), to what a file holds: uint8 (N, H, W, 3)."""
    levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte()
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _generate(models: Models, texts: Texts, pairs: Sequence[EditPair], steps: int) -> Tensor:
    latents = []
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        sampling = Sampling(steps, GUIDANCE, part[0].source.width, part[0].source.height)
        prompts, seeds = [pair.prompts[0] for pair in part], [pair.seed for pair in part]
        *_, last = sample_steps(models, texts, prompts, seeds, sampling)
        latents.append(last.after.float())
    return torch.cat(latents)
