"""What a judge's readings say of an edit: what got lost of the source, and which wishes were not met.

Prompts say what should be where: what both ask for stays as the source shows it, what only the edit's asks
for is new, and nothing comes beside that.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import Any

from flux.tiny.asked import Asked, AskedThing
from flux.tiny.judge import FoundThing, Reading
from flux.tiny.scenes import SCENERY, SIZE_PIXELS

NEAR = SIZE_PIXELS["small"] / 2
"""In pixels: a thing whose middle is no further away stands where it stood. Other sizes move it by 8."""
VALUES = tuple(each.name for each in fields(AskedThing) if each.name != "kind")
PHRASES = {
    "sky": "a {value} sky",
    "ground": "{value}",
    "weather": "{value} weather",
    "colour": "a {value} {kind}",
    "size": "a {value} {kind}",
    "pose": "a {kind} with {value}",
    "letter": "a {kind} that says {value}",
}


@dataclass(frozen=True)
class Lost:
    """Something of the source that should have stayed and did not, in words."""

    text: str


@dataclass(frozen=True)
class Unmet:
    """Something that the edit's prompt asks for and the edit does not show, in words."""

    text: str


Remark = Lost | Unmet


def remarks(source: Asked, edit: Asked, before: Reading, after: Reading) -> Iterator[Remark]:
    """What the edit's picture, `after`, lacks or has too much, by both prompts and the source's, `before`.

    What the source never showed cannot get lost, and is no wish of the edit where both prompts ask for it.
    """
    for name in SCENERY:
        yield from _on_value(name, name, (source, edit), (before, after))
    stood, stands = list(before.things), list(after.things)
    for old, new in _pairs(source.things, edit.things):
        was = _take(stood, old) if old else None
        if new is None:
            # Whatever else of its kind there is elsewhere is dealt with below, as what nobody asked for.
            still = _take([thing for thing in stands if was and _near(thing, was)], old)
            if still is not None:
                stands.remove(still)
                yield Unmet(f"asked for no {old.kind}, one seen")
            continue
        now = _take(stands, new, was)
        yield from _on_place(old, new, was, now)
        if now is not None:
            for name in VALUES:
                yield from _on_value(name, new.kind, (old, new), (was, now))
    for extra in stands:
        if not any(thing.kind == extra.kind and _near(thing, extra) for thing in before.things):
            second = any(thing.kind == extra.kind for thing in edit.things)
            yield Lost(f"there is a {'second ' if second else ''}{extra.kind} that nobody asked for")


def _pairs(
    old: Iterable[AskedThing], new: Iterable[AskedThing]
) -> Iterator[tuple[AskedThing | None, AskedThing | None]]:
    """Each thing before and after: first those of one kind, then one kind in the place of another."""
    left, fresh = list(old), []
    for thing in new:
        same = max(
            (each for each in left if each.kind == thing.kind), key=lambda e: _alike(e, thing), default=None
        )
        if same is None:
            fresh.append(thing)
            continue
        left.remove(same)
        yield same, thing
    yield from zip_longest(left, fresh)


def _take(things: list[FoundThing], asked: AskedThing, place: FoundThing | None = None) -> FoundThing | None:
    """Take out the thing of the kind that is asked for, nearest to a place, or else most as asked for."""

    def fit(thing: FoundThing) -> tuple[float, int]:
        return (-_distance(thing, place) if place else 0.0, _alike(thing, asked))

    found = max((thing for thing in things if thing.kind == asked.kind), key=fit, default=None)
    if found is not None:
        things.remove(found)
    return found


def _on_place(
    old: AskedThing | None, new: AskedThing, was: FoundThing | None, now: FoundThing | None
) -> Iterator[Remark]:
    """Whether a thing is there, and where it should be."""
    kept = old is not None and old.kind == new.kind
    if now is None and not kept:
        yield Unmet(f"asked for a {new.kind}, none seen")
    elif now is None and was is not None:
        yield Lost(f"the {old.kind} is gone")
    elif now is not None and was is not None and not _near(was, now):
        yield Lost(f"the {new.kind} {'moved' if kept else f'is not where the {old.kind} was'}")


def _on_value(name: str, title: str, asked: tuple, seen: tuple) -> Iterator[Remark]:
    """Whether a value is as it is asked for, or where both prompts ask for the same, as it was.

    asked, seen: before and after; the first of each may be None.
    """
    (before, wanted), (was, now) = ((getattr(each, name, None) for each in pair) for pair in (asked, seen))
    kept = asked[0] is not None and getattr(asked[0], "kind", title) == title and before == wanted
    if kept:
        if seen[0] is not None and now not in (was, wanted):
            yield Lost(_turned(name, title, was, now))
    elif wanted is not None and now != wanted:
        yield Unmet(f"asked for {_phrase(name, title, wanted, now)}")


def _turned(name: str, title: str, was: Any, now: Any) -> str:
    if name == "hat":
        return f"the {title} {'got a' if now else 'lost its'} hat"
    return f"the {title} turned from {was} to {now}"


def _phrase(name: str, kind: str, wanted: Any, seen: Any) -> str:
    if name == "hat":
        return f"a hat on the {kind}, none seen" if wanted else f"no hat on the {kind}, one seen"
    asked, found = (PHRASES[name].format(value=value, kind=kind) for value in (wanted, seen))
    return f"{asked}, {found} seen"


def _alike(a: AskedThing | FoundThing, b: AskedThing) -> int:
    """In how many values two things are the same."""
    return sum(getattr(a, name) == getattr(b, name) for name in VALUES)


def _near(a: FoundThing, b: FoundThing) -> bool:
    return _distance(a, b) <= NEAR


def _distance(a: FoundThing, b: FoundThing) -> float:
    return math.hypot(a.x - b.x, a.y - b.y)
