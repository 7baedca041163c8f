"""The captions of the next weights: richer than those of `flux.tiny.captions`, which belong to the shipped
ones.

One in five is the plain caption, the one that tables and sweeps ask with. The others vary words, order, what
is said by an adjective and what by a clause; two things alike are named in one plural. When weights of this
training ship, `flux.tiny.captions` takes these tables over, so that `unknown_words` knows them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from flux.tiny.captions import MAX_WORDS, OMIT_RATE, SILENT_RATE, plain_caption
from flux.tiny.scenes import COLOURS, LETTERS, Scene, Thing

PLAIN_SHARE = 0.2

NOUNS: dict[str, tuple[str, ...]] = {
    "house": ("house", "home", "cottage"),
    "tree": ("tree",),
    "car": ("car", "automobile"),
    "boat": ("boat", "sailboat", "ship"),
    "cat": ("cat", "kitty"),
    "flower": ("flower", "blossom"),
    "figure": ("figure", "person", "man"),
    "sign": ("sign", "board", "signpost"),
}
"""The first is the one said most."""
IRREGULAR = {"person": "persons", "man": "men", "kitty": "kitties"}
SKY_PHRASES: dict[str, tuple[str, ...]] = {
    "day": (
        (
            "under a blue day sky",
            "by day",
            "in the daytime",
            "in daylight",
            "during the day",
            "under a blue sky",
        )
        + ("on a bright day", "it is day", "in the sunlight", "with a blue sky")
    ),
    "night": (
        ("under a night sky", "at night", "under a starry sky", "on a dark night", "by night", "in the dark")
        + ("in the moonlight", "it is night", "under the stars", "after dark", "with a dark sky")
    ),
    "sunset": (
        ("under a sunset sky", "at sunset", "at sundown", "under an orange evening sky", "in the evening")
        + ("at dusk", "under an orange sky", "it is evening", "while the sun sets", "with an orange sky")
    ),
}
GROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "grass": (
        ("on the grass", "in a meadow", "on a lawn", "in the grass", "on a green field", "in a green meadow")
        + ("on green grass", "on the lawn", "in the park")
    ),
    "sand": (
        ("on the sand", "on a beach", "in the desert", "on a sandy beach", "on the beach", "on yellow sand")
        + ("in the sand", "in a desert", "on sandy ground")
    ),
    "snow": (
        ("in the snow", "on a snowy field", "on the snow", "on fresh snow", "in deep snow", "on white snow")
        + ("on snowy ground", "in winter")
    ),
    "water": (
        ("on the water", "on a lake", "on the sea", "at sea", "on the lake", "in the water", "on blue water")
        + ("on the ocean", "on a river")
    ),
}
WEATHER_PHRASES: dict[str, tuple[str, ...]] = {
    "clear": (
        ("in clear weather", "with no clouds", "without clouds", "under a clear sky", "with a clear sky")
        + ("without any clouds", "the sky is clear", "in fine weather")
    ),
    "cloudy": (
        (
            "in cloudy weather",
            "with clouds above",
            "below clouds",
            "under clouds",
            "with clouds",
            "it is cloudy",
        )
        + ("with clouds in the sky", "under a cloudy sky", "beneath white clouds")
    ),
    "rainy": (
        (
            "in the rain",
            "in rainy weather",
            "while it rains",
            "with rain",
            "it is raining",
            "under rain clouds",
        )
        + ("in heavy rain", "it rains", "under a rainy sky")
    ),
}
TIMES: dict[str, tuple[str, ...]] = {"day": ("day",), "night": ("night",), "sunset": ("evening", "sunset")}
SKY_WITH_WEATHER = ("on a {weather} {time}", "under a {weather} {sky} sky", "it is a {weather} {time}")
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "big": ("big", "large", "huge", "giant"),
    "small": ("small", "little", "tiny", "mini"),
}
HAT_PHRASES: dict[bool, tuple[str, ...]] = {
    True: (
        ("with a hat", "wearing a hat", "in a hat", "with a black hat", "with a hat on", "with a top hat")
        + ("that wears a hat", "which has a hat")
    ),
    False: ("without a hat", "with no hat", "wearing no hat", "that has no hat"),
}
HAT_PHRASES_OF_TWO: dict[bool, tuple[str, ...]] = {
    True: ("with hats", "wearing hats", "in hats", "with black hats", "that wear hats", "which have hats"),
    False: ("without hats", "with no hats", "wearing no hats", "that have no hats"),
}
HATLESS = "hatless"
POSE_PHRASES: dict[str, tuple[str, ...]] = {
    "arms up": (
        "with arms up",
        "with raised arms",
        "raising both arms",
        "with both arms up",
        "with arms in the air",
    ),
    "arms down": ("with arms down", "with lowered arms", "with both arms down", "with hanging arms"),
}
LETTER_PHRASES: dict[str, tuple[str, ...]] = {
    letter: tuple(
        phrase.format(letter.lower())
        for phrase in (
            (
                "that says {}",
                "with a {}",
                "with the letter {}",
                "saying {}",
                "showing a {}",
                "with a {} on it",
            )
            + ("which reads {}", "marked {}")
        )
    )
    for letter in LETTERS
}
LETTER_PHRASES_OF_TWO: dict[str, tuple[str, ...]] = {
    letter: tuple(
        phrase.format(letter.lower()) for phrase in ("that say {}", "with the letter {}", "saying {}")
    )
    for letter in LETTERS
}
ARTICLES = {1: ("a", "a", "a", "a", "one", "the"), 2: ("two", "two", "two", "a pair of", "the two")}
JOINERS = ("and", "next to", "beside", "near", "and also", "together with", "")
OPENERS = {1: ("there is", "we see", "i see"), 2: ("there are", "we see", "i see")}
PREFIXES = ("a picture of", "a drawing of", "an image of", "a scene with")
VERBS = {1: ("stands", "is"), 2: ("stand", "are")}
LINKS = {1: ("that is", "which is"), 2: ("that are", "which are")}

LOWER = "abcdefghijklmnopqrstuvwxyz"
STRAY = 0.15
"""How often a made-up word or two stand in a caption."""

# How often a caption has the rarer form.
JOINT, ANY_ORDER, AMID, PREFIX, VERB, CLAUSE, OTHER_NOUN = 0.15, 0.4, 0.12, 0.12, 0.12, 0.15, 0.25
ORDERS = (
    ("things", "ground", "sky", "weather"),
    ("things", "weather", "sky", "ground"),
    ("sky", "ground", "weather", "things"),
    ("weather", "ground", "sky", "things"),
    ("sky", "things", "ground", "weather"),
    ("weather", "things", "ground", "sky"),
)


@dataclass(frozen=True)
class Wording:
    """A caption, and which of the things it may leave out it says; sizes: those of the scene's things."""

    text: str
    sky: bool = True
    ground: bool = True
    sizes: tuple[bool, ...] = ()


def word(scene: Scene, rng: np.random.Generator, *, complete: bool = True) -> Wording:
    """One of many wordings of a scene, of at most 45 words.

    A complete caption says every attribute; that a head is bare or the weather clear is mostly said by
    silence. With `complete=False` sky, ground and sizes may each be missing.
    """
    if _singles(scene) and rng.random() < PLAIN_SHARE:
        return Wording(plain_caption(scene), sizes=(True,) * len(scene.things))
    while True:
        wording = _word(scene, rng, 0.0 if complete else OMIT_RATE)
        if len(wording.text.split()) <= MAX_WORDS:
            return wording


def with_strays(text: str, rng: np.random.Generator) -> str:
    """The caption, now and then with a made-up word or two, as far as they fit: a word never learned is
    spelled out, and shall change nothing."""
    words = text.split()
    strays = int(rng.integers(1, 3)) if rng.random() < STRAY else 0
    room = MAX_WORDS - len(words)
    for _ in range(strays):
        stray = "".join(rng.choice(list(LOWER), size=int(rng.integers(2, 9))))
        room -= len(stray) + 1
        if room >= 0 and stray not in vocabulary():
            words.insert(int(rng.integers(len(words) + 1)), stray)
    return " ".join(words)


def plural(noun: str) -> str:
    return IRREGULAR.get(noun, f"{noun}s")


@cache
def kinds_of_nouns() -> dict[str, str]:
    """The kind that a noun names, in singular and plural."""
    return {form: kind for kind, nouns in NOUNS.items() for noun in nouns for form in (noun, plural(noun))}


@cache
def vocabulary() -> tuple[str, ...]:
    """All words that captions can use, sorted."""
    tables: tuple[Mapping[object, Sequence[str]], ...] = (
        SKY_PHRASES,
        GROUND_PHRASES,
        WEATHER_PHRASES,
        TIMES,
        SIZE_WORDS,
        HAT_PHRASES,
        HAT_PHRASES_OF_TWO,
    ) + (POSE_PHRASES, LETTER_PHRASES, LETTER_PHRASES_OF_TWO, ARTICLES, OPENERS, VERBS, LINKS)
    phrases = [phrase for table in tables for wordings in table.values() for phrase in wordings]
    phrases += [*JOINERS, *PREFIXES, HATLESS, *COLOURS, *kinds_of_nouns(), *SKY_PHRASES, *WEATHER_PHRASES]
    phrases += [phrase.format(weather="", time="", sky="") for phrase in SKY_WITH_WEATHER]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def _word(scene: Scene, rng: np.random.Generator, omit_rate: float) -> Wording:
    said = {name: rng.random() >= omit_rate for name in ("sky", "ground")}
    scenery = {
        "sky": _pick(rng, SKY_PHRASES[scene.sky]) if said["sky"] else "",
        "ground": _pick(rng, GROUND_PHRASES[scene.ground]) if said["ground"] else "",
        "weather": _weather(scene, rng),
    }
    if said["sky"] and scenery["weather"] and rng.random() < JOINT:
        time = _pick(rng, TIMES[scene.sky])
        joint = _pick(rng, SKY_WITH_WEATHER)
        scenery |= {"sky": joint.format(weather=scene.weather, time=time, sky=scene.sky), "weather": ""}

    groups = _groups(scene, rng)
    sizes = {index: rng.random() >= omit_rate for group in groups for index in group[:1]}
    phrases = [_describe(scene.things[group[0]], len(group), sizes[group[0]], rng) for group in groups]
    count = len(groups[0])
    amid = ""
    if len(phrases) > 1 and rng.random() < AMID:
        amid, scenery["ground"] = scenery["ground"], ""
    things = phrases[0] + f" {amid}" * bool(amid)
    for phrase in phrases[1:]:
        things += f" {_pick(rng, JOINERS)} {phrase}"
    text = _arrange(things, count, scenery, rng)
    said_sizes = {index: sizes[group[0]] for group in groups for index in group}
    return Wording(text, **said, sizes=tuple(said_sizes[i] for i in range(len(scene.things))))


def _arrange(things: str, count: int, scenery: dict[str, str], rng: np.random.Generator) -> str:
    """Things and scenery in some order, with what leads from one to the other."""
    names = ("things", *scenery)
    order = rng.permutation(names).tolist() if rng.random() < ANY_ORDER else _pick(rng, ORDERS)
    before = any(scenery[name] for name in order[: order.index("things")])
    if before:
        things = f"{_pick(rng, OPENERS[count])} {things}"
    elif rng.random() < PREFIX:
        things = f"{_pick(rng, PREFIXES)} {things}"
    elif order[1] == "ground" and scenery["ground"].startswith(("on", "in")) and rng.random() < VERB:
        things = f"{things} {_pick(rng, VERBS[count])}"
    parts = {**scenery, "things": things}
    return " ".join(" ".join(parts[name] for name in order).split())


def _describe(thing: Thing, count: int, says_size: bool, rng: np.random.Generator) -> str:
    """For example "a big red figure with arms up in a hat" or "two houses that are red and big"."""
    size = _pick(rng, SIZE_WORDS[thing.size]) if says_size else ""
    nouns = NOUNS[thing.kind]
    noun = _pick(rng, nouns) if rng.random() < OTHER_NOUN else nouns[0]
    before, after = [size, thing.colour], []
    if rng.random() < CLAUSE:
        kept = int(rng.integers(2))
        moved = [each for each in (before if kept else before[::-1]) if each]
        before, after = (moved[:1], moved[1:]) if kept else ([], moved)
        if after:
            after = [_pick(rng, LINKS[count]), " and ".join(after)]
    elif rng.random() < 0.1:
        before = before[::-1]
    details = [_detail(thing, count, rng)]
    if thing.hat or rng.random() >= SILENT_RATE:
        if not thing.hat and rng.random() < 0.25:
            before = [HATLESS, *before]
        else:
            details.append(_pick(rng, (HAT_PHRASES if count == 1 else HAT_PHRASES_OF_TWO)[thing.hat]))
    if rng.random() < 0.25:
        details = details[::-1]
    named = noun if count == 1 else plural(noun)
    return " ".join(each for each in (_pick(rng, ARTICLES[count]), *before, named, *after, *details) if each)


def _detail(thing: Thing, count: int, rng: np.random.Generator) -> str:
    if thing.pose is not None:
        return _pick(rng, POSE_PHRASES[thing.pose])
    if thing.letter is not None:
        return _pick(rng, (LETTER_PHRASES if count == 1 else LETTER_PHRASES_OF_TWO)[thing.letter])
    return ""


def _weather(scene: Scene, rng: np.random.Generator) -> str:
    silent = scene.weather == "clear" and rng.random() < SILENT_RATE
    return "" if silent else _pick(rng, WEATHER_PHRASES[scene.weather])


def _groups(scene: Scene, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The numbers of the things, those alike together, in a random order."""
    alike: dict[Thing, list[int]] = {}
    for index, thing in enumerate(scene.things):
        alike.setdefault(replace(thing, x=0, y=0), []).append(index)
    groups = [tuple(group) for group in alike.values()]
    return [groups[i] for i in rng.permutation(len(groups))]


def _singles(scene: Scene) -> bool:
    return len({thing.kind for thing in scene.things}) == len(scene.things)


def _pick(rng: np.random.Generator, options: Sequence):
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]
