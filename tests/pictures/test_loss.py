"""How much of its source an edit lost, on drawn pictures."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flux.pictures.loss import SIDE, loss
from flux.studies.edit.spec import Checks
from flux.tiny.scenes import Scene, Thing, render, sample_scene, variations

FLOWER = Thing("flower", "red", "big", False, 36, 110)
HOUSE = Thing("house", "blue", "big", True, 92, 110)
SOURCE = Scene("day", "grass", (FLOWER, HOUSE), 128, 128, seed=3)
LIMIT = Checks().lost_source


def drawn(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene))


def things(*shown: Thing, **changes) -> Image.Image:
    return drawn(replace(SOURCE, things=shown, **changes))


def test_nothing_is_lost_of_equal_pictures():
    assert loss(drawn(SOURCE), drawn(SOURCE)) == loss(drawn(SOURCE), drawn(SOURCE), things(HOUSE)) == 0
    flat = Image.new("RGB", (16, 16))
    assert loss(flat, flat, flat) == 0


def test_a_removed_hat_is_no_loss():
    """Without injection it is gone just as well: that the edit is no closer to the source says nothing."""
    bare = things(FLOWER, replace(HOUSE, hat=False))
    assert 0 < loss(drawn(SOURCE), bare, bare) < LIMIT


@pytest.mark.parametrize("scenery", [{"sky": "night"}, {"ground": "sand"}, {"weather": "rainy"}])
def test_other_scenery_is_no_loss(scenery):
    """Much of the picture changes, and everything stands where it stood."""
    asked = things(FLOWER, HOUSE, **scenery)
    assert loss(drawn(SOURCE), asked, asked) < LIMIT


def test_things_that_moved_are_a_loss():
    moved = things(replace(FLOWER, x=92.0), replace(HOUSE, x=36.0))
    assert loss(drawn(SOURCE), moved) > LIMIT
    assert loss(drawn(SOURCE), moved, moved) > LIMIT


def test_what_neither_picture_shows_counts_more():
    """A cat over the house: where source and picture without injection agree, nothing was asked for."""
    plain = things(FLOWER, replace(HOUSE, hat=False))
    worse = things(FLOWER, replace(HOUSE, kind="tree", colour="yellow", hat=False))
    assert loss(drawn(SOURCE), worse, plain) > loss(drawn(SOURCE), worse) > 0
    assert loss(drawn(SOURCE), worse, worse) == loss(drawn(SOURCE), worse)


def test_large_pictures_are_compared_in_small():
    rng = np.random.default_rng(1)
    scene = sample_scene(rng)
    first, second = drawn(scene), drawn(variations(scene, "kind", rng))
    large = [each.resize((8 * SIDE, 8 * SIDE), Image.Resampling.NEAREST) for each in (first, second)]
    assert loss(*large) == loss(first, second) > 0
    assert loss(first.resize((512, 64)), second.resize((512, 64))) >= 0
