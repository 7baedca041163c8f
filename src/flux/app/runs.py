"""The runs in the output folder: those of the page and of the demos, the newest first."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flux.app.desk import kind_of
from flux.files import read_json_object
from flux.studies.folder import RECORD
from flux.studies.run import PAGE

DEEPEST, MOST = 4, 200
"""How deep below the output folder runs are looked for, and how many are listed."""

FIRST = (
    "picture.png",
    "pictures/0000/reference.png",
    "edit-01.png",
    "picture-01-*.png",
    "edit-*.png",
    "source.png",
    "sheet.png",
    "*.png",
)
"""Patterns of the picture that stands for a run, the best one first."""


WORDS = {"test": "Generate", "edit": "Edit", "skip": "Layers", "layer": "every timestep"}


@dataclass(frozen=True)
class ListedRun:
    """A run that was found. place: its folder, relative to the output folder. title: its prompt or name."""

    folder: Path
    place: str
    kind: str
    title: str
    when: datetime
    recipe: Mapping[str, Any]

    @property
    def picture(self) -> Path | None:
        found = (file for pattern in FIRST for file in sorted(self.folder.glob(pattern)))
        return next((file for file in found if self._is_own(file)), None)

    def _is_own(self, file: Path) -> bool:
        """Whether it is in the run's folder, links followed: others are not served."""
        return file.resolve().is_relative_to(self.folder.resolve())

    @property
    def page(self) -> str | None:
        """The address of its report on the page, if it has one."""
        return f"runs/{self.place}/{PAGE}" if (self.folder / PAGE).is_file() else None

    @property
    def label(self) -> str:
        return f"{self.when:%d %b %H:%M} · {self.word} · {self.title}"

    @property
    def word(self) -> str:
        """What made it: a tab of the page, or what else is known of it."""
        return WORDS.get(self.kind, self.kind)


def list_runs(root: Path, most: int = MOST) -> list[ListedRun]:
    """The runs below a folder, the newest first."""
    found = []
    for file in _records(root):
        with suppress(OSError):  # others may take a run away meanwhile
            found.append((file.stat().st_mtime, file))
    return [_listed(root, file, when) for when, file in sorted(found, reverse=True)[:most]]


def _records(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        inside = RECORD in names
        depth = len(Path(place).relative_to(root).parts)
        # What lies in a run is its own.
        folders[:] = [] if inside or depth >= DEEPEST else sorted(each for each in folders if each[0] != ".")
        if inside:
            yield Path(place) / RECORD


def _listed(root: Path, file: Path, changed: float) -> ListedRun:
    record = read_json_object(file) or {}
    recipe = record.get("spec") if isinstance(record.get("spec"), dict) else {}
    try:
        kind = kind_of(recipe)
    except ValueError:
        kind = "other"
    folder = file.parent
    place, when = folder.relative_to(root).as_posix(), datetime.fromtimestamp(changed)
    return ListedRun(folder, place, kind, _title(recipe) or folder.name, when, recipe)


def _title(recipe: Mapping[str, Any]) -> str:
    """The first prompt of a spec, cut short."""
    source = recipe.get("source")
    edits, prompts = recipe.get("edits"), recipe.get("prompts")
    found = recipe.get("prompt") or (source.get("prompt") if isinstance(source, dict) else source)
    for several in (edits, prompts):
        if isinstance(several, list) and several:
            found = several[0]
            break
    found = found.get("prompt") if isinstance(found, dict) else found
    text = found if isinstance(found, str) else ""
    return text if len(text) <= 60 else text[:57] + "..."
