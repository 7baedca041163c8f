"""Free phrasings that no caption has, each with what it means: how far flux-tiny understands people."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.tiny.scenes import SCENERY, THING_VALUES, Scene, Thing

FILE = Path(__file__).parent / "phrasings.json"


@dataclass(frozen=True)
class Phrasing:
    """scene: what the prompt means, None for each value that it leaves open; places mean nothing."""

    prompt: str
    scene: Scene


def load_phrasings(path: Path = FILE) -> tuple[Phrasing, ...]:
    """All phrasings of a file, in its order."""
    entries = json.loads(path.read_text(encoding="utf-8"))["phrasings"]
    return tuple(Phrasing(entry["prompt"], _scene(entry)) for entry in entries)


def _scene(entry: Mapping[str, Any]) -> Scene:
    things = tuple(
        Thing(**{name: thing.get(name) for name in THING_VALUES}, x=0.0, y=0.0) for thing in entry["things"]
    )
    return Scene(**{name: entry.get(name) for name in SCENERY}, things=things, width=128, height=128)
