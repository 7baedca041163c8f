"""Edits with a known right answer: pairs of captions that differ in one attribute, and how to score the
pictures.

The judge says where the thing is and whether the wanted change was made; PSNR outside the edited region says
how much of the source was kept.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flux.hooks import CopySource, Hooks
from flux.sampling import denoise, get_noise, get_schedule, prepare, unpack
from flux.tiny.captions import plain_caption
from flux.tiny.edit_judge import FILE as JUDGE
from flux.tiny.judge import FoundThing, Judge, Reading, load_judge
from flux.tiny.scenes import (
    ATTRIBUTES,
    HAT_RISE,
    OWNERS,
    SCENERY,
    SIZE_PIXELS,
    THING_VALUES,
    Scene,
    Thing,
    sample_scene,
    variations,
)

MARGIN = 8
"""Pixels left free around a thing that is edited."""
PRESENCE = ("added", "removed")
"""Edits of whole things, beside those of one attribute."""
HORIZON = (0.48, 0.62)
"""The shares of the height between which every horizon lies, with some room."""


@dataclass(frozen=True)
class EditPair:
    """A source scene and the same with one attribute changed, or one thing added or removed; `seed` is that
    of the noise."""

    attribute: str
    source: Scene
    target: Scene
    seed: int

    @property
    def prompts(self) -> tuple[str, str]:
        return plain_caption(self.source), plain_caption(self.target)

    @property
    def changed(self) -> tuple[Thing | None, Thing | None] | None:
        """The thing before and after, None where it is not there; None where the scenery changes."""
        if self.attribute in PRESENCE:
            more, fewer = sorted((self.source, self.target), key=lambda scene: -len(scene.things))
            thing = next(thing for thing in more.things if thing not in fewer.things)
            return (None, thing) if self.attribute == "added" else (thing, None)
        pairs = zip(self.source.things, self.target.things, strict=True)
        return next(((a, b) for a, b in pairs if a != b), None)


@dataclass(frozen=True)
class EditScore:
    """made: the judge finds the wanted value. kept: PSNR in dB to the source outside the edited region.
    others: share of all other attributes that are as in the target's caption."""

    attribute: str
    made: bool
    kept: float
    others: float


def draw_pairs(count: int, seed: int, attributes: Sequence[str] = ATTRIBUTES) -> list[EditPair]:
    """`count` pairs, the attributes in turn, drawn by `seed`."""
    rng = np.random.default_rng((seed, 5))
    pairs = []
    for i in range(count):
        attribute = attributes[i % len(attributes)]
        source = _scene_with(attribute, rng)
        if attribute in PRESENCE:
            fewer = _without_one(source, rng)
            source, target = (source, fewer) if attribute == "removed" else (fewer, source)
        else:
            target = variations(source, attribute, rng)
        pairs.append(EditPair(attribute, source, target, int(rng.integers(2**31))))
    return pairs


def _scene_with(attribute: str, rng: np.random.Generator) -> Scene:
    """A scene that has the attribute: for a pose one with a figure, for a letter one with a sign; one of
    several things, where one is to be added or removed."""
    while True:
        scene = sample_scene(rng)
        if attribute in PRESENCE:
            if len(scene.things) > 1:
                return scene
        elif attribute not in OWNERS or any(t.kind == OWNERS[attribute] for t in scene.things):
            return scene


def _without_one(scene: Scene, rng: np.random.Generator) -> Scene:
    gone = int(rng.integers(len(scene.things)))
    return replace(scene, things=scene.things[:gone] + scene.things[gone + 1 :])


@torch.no_grad()
def make_pair(
    flow: Callable,
    ae: Callable,
    encode: tuple,
    pair: EditPair,
    hooks: Hooks | None,
    *,
    steps: int = 16,
    guidance: float = 3.5,
) -> Tensor:
    """Source and edit from the same noise, (2, 3, H, W) in [-1, 1]; `encode` is (t5, clip)."""
    width, height = pair.source.width, pair.source.height
    noise = get_noise(1, height, width, "cpu", torch.float32, pair.seed)
    inputs = prepare(*encode, noise, list(pair.prompts))
    timesteps = get_schedule(steps, inputs["img"].shape[1])
    latent = denoise(flow, **inputs, timesteps=timesteps, guidance=guidance, hooks=hooks)
    return ae.decode(unpack(latent.float(), height, width)).clamp(-1, 1)


def copy_in(layers: Sequence[int]) -> Hooks:
    """Keys and values of the source in these layers, as in the paper."""
    return Hooks(inject=dict.fromkeys(layers, CopySource()))


def score_pairs(
    pairs: Sequence[EditPair], judge: Judge, make: Callable[[EditPair], Tensor]
) -> Iterator[EditScore]:
    """Make and score each pair; `make` returns source and edit as `make_pair` does."""
    for pair in pairs:
        pictures = make(pair)
        yield score(pair, pictures, judge.read(pictures))


def score(pair: EditPair, pictures: Tensor, readings: list[Reading]) -> EditScore:
    source, edit = readings
    outside = ~region(pair, pictures.shape[-2:], source, edit)
    # Should a region fill the picture, the whole of it is compared.
    outside = outside if outside.any() else torch.ones_like(outside)
    error = ((pictures[0] - pictures[1]) / 2).square().mean(dim=0)[outside].mean()
    kept = float(-10 * torch.log10(error.clamp(min=1e-6)))
    made, others = _attributes(pair, edit)
    return EditScore(pair.attribute, made, kept, others)


def region(pair: EditPair, size: tuple[int, int], *readings: Reading) -> Tensor:
    """Where the edit may change the picture, bool (H, W): the thing in both pictures, or part of the scenery.

    At night grounds are darker, so a sky that becomes or was night may change all but the things.
    """
    height, width = size
    mask = torch.zeros(height, width, dtype=torch.bool)
    if pair.attribute == "sky" and "night" in (pair.source.sky, pair.target.sky):
        mask = ~_boxes(readings[0].things, height, width, margin=-MARGIN)
    elif pair.attribute in ("sky", "weather"):
        mask[: round(HORIZON[1] * height)] = True
    elif pair.attribute == "ground":
        mask[round(HORIZON[0] * height) :] = True
    else:
        for reading, thing in zip(readings, pair.changed, strict=True):
            if thing is not None:
                mask |= _boxes(_like(reading, thing), height, width, margin=MARGIN)
    return mask


def _like(reading: Reading, thing: Thing) -> list[FoundThing]:
    """What the judge takes for the thing: those of its kind, or else everything it found."""
    return [found for found in reading.things if found.kind == thing.kind] or list(reading.things)


def _boxes(things: Sequence[FoundThing], height: int, width: int, margin: int) -> Tensor:
    """Boxes of things as a mask, bool (H, W). With a margin they are those of big things with hats, whatever
    the things, so that a change of size or hat stays inside; a negative margin shrinks the things' own."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    for found in things:
        half = SIZE_PIXELS["big" if margin > 0 else found.size] / 2
        rise = 2 * half * HAT_RISE if margin > 0 else 0
        rows, columns = (
            slice(max(0, round(low)), max(0, round(high)))
            for low, high in (
                (found.y - half - rise - margin, found.y + half + margin),
                (found.x - half - margin, found.x + half + margin),
            )
        )
        mask[rows, columns] = True
    return mask


def _attributes(pair: EditPair, edit: Reading) -> tuple[bool, float]:
    """Whether the wanted value is there, or the thing is or is not, and the share of all other attributes
    that are right."""
    right = {name: getattr(edit, name) == getattr(pair.target, name) for name in SCENERY}
    for i, thing in enumerate(pair.target.things):
        found = next((f for f in edit.things if f.kind == thing.kind), None)
        right[f"kind{i}"] = found is not None
        for name in THING_VALUES:
            if name != "kind" and getattr(thing, name) is not None:
                right[f"{name}{i}"] = found is not None and getattr(found, name) == getattr(thing, name)
    wanted = pair.attribute
    if pair.attribute == "removed":
        right[wanted] = all(found.kind != pair.changed[0].kind for found in edit.things)
    elif pair.attribute == "added":
        wanted = f"kind{pair.target.things.index(pair.changed[1])}"
    elif pair.changed is not None:
        wanted += str(pair.target.things.index(pair.changed[1]))
    made = right.pop(wanted)
    return bool(made), float(np.mean(list(right.values())))


class JudgedPairs:
    """Pairs with a right answer, and what counts of an edit of one. folder: holds the judge.

    Raises FileNotFoundError where it does not.
    """

    def __init__(self, folder: Path):
        self._judge = load_judge(folder / JUDGE)

    def draw(self, count: int, seed: int) -> list[EditPair]:
        """`count` pairs, each with its prompts and the seed of its noise."""
        return draw_pairs(count, seed)

    def score(self, pair: EditPair, source: Tensor, edit: Tensor) -> tuple[float, float]:
        """made, 0 or 1, and kept, in dB, see `EditScore`. source, edit: (3, H, W), RGB in [-1, 1]."""
        pictures = torch.stack((source, edit))
        found = score(pair, pictures, self._judge.read(pictures))
        return float(found.made), found.kept
