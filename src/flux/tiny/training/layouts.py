"""Scenes in pairs, for the flow model to tell what a word changes.

The places of three things are drawn first and then some are left empty, so that what stands where does not
depend on how many there are: "the same without the cat" has the rest in place. Scenes 2 k and 2 k + 1 differ
in one attribute, or in one thing that only the first has. A few scenes have two things alike.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np

from flux.tiny.scenes import (
    ATTRIBUTES,
    COUNT_SHARES,
    OWNERS,
    TWO_THINGS_SIDE,
    Scene,
    is_held_out,
    sample_scene,
    variations,
)
from flux.tiny.training.processes import blocks, spread

BLOCK = 250
"""Pairs that are drawn from one generator; blocks are drawn side by side."""
REMOVED = 0.35
"""Of the pairs of two things and more, the share in which one goes."""
TWINS = 0.06
"""Of the scenes of two things and more, the share in which two are alike in all but their place."""


@cache
def paired_scenes(seed: int, count: int, side: int) -> tuple[Scene, ...]:
    """`count` scenes of side x side pixels; a longer list begins with the shorter one."""
    drawn = spread(partial(_block, seed, side), blocks(-(-count // 2), BLOCK), "pairs of scenes", each=BLOCK)
    return tuple(scene for block in drawn for scene in block)[:count]


def _block(seed: int, side: int, block: tuple[int, int]) -> list[Scene]:
    number, count = block
    rng = np.random.default_rng((seed, side, 11, number))
    return [scene for _ in range(count) for scene in sample_pair(rng, side)]


def sample_pair(rng: np.random.Generator, side: int) -> tuple[Scene, Scene]:
    """A scene and the same with one difference; neither holds a combination that is held out."""
    scene = _sample_scene(rng, side)
    several = len(scene.things) > 1
    if several and rng.random() < TWINS:
        first, second, *rest = scene.things
        twin = replace(first, x=second.x, y=second.y)
        scene = replace(scene, things=(first, twin, *rest))
        return scene, _without(scene, int(rng.integers(2)))
    if several and rng.random() < REMOVED:
        return scene, _without(scene, int(rng.integers(len(scene.things))))
    kinds = {thing.kind for thing in scene.things}
    able = [name for name in ATTRIBUTES if name not in OWNERS or OWNERS[name] in kinds]
    while True:
        other = variations(scene, able[int(rng.integers(len(able)))], rng)
        if not is_held_out(other):
            return scene, other


def _sample_scene(rng: np.random.Generator, side: int) -> Scene:
    """A scene whose things stand where more of them would have room."""
    if side < TWO_THINGS_SIDE:
        return sample_scene(rng, side, side)
    full = sample_scene(rng, side, side, n_things=len(COUNT_SHARES))
    count = 1 + int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    return replace(full, things=full.things[:count])


def _without(scene: Scene, index: int) -> Scene:
    return replace(scene, things=scene.things[:index] + scene.things[index + 1 :])
