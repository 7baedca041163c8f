"""Prompts of flux-tiny's world for an ablation sweep, drawn by a fixed seed.

python -m flux.tiny.prompts > json/prompt-tiny.json
"""

import json
from collections import Counter

import numpy as np

from flux.tiny.captions import plain_caption
from flux.tiny.scenes import SCENERY, THING_VALUES, Scene, sample_scene

CANDIDATES = 40
"""How many scenes are drawn for each prompt, to take the one whose values were shown least so far."""


def draw_prompts(count: int = 64, seed: int = 64) -> list[dict[str, str | int]]:
    """`count` unlike prompts that cover the world evenly, each with the seed of its noise, as a sweep's spec
    takes them."""
    rng = np.random.default_rng((seed, 7))
    shown: Counter = Counter()
    texts: dict[str, None] = {}
    while len(texts) < count:
        candidates = [sample_scene(rng) for _ in range(CANDIDATES)]
        scene = min(candidates, key=lambda scene: np.mean([shown[value] for value in values(scene)]))
        shown.update(values(scene))
        texts[plain_caption(scene)] = None
    return [{"prompt": text, "seed": i} for i, text in enumerate(texts)]


def values(scene: Scene) -> list[tuple]:
    """What is counted: the scenery together, the number of things, and each thing's kind with one value."""
    scenery = tuple(getattr(scene, name) for name in SCENERY)
    about = [(thing.kind, name, getattr(thing, name)) for thing in scene.things for name in THING_VALUES]
    return [scenery, ("things", len(scene.things)), *(value for value in about if value[2] is not None)]


def as_file(prompts: list[dict[str, str | int]]) -> str:
    """JSON with a line for each prompt."""
    lines = ",\n".join(f"    {json.dumps(prompt)}" for prompt in prompts)
    return f'{{\n  "prompts": [\n{lines}\n  ]\n}}\n'


if __name__ == "__main__":
    print(as_file(draw_prompts()), end="")
