"""Edits with a known right answer: drawn, and scored by what a judge reads."""

import torch

from flux.tiny.edit_pairs import PRESENCE, draw_pairs, region, score
from flux.tiny.judge import FoundThing, Reading
from flux.tiny.scenes import ATTRIBUTES, Scene


def read(scene: Scene) -> Reading:
    """What a judge that errs nowhere sees."""
    things = tuple(
        FoundThing(t.kind, t.colour, t.size, t.hat, t.x, t.y - 20, 0.9, t.pose, t.letter)
        for t in scene.things
    )
    return Reading(scene.sky, scene.ground, things, scene.weather)


def test_pairs_with_things_more_or_less_differ_in_one_thing_alone():
    for pair in draw_pairs(20, 1, PRESENCE):
        before, after = len(pair.source.things), len(pair.target.things)
        assert after - before == (1 if pair.attribute == "added" else -1) and min(before, after) >= 1
        gone, come = pair.changed
        assert (gone is None) == (pair.attribute == "added") and (come is None) == (gone is not None)
        assert set(pair.source.things) ^ set(pair.target.things) == {gone or come}
        assert pair.prompts[0] != pair.prompts[1]


def test_a_right_edit_is_made_and_one_that_changes_nothing_is_not():
    picture = torch.zeros(2, 3, 128, 128)
    for pair in draw_pairs(44, 2, (*ATTRIBUTES, *PRESENCE)):
        right = score(pair, picture, [read(pair.source), read(pair.target)])
        assert right.made and right.others == 1 and right.kept == 60, pair
        assert not score(pair, picture, [read(pair.source)] * 2).made, pair


def test_where_a_thing_is_added_or_removed_nothing_is_kept():
    for pair in draw_pairs(12, 3, PRESENCE):
        thing = next(thing for thing in pair.changed if thing is not None)
        mask = region(pair, (128, 128), read(pair.source), read(pair.target))
        assert mask[int(thing.y) - 10, int(thing.x)] and not mask.all()
