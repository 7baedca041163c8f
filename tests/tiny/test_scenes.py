"""flux-tiny's world: the pictures, their ground truth, and their captions."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

from flux.tiny import captions
from flux.tiny.scenes import (
    ATTRIBUTES,
    COLOURS,
    GROUNDS,
    HATS,
    KINDS,
    LETTERS,
    OWNERS,
    POSES,
    SIZES,
    SKIES,
    WEATHERS,
    Scene,
    Thing,
    box_overlap,
    horizon_of,
    is_held_out,
    render,
    sample_scene,
    thing_box,
    thing_masks,
    token_labels,
    variations,
)

CANVASES = ((64, 64), (128, 128), (192, 128), (128, 192), (64, 128), (112, 80), (256, 256), (128, 112))
COMBINATIONS = list(itertools.product(KINDS, COLOURS, SIZES, HATS))


def scenes(count: int, seed: int = 0, **options) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, **options) for _ in range(count)]


def look(thing: Thing) -> tuple[str, str, str, bool]:
    return (thing.kind, thing.colour, thing.size, thing.hat)


def grow(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) and every pixel that touches it, corners included."""
    padded = np.pad(mask, 1)
    shifts = [padded[r : r + mask.shape[0], c : c + mask.shape[1]] for r in range(3) for c in range(3)]
    return np.any(shifts, axis=0)


# Sampling


def test_the_same_seed_gives_the_same_scenes_and_pictures():
    first, second = scenes(20), scenes(20)
    assert first == second
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(render(a), render(b))


@pytest.mark.parametrize("held_out", [False, True])
def test_held_out_combinations_are_sampled_only_on_request(held_out):
    for scene in scenes(3000, held_out=held_out):
        assert is_held_out(scene) == held_out


def test_one_combination_in_eight_is_held_out_evenly():
    held = [c for c in COMBINATIONS if is_held_out(Thing(*c, x=0, y=0))]
    assert len(held) * 8 == len(COMBINATIONS)
    for position, expected in ((0, 3), (1, 4), (2, 12), (3, 12)):  # kind, colour, size, hat
        counts = Counter(c[position] for c in held)
        assert all(abs(n - expected) <= 1 for n in counts.values()), counts
    assert max(Counter(c[:2] for c in held).values()) == 1  # every (kind, colour) keeps three variants


def test_training_shows_every_allowed_combination_and_every_scenery():
    sample = scenes(8000)
    seen = Counter(look(thing) for scene in sample for thing in scene.things)
    allowed = {c for c in COMBINATIONS if not is_held_out(Thing(*c, x=0, y=0))}
    assert set(seen) == allowed
    assert min(seen.values()) > 20
    scenery = {(scene.sky, scene.ground, scene.weather) for scene in sample}
    assert scenery == set(itertools.product(SKIES, GROUNDS, WEATHERS))
    assert {len(scene.things) for scene in sample} == {1, 2, 3}


def test_only_figures_have_a_pose_and_only_signs_a_letter():
    seen = Counter()
    for scene in scenes(1500):
        for thing in scene.things:
            assert (thing.pose is not None) == (thing.kind == "figure")
            assert (thing.letter is not None) == (thing.kind == "sign")
            seen.update((thing.pose, thing.letter))
    assert all(seen[value] > 50 for value in (*POSES, *LETTERS))


@pytest.mark.parametrize("width, height", CANVASES)
def test_things_stand_on_the_ground_inside_the_canvas_and_apart(width, height):
    for scene in scenes(200, width=width, height=height):
        most = 0.10 if len(scene.things) < 3 else 0.40
        assert len({thing.kind for thing in scene.things}) == len(scene.things)
        for thing in scene.things:
            left, top, right, bottom = thing_box(thing)
            assert left >= 0 and right <= width and top >= 0 and bottom <= height
            assert thing.y > horizon_of(scene)
        for a, b in itertools.combinations(map(thing_box, scene.things), 2):
            assert box_overlap(a, b) <= most


def test_impossible_canvases_are_refused():
    rng = np.random.default_rng(0)
    tight = ({"width": 64, "n_things": 2}, {"height": 64, "n_things": 2}, {"width": 112, "n_things": 3})
    for options in ({"width": 100}, {"height": 48}, *tight, {"n_things": 4}, {"n_things": 0}):
        with pytest.raises(ValueError):
            sample_scene(rng, **options)


def test_every_canvas_gets_as_many_things_as_it_has_room_for():
    for width, height in itertools.product(range(64, 161, 16), repeat=2):
        counts = {len(scene.things) for scene in scenes(40, seed=9, width=width, height=height)}
        most = 1 if min(width, height) < 112 else 2 if width < 128 else 3
        assert counts == set(range(1, most + 1)), (width, height)


# Pictures, masks and labels


@pytest.mark.parametrize("width, height", CANVASES)
def test_pictures_have_the_shape_of_their_canvas(width, height):
    (scene,) = scenes(1, width=width, height=height)
    image = render(scene)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert render(scene, supersample=1).shape == image.shape


DETAILED = [
    *((*combination, None, None) for combination in COMBINATIONS),
    *(("figure", "red", size, True, "arms up", None) for size in SIZES),
    *(("sign", "red", size, True, None, letter) for size in SIZES for letter in LETTERS),
]


@pytest.mark.parametrize("look", DETAILED, ids=lambda look: "-".join(map(str, look)))
def test_a_thing_is_drawn_inside_its_box(look):
    *combination, pose, letter = look
    thing = Thing(*combination, x=64.3, y=100.6, pose=pose, letter=letter)
    (mask,) = thing_masks(Scene("day", "grass", (thing,), 128, 128))
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = thing_box(thing)
    slack = 1.5  # half an outline or a halo
    assert left - slack <= columns.min() and columns.max() + 1 <= right + slack
    assert top - slack <= rows.min() and rows.max() + 1 <= bottom + slack


def test_masks_are_what_changes_when_a_thing_is_removed():
    for scene in scenes(60, seed=1):
        masks = thing_masks(scene)
        assert masks.shape == (len(scene.things), scene.height, scene.width) and masks.dtype == bool
        assert masks.sum(axis=0).max() == 1
        for index, mask in enumerate(masks):
            rest = scene.things[:index] + scene.things[index + 1 :]
            changed = (render(scene) != render(replace(scene, things=rest))).any(axis=-1)
            assert not (changed & ~grow(mask)).any()  # nothing changes beyond the blurred edge
            assert (changed & mask).sum() > 0.98 * mask.sum()


def test_nearer_things_hide_farther_ones():
    far = Thing("tree", "red", "big", False, 64, 90)
    near = Thing("house", "blue", "big", False, 64, 110)
    for things in ((far, near), (near, far)):
        scene = Scene("day", "grass", things, 128, 128)
        alone = thing_masks(replace(scene, things=(near,)))[0]
        assert np.array_equal(thing_masks(scene)[things.index(near)], alone)


def test_token_labels_follow_the_masks():
    for scene in scenes(40, seed=2):
        labels, masks = token_labels(scene), thing_masks(scene)
        assert all(value.shape == (8, 8) and value.dtype == np.int64 for value in labels.values())
        for row, column in itertools.product(range(8), range(8)):
            cover = masks[:, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].mean(axis=(1, 2))
            index = labels["thing"][row, column]
            if index < 0:
                assert cover.max() < 0.15 and labels["kind"][row, column] == -1
            else:
                assert cover[index] == cover.max() >= 0.15
                assert KINDS[labels["kind"][row, column]] == scene.things[index].kind
                assert COLOURS[labels["colour"][row, column]] == scene.things[index].colour
                for name, values in (("pose", POSES), ("letter", LETTERS)):
                    value = getattr(scene.things[index], name)
                    label = labels[name][row, column]
                    assert label == (-1 if value is None else values.index(value))


def test_a_scene_without_things_has_empty_ground_truth():
    scene = Scene("night", "snow", (), 64, 64)
    assert thing_masks(scene).shape == (0, 64, 64)
    assert (token_labels(scene)["thing"] == -1).all() and (token_labels(scene)["hat"] == -1).all()


# Variations


def differences(a: Scene, b: Scene) -> list[str]:
    """Names of the fields in which two scenes, or their things, differ."""
    pairs = [(replace(a, things=()), replace(b, things=())), *zip(a.things, b.things, strict=True)]
    return [f.name for s, t in pairs for f in fields(s) if getattr(s, f.name) != getattr(t, f.name)]


def has(scene: Scene, attribute: str) -> bool:
    """Whether there is something to vary."""
    kind = OWNERS.get(attribute)
    return kind is None or any(thing.kind == kind for thing in scene.things)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_variations_change_one_attribute_and_stay_valid(attribute):
    rng = np.random.default_rng(3)
    for scene in scenes(200, seed=3):
        if not has(scene, attribute):
            with pytest.raises(ValueError, match=attribute):
                variations(scene, attribute, rng)
            continue
        varied = variations(scene, attribute, rng)
        # With its kind a thing gains or loses the detail that comes with it.
        allowed = {attribute} | (set(OWNERS) if attribute == "kind" else set())
        changed = differences(scene, varied)
        assert changed[0] == attribute and set(changed) <= allowed
        assert len({thing.kind for thing in varied.things}) == len(varied.things)
        for thing in varied.things:
            left, top, right, bottom = thing_box(thing)
            assert left >= 0 and right <= scene.width and top >= 0 and bottom <= scene.height
        for a, b in itertools.combinations(map(thing_box, varied.things), 2):
            assert box_overlap(a, b) <= (0.10 if len(varied.things) < 3 else 0.40)


def test_every_variation_can_be_seen():
    rng = np.random.default_rng(4)
    able = [(scene, a) for scene in scenes(40, seed=4) for a in ATTRIBUTES if has(scene, a)]
    assert {attribute for _, attribute in able} == set(ATTRIBUTES)
    for scene, attribute in able:
        change = render(scene).astype(int) - render(variations(scene, attribute, rng))
        assert (np.abs(change).max(axis=-1) > 30).sum() >= 40


# Captions


def says(text: str, phrases: tuple[str, ...]) -> bool:
    return any(f" {phrase} " in f" {text} " for phrase in phrases)


def test_complete_captions_say_every_attribute_and_nothing_false():
    rng = np.random.default_rng(5)
    for scene in scenes(2000, seed=5):
        text = captions.caption(scene, rng)
        weathers = {name: captions.WEATHER_PHRASES[name] for name in ("cloudy", "rainy")}
        said = [value for value, phrases in weathers.items() if says(text, phrases)]
        assert said == [scene.weather] * (scene.weather != "clear")
        assert scene.weather == "clear" or not says(text, captions.WEATHER_PHRASES["clear"])
        for table, truth in ((captions.SKY_PHRASES, scene.sky), (captions.GROUND_PHRASES, scene.ground)):
            assert [value for value, phrases in table.items() if says(text, phrases)] == [truth]
        for thing in scene.things:
            named = [f"a {s} {thing.colour} {thing.kind}" for s in captions.SIZE_WORDS[thing.size]]
            assert says(text, tuple(named))
            details = ("",)
            if thing.pose is not None:
                details = captions.POSE_PHRASES[thing.pose]
            if thing.letter is not None:
                details = captions.LETTER_PHRASES[thing.letter]
            detailed = [f"{thing.kind} {detail}".strip() for detail in details]
            assert says(text, tuple(detailed))
            hatted = [f"{start} {phrase}" for start in detailed for phrase in captions.HAT_PHRASES[True]]
            assert says(text, tuple(hatted)) == thing.hat
        assert sum(text.split().count(kind) for kind in KINDS) == len(scene.things)


def test_captions_keep_to_the_word_limit_and_the_vocabulary():
    rng = np.random.default_rng(6)
    used = set()
    for scene in scenes(4000, seed=6):
        for text in (
            captions.caption(scene, rng),
            captions.caption(scene, rng, complete=False),
            captions.plain_caption(scene),
        ):
            words = text.split()
            assert len(words) <= captions.MAX_WORDS
            assert text == " ".join(words) == text.lower()
            used.update(words)
    assert used == set(captions.WORDS)
    assert list(captions.WORDS) == sorted(captions.WORDS) == list(captions.vocabulary())


def test_incomplete_captions_leave_out_sky_ground_and_size_a_quarter_of_the_time():
    rng = np.random.default_rng(7)
    sample = scenes(3000, seed=7, n_things=1)
    texts = [captions.caption(scene, rng, complete=False) for scene in sample]
    for table in (captions.SKY_PHRASES, captions.GROUND_PHRASES, captions.SIZE_WORDS):
        phrases = tuple(itertools.chain.from_iterable(table.values()))
        silent = sum(not says(text, phrases) for text in texts) / len(texts)
        assert 0.21 < silent < 0.29
    for scene, text in zip(sample, texts, strict=True):
        assert f"{scene.things[0].colour} {scene.things[0].kind}" in text
        # Silence about the weather means that it is clear, so that it must not mean anything else.
        told = says(text, captions.WEATHER_PHRASES[scene.weather])
        assert told or scene.weather == "clear"


def test_words_that_no_caption_uses_are_found():
    assert captions.unknown_words("A big RED house, under a night sky!") == []
    assert captions.unknown_words("a dog and a Horse, a dog") == ["dog", "horse"]
    assert captions.unknown_words("") == []


def test_the_plain_caption():
    house = Thing("house", "red", "big", True, 40, 100)
    cat = Thing("cat", "blue", "small", False, 95, 110)
    assert captions.plain_caption(Scene("night", "grass", (house, cat), 128, 128)) == (
        "a big red house with a hat and a small blue cat on the grass under a night sky"
    )
    figure = Thing("figure", "green", "big", True, 40, 100, pose="arms up")
    sign = Thing("sign", "white", "small", False, 95, 110, letter="K")
    assert captions.plain_caption(Scene("day", "sand", (figure, sign), 128, 128, weather="rainy")) == (
        "a big green figure with arms up with a hat and a small white sign that says k on the sand "
        "under a blue day sky in the rain"
    )
