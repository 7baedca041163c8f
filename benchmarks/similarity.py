"""Which similarity grades what is alike: rank correlation with the truth on scenes, and what it sees.

    python benchmarks/similarity.py                    500 pairs, minutes; --count 40 for a first look
    python benchmarks/similarity.py --out FOLDER       goes on with the rows that are there

A pair is two scenes of flux-tiny's world that differ in none to all of sky, ground, weather and details,
and for each thing in kind, colour, size, hat, place (16 pixels or more), pose or letter, or it is gone.
The truth is the mean of the share of these that are equal and the share of pixels within 8 levels in every
channel. A row is a similarity that demo 3 offers: its Spearman correlation with the truth, 95 % by
bootstrap over pairs, and how far each single change lowers it, as a share of the drop between unrelated
scenes. Whitening is fitted to 16 scenes that stand in no pair. Where DINOv2's weights are in the hub's
cache it has rows of its own.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import stats

from flux.files import write_atomically
from flux.pictures import metrics
from flux.pictures.features import SHALLOW, TOKENS, Dino
from flux.pictures.loss import loss
from flux.pictures.patches import Whitening, alike
from flux.studies.run import HUB_DINO
from flux.tiny.scenes import OWNERS, SCENERY, THING_VALUES, Scene, Thing, render, sample_scene, variations
from flux.util import TINY_WEIGHTS
from flux.weights.identity import pretrained_id

SEED, COUNT, SINGLES, REFERENCES, RESAMPLED = 1500, 500, 24, 16, 2000
FAR, NEAR = 16, 8
"""A thing is elsewhere from so many pixels on; pixels are equal up to so many of 255 levels."""
WHOLE = (*SCENERY, "details")
CHANGES = (*WHOLE, *THING_VALUES, "place", "gone")
AIM, AIM_SINGLE = 0.92, 0.5
RESULTS = Path(__file__).parent / "results" / "similarity.json"

Pair = tuple[Image.Image, Image.Image]
Alike = Callable[[Sequence[Pair]], list[float]]


# Scenes


@dataclass(frozen=True)
class ScenePair:
    """Two scenes. thing: by thing of the first, that of the second; None for one that is gone."""

    first: Scene
    second: Scene
    things: tuple[Thing | None, ...]

    @property
    def equal(self) -> float:
        """The share of what there is to say of the first scene that holds of the second."""
        same = [getattr(self.first, name) == getattr(self.second, name) for name in (*SCENERY, "seed")]
        for one, other in zip(self.first.things, self.things, strict=True):
            names = [
                f.name for f in fields(Thing) if f.name in THING_VALUES and getattr(one, f.name) is not None
            ]
            same += [other is not None and getattr(other, name) == getattr(one, name) for name in names]
            same.append(other is not None and not _far(one, other))
        return float(np.mean(same))

    def pictures(self) -> Pair:
        return tuple(Image.fromarray(render(scene)) for scene in (self.first, self.second))


def truth(pair: ScenePair) -> float:
    return (pair.equal + 1 - metrics.changed_share(*pair.pictures(), NEAR)) / 2


def draw_pair(rng: np.random.Generator) -> ScenePair:
    """Each thing there is to change is changed with one probability, which is itself drawn."""
    scene, often = sample_scene(rng), rng.random()
    pair = ScenePair(scene, scene, scene.things)
    for change in CHANGES:
        for place in [None] if change in WHOLE else range(len(scene.things)):
            if rng.random() < (often / 3 if change == "gone" else often):
                pair = change_one(pair, change, place, rng)
    return pair


def change_one(pair: ScenePair, change: str, place: int | None, rng: np.random.Generator) -> ScenePair:
    """The pair with one more change in its second scene; as it was where there is nothing to change."""
    scene, things = pair.second, list(pair.things)
    if change in SCENERY:
        scene = variations(scene, change, rng)
    elif change == "details":
        scene = replace(scene, seed=int(rng.integers(2**31)))
    elif things[place] is not None:
        things[place] = _changed_thing(scene, things[place], change, rng)
        if not any(things):
            return pair
    scene = replace(scene, things=tuple(thing for thing in things if thing is not None))
    return ScenePair(pair.first, scene, tuple(things))


def _changed_thing(scene: Scene, thing: Thing, change: str, rng: np.random.Generator) -> Thing | None:
    if change == "gone":
        return None
    others = [each for each in scene.things if each is not thing]
    if change == "place":
        for _ in range(40):
            (there,) = sample_scene(rng, scene.width, scene.height, n_things=1).things
            moved = replace(thing, x=there.x, y=there.y)
            if _far(thing, moved) and all(abs(moved.x - each.x) > 2 * FAR for each in others):
                return moved
        return thing
    if getattr(thing, change) is None:
        return thing
    while True:
        (found,) = variations(replace(scene, things=(thing,)), change, rng).things
        if found.kind not in {each.kind for each in others}:
            return found


def _far(one: Thing, other: Thing) -> bool:
    return (one.x - other.x) ** 2 + (one.y - other.y) ** 2 >= FAR**2


def singles(rng: np.random.Generator, count: int) -> dict[str, list[ScenePair]]:
    """By change, pairs that differ in it alone; and `unrelated` ones."""
    found: dict[str, list[ScenePair]] = {}
    for change in CHANGES:
        pairs = found[change] = []
        while len(pairs) < count:
            scene = sample_scene(rng)
            owner = OWNERS.get(change)
            able = [i for i, thing in enumerate(scene.things) if owner in (None, thing.kind)]
            if not able or (change == "gone" and len(able) < 2):
                continue
            place = None if change in WHOLE else int(rng.choice(able))
            pair = change_one(ScenePair(scene, scene, scene.things), change, place, rng)
            if pair.second != pair.first:
                pairs.append(pair)
    unrelated = [(sample_scene(rng), sample_scene(rng)) for _ in range(count)]
    found["unrelated"] = [ScenePair(a, b, (None,) * len(a.things)) for a, b in unrelated]
    return found


# Similarities


def offered(references: Sequence[Image.Image]) -> Iterator[tuple[str, Callable[[], Alike]]]:
    """By name, what makes each similarity."""
    models = {"flux-tiny's DINO": str(TINY_WEIGHTS / "dino")}
    if pretrained_id(HUB_DINO) is not None:
        models["DINOv2"] = HUB_DINO
    for name, source in models.items():
        dino = Dino(source)
        for token, words in zip(TOKENS, ("class token", "mean of the patch tokens"), strict=True):
            metric = "dino" if token == TOKENS[0] else "dino, token patches"
            yield f"{metric}: {words}, {name}", partial(by_features, dino, TOKENS.index(token))
        blocks = dino.model.config.num_hidden_layers
        for block in range(blocks + 1) if blocks <= SHALLOW else sorted({1, blocks // 2, blocks}):
            place = f"block {block}" if block else "embedding"
            yield f"dino-patches, {place}, {name}", partial(by_patches, dino, block, None)
            yield f"dino-whitened, {place}, {name}", partial(by_patches, dino, block, references)
    for metric, measure in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
        yield metric, partial(one_by_one, measure)
    yield 'outlines, of "lost the source"', partial(one_by_one, lambda a, b: -loss(a, b))


def by_features(dino: Dino, kind: int) -> Alike:
    def measure(pairs: Sequence[Pair]) -> list[float]:
        return [metrics.cosine(*(row[kind] for row in dino.embed(pair))) for pair in pairs]

    return measure


def by_patches(dino: Dino, block: int, references: Sequence[Image.Image] | None) -> Alike:
    whitening = None if references is None else Whitening.of(dino.patches(references, block, scaled=False))

    def measure(pairs: Sequence[Pair]) -> list[float]:
        found = []
        for pair in pairs:
            tokens = dino.patches(pair, block, scaled=False)
            found += alike(tokens[0], tokens[1:], whitening)
        return found

    return measure


def one_by_one(measure: Callable[[Image.Image, Image.Image], float]) -> Alike:
    # Equal pictures have an infinite PSNR, which ranks above all others.
    return lambda pairs: [min(measure(*pair), 100.0) for pair in pairs]


# Figures


def row_of(
    measure: Alike, pairs: Sequence[Pair], truths: Sequence[float], apart: Mapping[str, list[Pair]]
) -> dict:
    values = np.array(measure(pairs))
    rng = np.random.default_rng(SEED)
    draws = rng.integers(len(pairs), size=(RESAMPLED, len(pairs)))
    truths = np.array(truths)
    ranks = [stats.spearmanr(values[draw], truths[draw]).statistic for draw in draws]
    same = float(np.mean(measure([(a, a) for a, _ in pairs[:4]])))
    drops = {change: same - float(np.mean(measure(some))) for change, some in apart.items()}
    whole = drops.pop("unrelated")
    return {
        "rank correlation": round(float(stats.spearmanr(values, truths).statistic), 3),
        "interval": [round(float(q), 3) for q in np.nanquantile(ranks, (0.025, 0.975))],
        "single changes, share of the range": {name: round(drop / whole, 2) for name, drop in drops.items()},
    }


def show(rows: Mapping[str, dict]) -> Iterator[str]:
    yield "| similarity | rank correlation | largest single changes |"
    yield "| --- | --- | --- |"
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["rank correlation"]):
        single = row["single changes, share of the range"]
        most = sorted(single, key=lambda change: -single[change])[:3]
        low, high = row["interval"]
        largest = ", ".join(f"{change} {single[change]:.2f}" for change in most)
        yield f"| {name} | {row['rank correlation']:.3f} [{low:.3f}, {high:.3f}] | {largest} |"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT, help=f"pairs, {COUNT} without it")
    parser.add_argument("--out", type=Path, help="the file to go on with; without it results/similarity.json")
    options = parser.parse_args()
    file = options.out / "similarity.json" if options.out else RESULTS
    rng = np.random.default_rng(SEED)
    references = [Image.fromarray(render(sample_scene(rng))) for _ in range(REFERENCES)]
    scenes = [draw_pair(rng) for _ in range(options.count)]
    apart = {k: [p.pictures() for p in v] for k, v in singles(rng, min(SINGLES, options.count)).items()}
    pairs, truths = [pair.pictures() for pair in scenes], [truth(pair) for pair in scenes]
    made_of = {
        "pairs": options.count,
        "seed": SEED,
        "dino": (pretrained_id(TINY_WEIGHTS / "dino") or "")[:16],
    }
    table = _earlier(file, made_of)
    for name, make in offered(references):
        if name not in table["rows"]:
            table["rows"][name] = row_of(make(), pairs, truths, apart)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, (json.dumps(table, indent=1) + "\n").encode())
            print(f"{name}: {table['rows'][name]['rank correlation']:.3f}", flush=True)
    print("\n".join(show(table["rows"])))


def _earlier(file: Path, made_of: dict) -> dict:
    """The rows that are there of the same pairs and weights."""
    found = json.loads(file.read_text()) if file.is_file() else {}
    same = all(found.get(key) == value for key, value in made_of.items())
    return found if same and "rows" in found else {**made_of, "rows": {}}


if __name__ == "__main__":
    main()
