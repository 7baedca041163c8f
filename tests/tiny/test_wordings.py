"""Captions and scenes of the next weights, and the free phrasings that they do not have."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from flux.tiny.captions import MAX_WORDS, plain_caption
from flux.tiny.phrasings import load_phrasings
from flux.tiny.scenes import (
    ATTRIBUTES,
    KINDS,
    SCENERY,
    THING_VALUES,
    Scene,
    Thing,
    is_held_out,
    render,
    sample_scene,
)
from flux.tiny.training import layouts, wordings
from flux.tiny.training.layouts import paired_scenes, sample_pair
from flux.tiny.training.wordings import kinds_of_nouns, vocabulary, word


@pytest.fixture(scope="module")
def captions() -> list[str]:
    rng = np.random.default_rng(0)
    scenes = [scene for _ in range(300) for scene in sample_pair(rng, 128)]
    return [word(scene, rng, complete=i % 2 == 0).text for _ in range(12) for i, scene in enumerate(scenes)]


def meaning(scene: Scene) -> tuple:
    """All that a scene shows, without places."""
    things = sorted(str(replace(thing, x=0, y=0)) for thing in scene.things)
    return (scene.sky, scene.ground, scene.weather, *things)


# Scenes in pairs


def test_a_pair_differs_in_one_thing_or_attribute_and_nothing_moves():
    scenes = paired_scenes(0, 400, 128)
    changed: Counter = Counter()
    for a, b in zip(scenes[::2], scenes[1::2], strict=True):
        assert (a.seed, a.width) == (b.seed, b.width) and not is_held_out(a) and not is_held_out(b)
        if len(b.things) < len(a.things):
            assert set(b.things) < set(a.things) and replace(b, things=a.things) == a and b.things
            changed["removed"] += 1
            continue
        differ = [name for name in SCENERY if getattr(a, name) != getattr(b, name)]
        for one, other in zip(a.things, b.things, strict=True):
            assert (one.x, one.y) == (other.x, other.y)
            names = [name for name in THING_VALUES if getattr(one, name) != getattr(other, name)]
            differ += ["kind"] if "kind" in names else names
        assert len(differ) == 1
        changed[differ[0]] += 1
    assert set(changed) == {"removed", *ATTRIBUTES}


def test_places_do_not_depend_on_how_many_things_there_are(monkeypatch):
    alone, all_three = [], []
    for shares, found in (((1.0, 0.0, 0.0), alone), ((0.0, 0.0, 1.0), all_three)):
        monkeypatch.setattr(layouts, "COUNT_SHARES", shares)
        rng = np.random.default_rng(3)
        found += [layouts._sample_scene(rng, 128) for _ in range(20)]
    assert all(len(scene.things) == 1 for scene in alone)
    assert [scene.things for scene in alone] == [scene.things[:1] for scene in all_three]


def test_small_canvases_hold_one_thing():
    scenes = paired_scenes(0, 40, 64)
    assert all(len(scene.things) == 1 and render(scene).shape == (64, 64, 3) for scene in scenes)
    assert paired_scenes(0, 20, 64) == scenes[:20]


# Captions


def test_captions_are_words_of_the_vocabulary_and_use_all_of_it(captions):
    used = {each for caption in captions for each in caption.split()}
    assert used <= set(vocabulary())
    # Plurals are rare.
    assert set(vocabulary()) - used <= {
        wordings.plural(noun) for nouns in wordings.NOUNS.values() for noun in nouns
    }
    assert max(len(caption.split()) for caption in captions) <= MAX_WORDS
    assert all(" ".join(caption.split()) == caption for caption in captions)


def test_no_noun_names_two_kinds():
    forms = [
        form for nouns in wordings.NOUNS.values() for noun in nouns for form in (noun, wordings.plural(noun))
    ]
    assert len(forms) == len(set(forms)) == len(kinds_of_nouns())
    assert set(kinds_of_nouns().values()) == set(KINDS)


def test_complete_captions_of_unlike_scenes_are_unlike():
    rng = np.random.default_rng(1)
    said: dict[str, tuple] = {}
    for _ in range(2000):
        scene = sample_scene(rng, 64, 64)
        text = word(scene, rng).text
        assert said.setdefault(text, meaning(scene)) == meaning(scene), text


def test_what_a_caption_leaves_out_is_told():
    rng = np.random.default_rng(2)
    scene = Scene("night", "snow", (Thing("car", "red", "big", False, 60, 100),), 128, 128)
    ground, size = {"snow", "snowy", "winter"}, set(wordings.SIZE_WORDS["big"])
    made = [word(scene, rng, complete=False) for _ in range(300)]
    for each in made:
        words = set(each.text.split())
        assert bool(words & ground) == each.ground and bool(words & size) == each.sizes[0]
    assert 0.1 < np.mean([not each.sky for each in made]) < 0.4
    assert not any("night" in each.text for each in made if not each.sky)
    complete = [word(scene, rng) for _ in range(100)]
    assert all(made.sky and made.ground and made.sizes == (True,) for made in complete)


def test_stray_words_are_none_that_captions_have_and_fit():
    rng = np.random.default_rng(6)
    text = "a big red house with a hat on the grass at night"
    made = [wordings.with_strays(text, rng) for _ in range(400)]
    strayed = [each for each in made if each != text]
    assert 0.08 < len(strayed) / 400 < 0.2
    for each in strayed:
        new = [w for w in each.split() if w not in vocabulary()]
        assert 1 <= len(new) <= 2 and " ".join(w for w in each.split() if w not in new) == text
    assert (
        wordings.with_strays(" ".join(["a"] * MAX_WORDS), np.random.default_rng(0)).split()
        == ["a"] * MAX_WORDS
    )


def test_two_alike_are_named_once_in_the_plural():
    rng = np.random.default_rng(4)
    things = tuple(Thing("figure", "red", "big", True, x, 100, pose="arms up") for x in (30, 90))
    scene = Scene("day", "sand", things, 128, 128)
    for _ in range(100):
        words = word(scene, rng).text.split()
        assert sum(each in ("figures", "persons", "men") for each in words) == 1
        assert {"two", "pair"} & set(words) and words.count("red") == 1


def test_a_share_of_the_captions_is_plain():
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng) for _ in range(400)]
    plain = sum(word(scene, rng).text == plain_caption(scene) for scene in scenes)
    assert 0.12 < plain / 400 < 0.3


# Free phrasings


def test_phrasings_say_values_of_the_world():
    phrasings = load_phrasings()
    assert len(phrasings) == len({each.prompt for each in phrasings}) == 64
    for each in phrasings:
        assert 1 <= len(each.scene.things) <= 3
        assert all(getattr(each.scene, name) in (None, *values) for name, values in SCENERY.items())
        for thing in each.scene.things:
            assert thing.kind and all(getattr(thing, n) in (None, *v) for n, v in THING_VALUES.items())
            assert (thing.pose is not None) <= (thing.kind == "figure")
            assert (thing.letter is not None) == (thing.kind == "sign")


def test_phrasings_cover_the_world():
    things = [thing for each in load_phrasings() for thing in each.scene.things]
    for name, values in THING_VALUES.items():
        shown = Counter(getattr(thing, name) for thing in things)
        assert min(shown[value] for value in values) >= 1 + (name in ("kind", "colour")), (name, shown)
    for name, values in SCENERY.items():
        shown = Counter(getattr(each.scene, name) for each in load_phrasings())
        assert min(shown[value] for value in values) >= 5, (name, shown)


def test_no_caption_is_worded_like_a_phrasing(captions):
    """Each has two or three words in a row that captions never have."""
    import re

    def runs(text: str) -> set[tuple]:
        words = re.findall(r"[a-z]+", text.lower())
        return {tuple(words[i : i + n]) for n in (2, 3) for i in range(len(words) - n + 1)}

    known = set().union(*(runs(caption) for caption in captions))
    assert [each.prompt for each in load_phrasings() if runs(each.prompt) <= known] == []


def test_most_words_of_phrasings_are_known():
    import re

    unknown = [
        each.prompt
        for each in load_phrasings()
        if set(re.findall(r"[a-z]+", each.prompt.lower())) - set(vocabulary())
    ]
    assert len(unknown) < 64
