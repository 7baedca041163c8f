"""What is said of an edit by its prompts and a judge's readings."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flux.models import configs
from flux.tiny.asked import Asked, AskedThing, read_caption
from flux.tiny.captions import caption, plain_caption
from flux.tiny.edit_judge import FILE, EditJudge
from flux.tiny.judge import FoundThing, Reading
from flux.tiny.remarks import VALUES, Lost, Unmet, remarks
from flux.tiny.scenes import SCENERY, Scene, Thing, render, sample_scene, variations

TINY = configs["flux-tiny"].home


# Prompts


def test_captions_are_read_back_whole():
    rng = np.random.default_rng(0)
    for i in range(300):
        scene = sample_scene(rng)
        text = plain_caption(scene) if i % 2 else caption(scene, rng)
        asked = read_caption(text)
        assert all(getattr(asked, name) == getattr(scene, name) for name in SCENERY), text
        kinds = {thing.kind: thing for thing in scene.things}
        assert len(asked.things) == len(kinds), text
        for thing in asked.things:
            same = kinds[thing.kind]
            assert all(getattr(thing, name) == getattr(same, name) for name in VALUES), text


def test_what_a_short_prompt_leaves_open_is_not_said():
    assert read_caption("A red boat, at night!") == Asked((AskedThing("boat", "red"),), sky="night")
    assert read_caption("") == Asked(())


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a cat",
        "two cats",
        "a red hat",
        "a red",
        "a red blue boat",
        "a cat with a k",
        "by day at night",
    ]
    + ["with a hat a cat", "ein Haus", "a cat \N{SNOWMAN} dog"],
)
def test_a_prompt_is_understood_whole_or_not_at_all(prompt):
    assert read_caption(prompt) is None


# Readings


def thing(kind: str, colour: str = "red", x: float = 40, y: float = 80, **values) -> FoundThing:
    return FoundThing(kind, colour, **{"size": "big", "hat": False, "x": x, "y": y, "score": 0.9, **values})


def seen(*things: FoundThing, **scenery: str) -> Reading:
    return Reading(**{"sky": "day", "ground": "grass", "weather": "clear", **scenery}, things=things)


def said(source: str, edit: str, before: Reading, after: Reading) -> list:
    return list(remarks(read_caption(source), read_caption(edit), before, after))


CAT, FLOWER = thing("cat", x=90), thing("flower", x=36)


def test_an_edit_as_asked_is_not_spoken_of():
    before = seen(CAT, FLOWER)
    assert (
        said(
            "a red cat and a flower",
            "a red cat with a hat and a flower",
            before,
            seen(replace(CAT, hat=True, y=84), replace(FLOWER, x=44)),
        )
        == []
    )
    assert said("a flower", "a flower and a cat", seen(FLOWER), before) == []
    assert said("a flower and a cat", "a cat", before, seen(CAT)) == []
    assert said("a cat by day", "a cat at night", seen(CAT), seen(CAT, sky="night")) == []
    assert said("a flower", "a cat", seen(FLOWER), seen(replace(CAT, x=36))) == []


@pytest.mark.parametrize(
    "source, edit, before, after, remark",
    [
        ("a flower", "a flower and a cat", [FLOWER], [replace(CAT, x=36)], Lost("the flower is gone")),
        ("a cat", "a blue cat", [CAT], [replace(CAT, colour="blue", x=40)], Lost("the cat moved")),
        ("a cat", "a cat with a hat", [CAT], [CAT], Unmet("asked for a hat on the cat, none seen")),
        ("a cat in a hat", "a cat", [replace(CAT, hat=True)], [replace(CAT, hat=True)],
         Unmet("asked for no hat on the cat, one seen")),
        ("a flower", "a flower and a cat", [FLOWER], [FLOWER], Unmet("asked for a cat, none seen")),
        ("a flower and a cat", "a flower", [FLOWER, CAT], [FLOWER, CAT], Unmet("asked for no cat, one seen")),
        ("a cat", "a cat with a hat", [CAT], [replace(CAT, hat=True), replace(CAT, x=36)],
         Lost("there is a second cat that nobody asked for")),
        ("a cat", "a cat in a hat", [CAT], [replace(CAT, hat=True), FLOWER],
         Lost("there is a flower that nobody asked for")),
        ("a cat", "a cat in the rain", [CAT], [replace(CAT, colour="blue")],
         Lost("the cat turned from red to blue")),
        ("a red cat", "a blue cat", [CAT], [CAT], Unmet("asked for a blue cat, a red cat seen")),
        ("a flower", "a cat", [FLOWER], [CAT], Lost("the cat is not where the flower was")),
    ],
)  # fmt: skip
def test_what_went_wrong_is_said(source, edit, before, after, remark):
    assert remark in said(source, edit, seen(*before), seen(*after))


def test_scenery_stays_or_changes_as_asked():
    day, night = seen(CAT), seen(CAT, sky="night", weather="rainy")
    assert said("a cat", "a blue cat", day, seen(replace(CAT, colour="blue"), sky="night")) == [
        Lost("the sky turned from day to night")
    ]
    assert said("a cat by day", "a cat at night", day, day) == [
        Unmet("asked for a night sky, a day sky seen")
    ]
    assert said("a cat in the rain", "a cat", night, night) == [
        Unmet("asked for clear weather, rainy weather seen")
    ]


def test_what_the_source_never_showed_is_neither_lost_nor_missing():
    assert (
        said("a cat and a flower", "a cat with a hat and a flower", seen(CAT), seen(replace(CAT, hat=True)))
        == []
    )
    extra = replace(FLOWER, x=100)
    assert said("a cat", "a cat by day", seen(CAT, extra), seen(CAT, extra)) == []


# Pictures


def pictures(*scenes: Scene) -> tuple[Image.Image, ...]:
    return tuple(Image.fromarray(render(scene)) for scene in scenes)


@pytest.fixture(scope="module")
def judge() -> EditJudge:
    return EditJudge(TINY)


def test_the_judge_sees_it_in_drawn_pictures(judge):
    """Right edits are left alone; the flower that a cat replaced and the hat that is not there are named."""
    flower, cat = Thing("flower", "red", "big", False, 36, 110), Thing("cat", "blue", "big", False, 92, 110)
    source = Scene("day", "grass", (flower,), 128, 128, seed=3)
    prompts = (plain_caption(source), plain_caption(replace(source, things=(flower, cat))))
    assert judge(prompts, pictures(source, replace(source, things=(flower, cat)))) == ([], [])
    lost, unmet = judge(prompts, pictures(source, replace(source, things=(replace(cat, x=36.0),))))
    assert lost == ["the flower is gone"] and unmet == []
    hat = replace(source, things=(replace(flower, hat=True),))
    assert judge((prompts[0], plain_caption(hat)), pictures(source, source)) == (
        [], ["asked for a hat on the flower, none seen"])  # fmt: skip


def test_right_edits_of_every_attribute_are_left_alone(judge):
    rng = np.random.default_rng(4)
    wrong = 0
    for attribute in ("sky", "ground", "weather", "colour", "size", "hat", "kind") * 4:
        source = sample_scene(rng, n_things=2)
        edit = variations(source, attribute, rng)
        wrong += judge((plain_caption(source), plain_caption(edit)), pictures(source, edit)) != ([], [])
    assert wrong <= 1


def test_where_the_judge_cannot_tell_it_says_nothing(judge):
    small = (Image.new("RGB", (64, 64)),) * 2
    assert judge(("a cat", "a cat by day"), small) is None
    large = (Image.new("RGB", (128, 128)),) * 2
    assert judge(("a cat", "a dog"), large) is None
    assert judge(("a cat", "a cat by day"), large) is not None


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_broken_judge_is_named(tmp_path: Path, content):
    with pytest.raises(FileNotFoundError):
        EditJudge(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=f"{FILE} is not flux-tiny's judge"):
        EditJudge(tmp_path)
