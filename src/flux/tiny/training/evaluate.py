"""Measure flux-tiny: how well the judge reads scenes, and how well generated pictures follow their
captions."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from flux.modules.autoencoder import AutoEncoder
from flux.sampling import denoise, get_noise, get_schedule, prepare, unpack
from flux.tiny.captions import plain_caption
from flux.tiny.judge import Judge, Reading
from flux.tiny.scenes import SCENERY, THING_VALUES, Scene, render, sample_scene
from flux.tiny.training.data import to_model

Score = dict[str, list[float]]


def held_out_scenes(count: int, seed: int = 77) -> list[Scene]:
    """Scenes of 128 x 128 with combinations that no training picture shows."""
    rng = np.random.default_rng((seed, 3))
    return [sample_scene(rng, held_out=True) for _ in range(count)]


def score_readings(readings: Iterable[Reading], truth: Iterable[Scene]) -> Score:
    """Per attribute, 1 for each right value and 0 for each wrong one; 'extra' and 'missing' count things.

    Things are matched to the scene's in the way that gets most attributes right; a missing thing has all its
    attributes wrong.
    """
    score: Score = defaultdict(list)
    for reading, scene in zip(readings, truth, strict=True):
        for name in SCENERY:
            score[name].append(getattr(reading, name) == getattr(scene, name))
        pairs = _best_match(reading, scene)
        for thing, found in pairs:
            for name in THING_VALUES:
                if getattr(thing, name) is not None:
                    score[name].append(found is not None and getattr(found, name) == getattr(thing, name))
        matched = sum(found is not None for _, found in pairs)
        score["missing"].append(len(pairs) - matched)
        score["extra"].append(len(reading.things) - matched)
    return score


def summary(score: Score) -> dict[str, float]:
    """Means; 'attributes' is the mean over all single attributes of all pictures."""
    attributes = [
        value for name, values in score.items() if name not in ("extra", "missing") for value in values
    ]
    means = {name: float(np.mean(values)) for name, values in score.items()}
    return {"attributes": float(np.mean(attributes)), **means, "pictures": len(score["sky"])}


def _best_match(reading: Reading, scene: Scene) -> list[tuple]:
    slots = [*reading.things[:5], *[None] * len(scene.things)]

    def right(assigned: tuple) -> int:
        return sum(
            getattr(found, name) == getattr(thing, name)
            for thing, found in zip(scene.things, assigned, strict=True)
            if found is not None
            for name in THING_VALUES
            if getattr(thing, name) is not None
        )

    best = max(
        permutations(slots, len(scene.things)), key=lambda a: (right(a), sum(f is not None for f in a))
    )
    return list(zip(scene.things, best, strict=True))


@torch.no_grad()
def judge_rendered(judge: Judge, truth: list[Scene], ae: AutoEncoder | None = None) -> dict[str, float]:
    """The judge on rendered pictures, or on what the autoencoder makes of them."""
    readings: list[Reading] = []
    for i in range(0, len(truth), 32):
        x = to_model(np.stack([render(scene) for scene in truth[i : i + 32]]))
        readings += judge.read(x if ae is None else ae(x))
    return summary(score_readings(readings, truth))


@torch.no_grad()
def generate(
    flow: Callable,
    ae: AutoEncoder,
    encode: tuple,
    prompts: list[str],
    seeds: list[int],
    *,
    guidance: float = 3.5,
    steps: int = 16,
    side: int = 128,
    batch: int = 16,
) -> Iterator[Tensor]:
    """Decoded pictures (B, 3, H, W) in batches; `encode` is (t5, clip)."""
    for i in range(0, len(prompts), batch):
        noise = torch.cat([get_noise(1, side, side, "cpu", torch.float32, s) for s in seeds[i : i + batch]])
        inputs = prepare(*encode, noise, prompts[i : i + batch])
        timesteps = get_schedule(steps, inputs["img"].shape[1])
        latent = denoise(flow, **inputs, timesteps=timesteps, guidance=guidance)
        yield ae.decode(unpack(latent.float(), side, side)).clamp(-1, 1)


@torch.no_grad()
def judge_generated(
    flow: Callable, ae: AutoEncoder, encode: tuple, judge: Judge, truth: list[Scene], **options
) -> dict[str, float]:
    """Generate each scene's plain caption with seed = its index and read the picture back."""
    prompts = [plain_caption(scene) for scene in truth]
    readings: list[Reading] = []
    for pictures in generate(flow, ae, encode, prompts, list(range(len(truth))), **options):
        readings += judge.read(pictures)
    return summary(score_readings(readings, truth))
