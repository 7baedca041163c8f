"""The folder of a run: never half-written, resumable, owned by one process, and never mixed with another run.

    with RunFolder.open(Path("output/edit/edit"), {"steps": 16, ...}, {"device": "cpu", ...}) as run:
        if not run.finished or run.damaged():
            if not run.is_whole("source.png"):
                run.save_picture("source.png", image)
            run.finish({"seconds": 3.2})

Every file is written whole or not at all, see `flux.files`. `run.json` holds what the run is made from and
what it has made; `finish` marks it as finished at the end. Only what it lists as made is ever removed or
replaced.

A run of the same recipe goes on where the last one stopped, or finds it finished. A run of another recipe
never touches the folder: it goes to `<folder>-2`, `<folder>-3`, ..., the first that is free or holds the same
recipe, and `note` names what differs. An unfinished run of another setting, such as another device, is begun
anew. To make a finished run again, open it with `overwrite`. With `apart`, for runs that take hours, a run of
another setting is left alone too, finished or not.

It is the same where runs meet. From before it looks into a folder until it is closed a run owns it, see
`flux.studies.owner`. Where another process makes a run of another recipe, a run goes to the next folder;
where one of the same recipe, it waits and then finds that finished; with `apart` it does not wait, but says
who is at work.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from flux.files import (
    Content,
    is_partial,
    read_json_object,
    sweep_partials,
    unwritable,
    write_atomically,
)
from flux.pictures.opening import PictureError, open_picture
from flux.studies.made import JOURNAL, MadeFiles
from flux.studies.owner import LOCK, Ownership, own, owner_of

RECORD = "run.json"
SPEC = "spec.json"

WAIT, PATIENCE = 0.1, 1.0
"""Seconds between two looks at a folder that another process owns, and until the wait for it is said."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. recipe: the resolved spec. setting: what else decides the pictures, as the device.

    note: why the run is not in the folder asked for, or None. hold: None where the folder is only looked at.
    """

    path: Path
    recipe: Json
    setting: Json
    note: str | None = None
    hold: Ownership | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def open(
        base: Path,
        recipe: Json,
        setting: Json,
        *,
        overwrite: bool = False,
        apart: bool = False,
        listed: Callable[[Path], Iterable[str]] = lambda folder: (),
    ) -> "RunFolder":
        """The folder for a run, made and owned: `base`, or `base-2`, ... where others are in use.

        overwrite: begin a run of the same recipe anew, even a finished one.
        apart: to a run of another setting go elsewhere, as to one of another recipe.
        listed: what the run in a folder has made beside the files that it wrote through this class.
        The setting of a run that is found finished is the one it was made with. Raises OSError where nothing
        can be written, and ValueError where another process makes this run, and it is not waited for.
        """
        recipe, setting = _plain(recipe, setting)
        note = None
        for path in _candidates(base):
            run = RunFolder(path, recipe, setting, note)
            held = run._take(apart)
            if isinstance(held, str):
                note = note or held
                continue
            run = replace(run, hold=held)
            if held is not None:
                sweep_partials(run._files(), own=True)
            found = run._found(apart) or {}
            fits = found.get("spec") == run.recipe and not found.get("clearing")
            if fits and found.get("finished") and not overwrite:
                run = replace(run, setting=found.get("setting", setting))
                if held is not None and run.made.as_json() == found.get("made"):
                    run.made.close()  # which a kill, or a fault, has left
                return run
            if overwrite or not fits or found.get("setting") != run.setting:
                made = [*run.made, *listed(path)] if found else []
                if fits and not overwrite and made:
                    print(f"{path} holds {difference(found, recipe, run.setting)}: it is begun anew")
                run._clear(made)
                run._begin()
            return run
        raise AssertionError("there is always another number")

    @staticmethod
    def find(base: Path, recipe: Json, setting: Json, *, apart: bool = False) -> "RunFolder":
        """The folder that `open` would take were nobody at work, with nothing made or deleted."""
        recipe, setting = _plain(recipe, setting)
        note = None
        for path in _candidates(base):
            run = RunFolder(path, recipe, setting, note)
            found = run._found(apart)
            if run._may_take(found, apart):
                return run
            note = note or run._in_the_way(found)
        raise AssertionError("there is always another number")

    def _take(self, apart: bool) -> Ownership | None | str:
        """Own the folder, or say why it is another's. None for a finished run that cannot be written to."""
        said, since = False, time.monotonic()
        while True:
            found = self._found(apart)
            if not self._may_take(found, apart):
                return self._in_the_way(found)
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                hold = own(self.path)
            except OSError as error:
                if (found or {}).get("finished"):
                    return None
                raise unwritable(self.path, error, folder=True) from error
            if hold is not None:
                found = self._found(apart)  # by now it may be another's
                if self._may_take(found, apart):
                    return hold
                hold.release()
                return self._in_the_way(found)
            if found is not None and not self._is_same(found, apart):
                return self._in_the_way(found)
            if time.monotonic() - since > PATIENCE and not said:
                words = f"{self.path} is being made by {owner_of(self.path)}"
                if apart:
                    raise ValueError(
                        f"{words}: wait until that ends, and the same command goes on from there"
                    )
                print(f"{words}: waiting until that ends", flush=True)
                said = True
            time.sleep(WAIT)

    def _may_take(self, found: Json | None, apart: bool) -> bool:
        return self._is_same(found, apart) or _is_free(self.path, found)

    def _is_same(self, found: Json | None, apart: bool) -> bool:
        """Whether a record is of this run."""
        same = found is not None and found.get("spec") == self.recipe
        return same and not (apart and found.get("setting") != self.setting)

    def _in_the_way(self, found: Json | None) -> str:
        if found is None and (self.path / RECORD).is_file():
            return f"{self.path} holds a {RECORD} that cannot be read"
        return f"{self.path} holds {difference(found, self.recipe, self.setting)}"

    def close(self) -> None:
        """Let others have the folder."""
        if self.hold is not None:
            self.hold.release()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def finished(self) -> bool:
        return bool((self.record() or {}).get("finished"))

    def record(self) -> dict[str, Any] | None:
        """What `run.json` holds; None where there is none that can be read."""
        return read_json_object(self.path / RECORD)

    @cached_property
    def made(self) -> MadeFiles:
        """What the run has made."""
        damaged = {} if (self.path / RECORD).exists() else None
        return MadeFiles(self.path, self.record() or damaged)

    def is_whole(self, name: str) -> bool:
        """Whether a file is there with the bytes that it was made with."""
        return self.made.is_whole(name)

    def damaged(self, wanted: Iterable[str] = ()) -> list[str]:
        """The files that are gone or not as they were made: of all that were made, and of those wanted."""
        names = [name for name in dict.fromkeys([*wanted, *self.made]) if not self.is_whole(name)]
        return names if read_json_object(self.path / SPEC) else [*names, SPEC]

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
        sweep_partials(self._files(), own=True)
        if read_json_object(self.path / SPEC) is None:
            self._write_json(SPEC, self.recipe)
        self._write_record({"finished": complete, **results})
        self.made.close()

    def keep_record(self, results: Json) -> None:
        """Write what is known so far into `run.json` of a run that is not finished."""
        self._write_record({"finished": False, **results})

    def _write_record(self, results: Json) -> None:
        record = {"spec": self.recipe, "setting": self.setting, **results, "made": self.made.as_json()}
        self._write_json(RECORD, record)

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
        stream = io.BytesIO()
        frames[0].save(
            stream,
            format="WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            quality=90,
        )
        self.write_bytes(name, stream.getvalue())

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode("utf-8"))

    def write_json(self, name: str, value: Json) -> None:
        self.write_bytes(name, _json_bytes(value))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file of the run."""
        self.write_files({name: data})

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Write files of the run, by name; all are listed as made before the first is there.

        Raises OSError, one line, where one cannot be written, or something else has its name.
        """
        self.require_free(files)
        self.made.add({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
        for name, data in files.items():
            write_file(self.path / name, data)

    def require_free(self, names: Iterable[str]) -> None:
        """Raise OSError where what has one of these names is not ours to replace."""
        for name in names:
            path = self.path / name
            if path.is_symlink() or (path.is_file() and self.made.known and name not in self.made):
                raise OSError(f"{path} is not of this run: move it away, or choose another output folder")

    def _write_json(self, name: str, value: Json) -> None:
        # Through to the disk: a picture lost in a power cut is made again, a lost record is not.
        write_file(self.path / name, _json_bytes(value), durable=True)

    def _begin(self) -> None:
        self.made.forget()
        self._write_record({"finished": False})
        self._write_json(SPEC, self.recipe)

    def _clear(self, names: Iterable[str]) -> None:
        """Delete what the run made. The record says so first, for the case that this is cut short."""
        self._write_record({"finished": False, "clearing": True})
        for path in (self.path / name for name in names):
            # A folder or a link there is nothing that we made.
            if path.is_file() and not path.is_symlink():
                try:
                    path.unlink()
                except OSError as error:
                    raise unwritable(path, error) from error

    def _files(self) -> list[Path]:
        """The files in the folder and below, without those of other runs that lie in it."""
        found: list[Path] = []
        for place, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not (Path(place) / name / RECORD).exists()]
            found += (Path(place) / name for name in names)
        return found


def _plain(recipe: Json, setting: Json) -> list[Any]:
    """As they will be read back, so that tuples and lists compare equal."""
    return json.loads(json.dumps([recipe, setting]))


def _json_bytes(value: Json) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def write_file(path: Path, content: Content, *, durable: bool = False) -> None:
    """As `flux.files.write_atomically`, with an OSError that says what to do."""
    try:
        write_atomically(path, content, durable=durable)
    except OSError as error:
        raise unwritable(path, error) from error


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
    ours = {LOCK, JOURNAL, *((RECORD, SPEC) if begun else ())}
    return path.is_dir() and all(is_partial(file) or file.name in ours for file in path.iterdir())


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
