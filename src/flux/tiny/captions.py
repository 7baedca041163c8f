"""Captions for flux-tiny's world: plain English that says everything a scene shows except where things stand.

Captions are lower case and hold only letters and single spaces, so `caption.split()` gives their words, and
every word is one of `vocabulary()`.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from flux.tiny.scenes import COLOURS, KINDS, LETTERS, Scene, Thing

MAX_WORDS = 45

# The first wording of each is the one `plain_caption` uses.
SKY_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("under a blue day sky", "by day", "in the daytime", "in daylight"),
    "night": ("under a night sky", "at night", "under a starry sky", "on a dark night"),
    "sunset": ("under a sunset sky", "at sunset", "at sundown", "under an orange evening sky"),
}
GROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "in a meadow", "on a lawn", "in the grass"),
    "sand": ("on the sand", "on a beach", "in the desert", "on a sandy beach"),
    "snow": ("in the snow", "on a snowy field", "on the snow", "on fresh snow"),
    "water": ("on the water", "on a lake", "on the sea", "at sea"),
}
WEATHER_PHRASES: dict[str, tuple[str, ...]] = {
    "clear": ("in clear weather",),
    "cloudy": ("in cloudy weather", "with clouds above", "below clouds"),
    "rainy": ("in the rain", "in rainy weather", "while it rains"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "big": ("big", "large", "huge"),
    "small": ("small", "little", "tiny"),
}
HAT_PHRASES: dict[bool, tuple[str, ...]] = {
    True: ("with a hat", "wearing a hat", "in a hat"),
    False: ("without a hat",),
}
POSE_PHRASES: dict[str, tuple[str, ...]] = {
    "arms up": ("with arms up", "with raised arms"),
    "arms down": ("with arms down", "with lowered arms"),
}
LETTER_PHRASES: dict[str, tuple[str, ...]] = {
    letter: (f"that says {letter.lower()}", f"with a {letter.lower()}") for letter in LETTERS
}
JOINERS = ("and", "next to", "beside")
OPENER = "there is"

SILENT_RATE = 0.75  # how often a bare head and clear weather go without saying
OMIT_RATE = 0.25  # how often an incomplete caption leaves out the sky, the ground, or a thing's size

# Orders of the parts of a caption; "opener" is said only where scenery precedes it.
ORDERS: tuple[tuple[str, ...], ...] = (
    ("things", "ground", "sky", "weather"),
    ("things", "weather", "sky", "ground"),
    ("sky", "ground", "weather", "opener", "things"),
    ("weather", "ground", "sky", "opener", "things"),
    ("sky", "things", "ground", "weather"),
    ("weather", "things", "ground", "sky"),
)


def caption(scene: Scene, rng: np.random.Generator, *, complete: bool = True) -> str:
    """Describe a scene in one of many wordings, in at most 45 words.

    A complete caption says every attribute; that a head is bare or the weather clear is mostly said by
    silence. With `complete=False` each of sky, ground and sizes may be missing.
    """
    omit_rate = 0.0 if complete else OMIT_RATE
    parts = {
        "sky": "" if rng.random() < omit_rate else _pick(rng, SKY_PHRASES[scene.sky]),
        "ground": "" if rng.random() < omit_rate else _pick(rng, GROUND_PHRASES[scene.ground]),
        "weather": _weather(scene, rng),
        "things": _describe_things(scene, rng, omit_rate),
        "opener": "",
    }
    if parts["sky"] or parts["ground"] or parts["weather"]:
        parts["opener"] = OPENER
    order = _pick(rng, ORDERS)
    return " ".join(parts[name] for name in order if parts[name])


def plain_caption(scene: Scene) -> str:
    """The one canonical wording, such as "a big red house with a hat and a small blue cat on the grass under
    a night sky in the rain"."""
    phrases = [
        _describe_thing(thing, thing.size, _first_detail(thing), HAT_PHRASES[True][0] if thing.hat else "")
        for thing in scene.things
    ]
    weather = WEATHER_PHRASES[scene.weather][0] if scene.weather != "clear" else ""
    parts = (" and ".join(phrases), GROUND_PHRASES[scene.ground][0], SKY_PHRASES[scene.sky][0], weather)
    return " ".join(part for part in parts if part)


@cache
def vocabulary() -> tuple[str, ...]:
    """All words that captions can use, sorted."""
    tables = (
        SKY_PHRASES,
        GROUND_PHRASES,
        WEATHER_PHRASES,
        SIZE_WORDS,
        HAT_PHRASES,
        POSE_PHRASES,
        LETTER_PHRASES,
    )
    phrases = [phrase for table in tables for wordings in table.values() for phrase in wordings]
    phrases += [*JOINERS, OPENER, "a", *COLOURS, *KINDS]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt, in lower case and their order, that no caption uses."""
    words = re.findall(r"[^\W_]+", prompt.lower())
    return [word for word in dict.fromkeys(words) if word not in vocabulary()]


def __getattr__(name: str) -> tuple[str, ...]:
    """`WORDS` is `vocabulary()`, computed when first asked for."""
    if name == "WORDS":
        return vocabulary()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _weather(scene: Scene, rng: np.random.Generator) -> str:
    silent = scene.weather == "clear" and rng.random() < SILENT_RATE
    return "" if silent else _pick(rng, WEATHER_PHRASES[scene.weather])


def _describe_things(scene: Scene, rng: np.random.Generator, omit_rate: float) -> str:
    """All things of a scene, in a random order."""
    phrases = []
    for index in rng.permutation(len(scene.things)):
        thing = scene.things[index]
        size = "" if rng.random() < omit_rate else _pick(rng, SIZE_WORDS[thing.size])
        says_hat = thing.hat or rng.random() >= SILENT_RATE
        hat = _pick(rng, HAT_PHRASES[thing.hat]) if says_hat else ""
        details = _details(thing)
        phrases.append(_describe_thing(thing, size, _pick(rng, details) if details else "", hat))
    return f" {_pick(rng, JOINERS)} ".join(phrases)


def _describe_thing(thing: Thing, size: str, detail: str, hat: str) -> str:
    """For example "a big red figure with arms up in a hat"; empty words are left out."""
    return " ".join(word for word in ("a", size, thing.colour, thing.kind, detail, hat) if word)


def _details(thing: Thing) -> tuple[str, ...]:
    """Wordings of the thing's pose or letter; none for kinds that have neither."""
    if thing.pose is not None:
        return POSE_PHRASES[thing.pose]
    return LETTER_PHRASES[thing.letter] if thing.letter is not None else ()


def _first_detail(thing: Thing) -> str:
    return next(iter(_details(thing)), "")


def _pick(rng: np.random.Generator, options: tuple):
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]
