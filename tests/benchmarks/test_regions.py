"""What counts as a region that obeys."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import regions  # noqa: E402

from flux.tiny.judge import FoundThing, Reading  # noqa: E402


def thing(kind, colour, x):
    return FoundThing(kind, colour, "big", False, x, 64.0, 1.0)


def test_a_region_obeys_if_its_thing_is_in_its_half():
    things = ("house", "red"), ("cat", "blue")

    def of(*found):
        return regions.obeyed(Reading("day", "grass", found), things)

    assert of(thing("house", "red", 30.0), thing("cat", "blue", 90.0)) == [True, True]
    assert of(thing("house", "red", 90.0), thing("cat", "blue", 90.0)) == [False, True]
    assert of(thing("house", "blue", 30.0), thing("cat", "red", 90.0)) == [False, False]
    assert of() == [False, False]


def test_pairs_differ_and_are_drawn_again_alike():
    drawn = list(regions.pairs(20))
    assert drawn == list(regions.pairs(20)) and len(set(drawn)) > 15
    assert all(a[0] != b[0] and a[1] != b[1] for (a, b), _ in drawn)
