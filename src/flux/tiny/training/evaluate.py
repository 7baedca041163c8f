"""Measure flux-tiny: how well the judge reads scenes, and how well generated pictures follow their
captions."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flux.modules.autoencoder import AutoEncoder
from flux.sampling import denoise, get_noise, get_schedule, prepare, unpack
from flux.tiny.captions import plain_caption
from flux.tiny.judge import Judge, Reading
from flux.tiny.phrasings import Phrasing
from flux.tiny.scenes import OWNERS, SCENERY, THING_VALUES, Scene, horizon_of, render, sample_scene
from flux.tiny.training.data import to_model, to_uint8

Score = dict[str, list[float]]

CLOUDS_END = 33
"""The row of a picture above which all clouds end."""


def held_out_scenes(count: int, seed: int = 77, cases: int = 0) -> list[Scene]:
    """Scenes of 128 x 128 with combinations that no training picture shows.

    cases: further ones with a figure or a sign, until there are as many of each.
    """
    rng = np.random.default_rng((seed, 3))
    found = [sample_scene(rng, held_out=True) for _ in range(count)]
    while lacking := {kind for kind in OWNERS.values() if _count(found, kind) < cases}:
        scene = sample_scene(rng, held_out=True)
        if any(thing.kind in lacking for thing in scene.things):
            found.append(scene)
    return found


def _count(scenes: list[Scene], kind: str) -> int:
    return sum(thing.kind == kind for scene in scenes for thing in scene.things)


def score_readings(readings: Iterable[Reading], truth: Iterable[Scene]) -> Score:
    """Per attribute, 1 for each right value and 0 for each wrong one; 'extra' and 'missing' count things.

    Things are matched to the scene's in the way that gets most attributes right; a missing thing has all its
    attributes wrong. What is None in a scene does not count.
    """
    score: Score = defaultdict(list)
    for reading, scene in zip(readings, truth, strict=True):
        for name in SCENERY:
            if getattr(scene, name) is not None:
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


def summary(score: Score) -> dict[str, Any]:
    """Means; 'attributes' is the mean over all single attributes of all pictures. 'cases': how many values
    are behind each mean; 'intervals': the 95 % interval of each share."""
    shares = {name: values for name, values in score.items() if name not in ("extra", "missing")}
    shares = {"attributes": [value for values in shares.values() for value in values], **shares}
    means = {name: float(np.mean(values)) for name, values in (shares | score).items()}
    return {
        **means,
        "pictures": len(score["extra"]),
        "cases": {name: len(values) for name, values in shares.items()},
        "intervals": {name: wilson_interval(sum(values), len(values)) for name, values in shares.items()},
    }


def wilson_interval(right: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share, right near 0 and 1 too (Wilson 1927)."""
    share, square = right / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z * (share * (1 - share) / count + square / count / 4) ** 0.5 / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def saturated_shares(pictures: Tensor) -> list[float]:
    """The share of each picture's pixels of which a channel is as low or as high as it goes, (B, 3, H, W)."""
    levels = to_uint8(pictures)
    return ((levels == 0) | (levels == 255)).any(axis=-1).mean(axis=(1, 2)).tolist()


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
def judge_rendered(judge: Judge, truth: list[Scene], ae: AutoEncoder | None = None) -> dict[str, Any]:
    """The judge on rendered pictures, or on what the autoencoder makes of them. 'saturated': the largest
    share of a picture's pixels."""
    readings: list[Reading] = []
    saturated: list[float] = []
    for i in range(0, len(truth), 32):
        x = to_model(np.stack([render(scene) for scene in truth[i : i + 32]]))
        x = x if ae is None else ae(x)
        readings += judge.read(x)
        saturated += saturated_shares(x)
    return summary(score_readings(readings, truth)) | {"saturated": max(saturated)}


@torch.no_grad()
def streaks_kept(ae: AutoEncoder, truth: list[Scene]) -> float:
    """How much of the contrast of rain by day the autoencoder keeps: 1 all, 0 none.

    Measured between the rows of the clouds and the horizon, where rain is all that tells a rainy picture from
    a clear one.
    """
    kept = whole = 0.0
    for scene in (replace(scene, sky="day") for scene in truth):
        rows = slice(CLOUDS_END, int(horizon_of(scene)))
        pair = to_model(np.stack([render(replace(scene, weather=name)) for name in ("rainy", "clear")]))
        (rainy, clear), (rainy_out, clear_out) = pair[..., rows, :], ae(pair)[..., rows, :]
        kept += float(((rainy_out - clear_out) * (rainy - clear)).sum())
        whole += float((rainy - clear).square().sum())
    return kept / whole


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
    flow: Callable,
    ae: AutoEncoder,
    encode: tuple,
    judge: Judge,
    truth: list[Scene],
    *,
    most_saturated: float = 1.0,
    **options,
) -> dict[str, Any]:
    """Generate each scene's plain caption with seed = its index and read the picture back. 'clipped': the
    share of pictures with more saturated pixels than `most_saturated`."""
    prompts = [plain_caption(scene) for scene in truth]
    readings: list[Reading] = []
    saturated: list[float] = []
    for pictures in generate(flow, ae, encode, prompts, list(range(len(truth))), **options):
        readings += judge.read(pictures)
        saturated += saturated_shares(pictures)
    clipped = float(np.mean([share > most_saturated for share in saturated]))
    return summary(score_readings(readings, truth)) | {"saturated": max(saturated), "clipped": clipped}


@torch.no_grad()
def judge_phrasings(
    flow: Callable,
    ae: AutoEncoder,
    encode: tuple,
    judge: Judge,
    phrasings: Sequence[Phrasing],
    **options,
) -> dict[str, Any]:
    """The same for free phrasings. 'understood': the share of which all is right and nothing is too much;
    'not_understood': the others."""
    prompts, truth = [each.prompt for each in phrasings], [each.scene for each in phrasings]
    readings: list[Reading] = []
    for pictures in generate(flow, ae, encode, prompts, list(range(len(prompts))), **options):
        readings += judge.read(pictures)
    scores = [summary(score_readings([each], [scene])) for each, scene in zip(readings, truth, strict=True)]
    right = [score["attributes"] == 1 and not score["extra"] and not score["missing"] for score in scores]
    return summary(score_readings(readings, truth)) | {
        "understood": float(np.mean(right)),
        "not_understood": [prompt for prompt, good in zip(prompts, right, strict=True) if not good],
    }
