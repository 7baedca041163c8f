"""The folder of a run: never half-written, resumable, and never mixed with another run.

    run = RunFolder.open(Path("output/edit/edit"), {"steps": 16, ...}, {"device": "cpu", ...})
    if not run.finished:
        if run.picture("source.png") is None:
            run.save_picture("source.png", image)
        run.finish({"seconds": 3.2})

Every file is written whole or not at all, see `flux.files`. `run.json` holds what the run is made from;
`finish` marks it as finished at the end.

A run of the same recipe goes on where the last one stopped, or finds it finished. A run of another recipe
never touches the folder: it goes to `<folder>-2`, `<folder>-3`, ..., the first that is free or holds the same
recipe, and `note` names what differs. An unfinished run of another setting, such as another device, is begun
anew. To make a finished run again, open it with `overwrite`. With `apart`, for runs that take hours, a run of
another setting is left alone too, finished or not.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from flux.files import PARTIAL, Content, read_json_object, write_atomically
from flux.pictures.opening import PictureError, open_picture

RECORD = "run.json"
SPEC = "spec.json"
OURS = {".png", ".webp", ".html", PARTIAL}
"""Endings of the files that a run writes, and that are deleted when it is begun anew."""
OUR_NAMES = {"cells.csv"}
"""Names of further such files."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. recipe: the resolved spec. setting: what else decides the pictures, as the device.

    note: why the run is not in the folder asked for, or None.
    """

    path: Path
    recipe: Json
    setting: Json
    note: str | None = None

    @staticmethod
    def open(
        base: Path, recipe: Json, setting: Json, *, overwrite: bool = False, apart: bool = False
    ) -> "RunFolder":
        """The folder for a run, made if need be: `base`, or `base-2`, ... where others are in use.

        overwrite: begin a run of the same recipe anew, even a finished one.
        apart: to a run of another setting go elsewhere, as to one of another recipe.
        Raises OSError where nothing can be written.
        """
        run = RunFolder.find(base, recipe, setting, apart=apart)
        found = run._found(apart) or {}
        fits = found.get("spec") == run.recipe and not found.get("clearing")
        if overwrite or not fits or not (found.get("finished") or found.get("setting") == run.setting):
            run._clear()
            run._begin()
        return run

    @staticmethod
    def find(base: Path, recipe: Json, setting: Json, *, apart: bool = False) -> "RunFolder":
        """The folder that `open` would take, with nothing made or deleted."""
        # As they will be read back, so that tuples and lists compare equal.
        recipe, setting = json.loads(json.dumps([recipe, setting]))
        note = None
        for path in _candidates(base):
            run = RunFolder(path, recipe, setting, note)
            found = run._found(apart)
            same = found is not None and found.get("spec") == recipe
            if _is_free(path, found) or (same and not (apart and found.get("setting") != setting)):
                return run
            if note is None:
                note = f"{path} holds {difference(found, recipe, setting)}"
        raise AssertionError("there is always another number")

    @property
    def finished(self) -> bool:
        return bool((self.record() or {}).get("finished"))

    def record(self) -> dict[str, Any] | None:
        """What `run.json` holds; None where there is none that can be read."""
        return read_json_object(self.path / RECORD)

    def _found(self, apart: bool) -> dict[str, Any] | None:
        """The record; of a run of hours, whose files are known one by one, also what a damaged one left."""
        found = self.record()
        if found is None and apart and (self.path / RECORD).is_file():
            spec = read_json_object(self.path / SPEC)
            return None if spec is None else {"spec": spec, "setting": self.setting, "finished": False}
        return found

    def finish(self, results: Json, *, complete: bool = True) -> None:
        """Write the results into `run.json` and mark the run as finished; what a kill left behind goes.

        complete: whether all is made; if not, the run is not marked and the next one goes on with it.
        """
        for path in self._files():
            if path.suffix == PARTIAL:
                path.unlink(missing_ok=True)
        self._write_record({"finished": complete, **results})

    def _write_record(self, results: Json) -> None:
        self.write_json(RECORD, {"spec": self.recipe, "setting": self.setting, **results})

    def picture(self, name: str) -> Image.Image | None:
        """A picture of this run, read whole; None if it is not there or damaged, and so has to be made."""
        with suppress(PictureError):
            return open_picture(self.path / name)
        return None

    def save_picture(self, name: str, image: Image.Image, about: Mapping[str, str] | None = None) -> None:
        """Write a PNG. about: texts that are kept in the file, such as prompt and seed."""
        self.write_bytes(name, png_bytes(image, about))

    def save_animation(self, name: str, frames: list[Image.Image], frame_ms: int) -> None:
        """Write frames of one size as an endless animated WebP; the last one stays for a second longer."""
        durations = [frame_ms] * (len(frames) - 1) + [frame_ms + 1000]
        write_file(
            self.path / name,
            lambda stream: frames[0].save(
                stream,
                format="WEBP",
                save_all=True,
                append_images=frames[1:],
                duration=durations,
                loop=0,
                quality=90,
            ),
        )

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, data: bytes) -> None:
        write_file(self.path / name, data)

    def write_json(self, name: str, value: Json) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        # Through to the disk: a picture lost in a power cut is made again, a lost record is not.
        write_file(self.path / name, text.encode("utf-8"), durable=True)

    def _begin(self) -> None:
        self._write_record({"finished": False})
        self.write_json(SPEC, self.recipe)

    def _clear(self) -> None:
        """Delete what runs write. The record says so first, for the case that this is cut short."""
        self._write_record({"finished": False, "clearing": True})
        for path in self._files():
            if path.suffix in OURS or path.name in OUR_NAMES:
                path.unlink()

    def _files(self) -> list[Path]:
        """The files in the folder and below, without those of other runs that lie in it."""
        found: list[Path] = []
        for place, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not (Path(place) / name / RECORD).exists()]
            found += (Path(place) / name for name in names)
        return found


def write_file(path: Path, content: Content, *, durable: bool = False) -> None:
    """As `flux.files.write_atomically`, with an OSError that says what to do."""
    try:
        write_atomically(path, content, durable=durable)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path} cannot be written ({reason}): choose another output folder") from error


def png_bytes(image: Image.Image, about: Mapping[str, str] | None = None) -> bytes:
    """A picture as PNG. about: texts that are kept in it."""
    texts, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, value in (about or {}).items():
        texts.add_itxt(key, value)
    image.save(stream, format="PNG", pnginfo=texts)
    return stream.getvalue()


def _candidates(base: Path) -> Iterator[Path]:
    yield base
    for number in count(2):
        yield base.with_name(f"{base.name}-{number}")


def _is_free(path: Path, found: Json | None) -> bool:
    """Not there, or nothing in it but what a run leaves that stops before its first picture."""
    if not path.exists():
        return True
    begun = found is not None and found.get("finished") is False
    ours = (RECORD, SPEC) if begun else ()
    return path.is_dir() and all(file.suffix == PARTIAL or file.name in ours for file in path.iterdir())


def difference(found: Json | None, recipe: Json, setting: Json) -> str:
    """What stands in the way, in words: the keys in which another run differs, the first three of them."""
    if found is None:
        return "other files"
    changes, what = list(_changes(found.get("spec"), recipe)), "spec"
    if not changes:
        changes, what = list(_changes(found.get("setting"), setting)), "setting"
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"a run of another {what} ({', '.join(changes[:3])}{more})"


def _changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`steps was 16 and is 8` for every value in which two JSON objects differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path} was {_brief(old)} and is {_brief(new)}"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 30 else text[:27] + "..."
