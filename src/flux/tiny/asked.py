"""What a prompt asks for: flux-tiny's captions read back into the attributes that they say.

A prompt is understood whole or not at all, so that nobody is told of a wish that was misread.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from flux.tiny.captions import (
    GROUND_PHRASES,
    HAT_PHRASES,
    JOINERS,
    LETTER_PHRASES,
    OPENER,
    POSE_PHRASES,
    SIZE_WORDS,
    SKY_PHRASES,
    WEATHER_PHRASES,
)
from flux.tiny.scenes import COLOURS, KINDS, OWNERS

Words = tuple[str, ...]

ARTICLES = ("a", "an", "the")
SCENERY_PHRASES = {"sky": SKY_PHRASES, "ground": GROUND_PHRASES, "weather": WEATHER_PHRASES}
BEFORE_A_THING = {"size": SIZE_WORDS, "colour": {colour: (colour,) for colour in COLOURS}}
AFTER_A_THING = {"hat": HAT_PHRASES, "pose": POSE_PHRASES, "letter": LETTER_PHRASES}


@dataclass(frozen=True)
class AskedThing:
    """One thing that is asked for. None: it is not said. A hat that is not said is none, as in captions."""

    kind: str
    colour: str | None = None
    size: str | None = None
    hat: bool = False
    pose: str | None = None
    letter: str | None = None


@dataclass(frozen=True)
class Asked:
    """What a prompt asks for. None: it is not said. Weather that is not said is clear, as in captions."""

    things: tuple[AskedThing, ...]
    sky: str | None = None
    ground: str | None = None
    weather: str = "clear"


def read_caption(prompt: str) -> Asked | None:
    """What the prompt asks for; None where a word or the order of words is not a caption's."""
    scenery: dict[str, Any] = {}
    things: list[dict[str, Any]] = []
    adjectives: dict[str, Any] = {}
    for part, value in _parts(tuple(re.findall(r"[^\W_]+", prompt.lower()))):
        if part in SCENERY_PHRASES:
            target = scenery
        elif part in BEFORE_A_THING:
            target = adjectives
        elif part == "kind":
            things.append(adjectives)
            target, adjectives = things[-1], {}
        elif part in AFTER_A_THING and things and not adjectives:
            target = things[-1]
            if OWNERS.get(part, target["kind"]) != target["kind"]:
                return None
        elif part == "nothing":
            continue
        else:
            return None
        if part in target:  # said twice
            return None
        target[part] = value
    return None if adjectives else Asked(tuple(AskedThing(**thing) for thing in things), **scenery)


def _parts(words: Words) -> Iterator[tuple[str, Any]]:
    """The phrases of a prompt, each as long as can be: what they are about, and the value they say."""
    phrases = _phrases()
    longest = max(map(len, phrases))
    at = 0
    while at < len(words):
        lengths = range(min(longest, len(words) - at), 0, -1)
        length = next((n for n in lengths if words[at : at + n] in phrases), None)
        yield phrases[words[at : at + length]] if length else ("unknown", words[at])
        at += length or 1


@cache
def _phrases() -> Mapping[Words, tuple[str, Any]]:
    """All phrases of captions, by their words."""
    tables = {**SCENERY_PHRASES, **BEFORE_A_THING, **AFTER_A_THING, "kind": {kind: (kind,) for kind in KINDS}}
    phrases = {
        tuple(wording.split()): (part, value)
        for part, table in tables.items()
        for value, wordings in table.items()
        for wording in wordings
    }
    return phrases | {tuple(each.split()): ("nothing", None) for each in (*ARTICLES, *JOINERS, OPENER)}
