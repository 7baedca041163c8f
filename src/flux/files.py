"""Files that are whole or absent, their digests, and JSON objects read back.

A file is written under another name beside its own and then renamed, so that after a kill, even by SIGKILL,
it is whole or absent; what such a kill leaves behind ends with `PARTIAL`, and goes when the file is next
written. Standard library only.
"""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"
"""The ending of a file that is being written, behind its name and the number of the process."""

Content = bytes | Callable[[IO[bytes]], Any]
"""What goes into a file: the bytes, or a function that writes them to a binary stream."""

BLOCK = 2**20  # bytes read at once

STALE = 60
"""Seconds after which what another machine may still write to counts as left behind."""


def write_atomically(path: Path, content: Content, *, durable: bool = False) -> None:
    """Write a file, whole or not at all; the folders above it are made.

    durable: through to the disk, so that it outlasts a power cut.
    Raises OSError where it cannot be written, and whatever `content` raises; the old file then stays.
    """
    with whole_file(path) as partial, open(partial, "wb") as stream:
        _fill(stream, content)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write a file under that becomes `path` at the end of the block, or is gone if that raises.

    For writers that want a name; others take `write_atomically`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_others(path)
    with _partial(path) as partial:
        yield partial
        os.replace(partial, path)


def write_new(names: Iterable[Path], content: Content) -> Path:
    """Write a file under the first of some names that is free, and return it; the folder above is made.

    What is there is never replaced, whoever else writes at the same time. Raises as `write_atomically`, and
    FileExistsError where no name is free.
    """
    names = iter(names)
    first = next(names)
    first.parent.mkdir(parents=True, exist_ok=True)
    with _partial(first) as partial:
        with open(partial, "wb") as stream:
            _fill(stream, content)
        for name in chain([first], names):
            with suppress(FileExistsError):
                _take(partial, name)
                return name
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(first))


def _fill(stream: IO[bytes], content: Content) -> None:
    if callable(content):
        content(stream)
    else:
        stream.write(content)


def append(path: Path, lines: bytes, *, start: bytes = b"") -> None:
    """Add whole lines to a file, on the disk when this returns; a last line that a kill has torn goes first.

    start: what an empty file begins with. Raises OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as stream:
        left = lines if _cut_torn(stream) else start + lines
        while left:  # a disk that is nearly full takes a part
            left = left[stream.write(left) :]
        os.fsync(stream.fileno())


def _cut_torn(stream: IO[bytes]) -> int:
    """Cut a last line that has no end; returns how many bytes are left."""
    size = stream.seek(0, os.SEEK_END)
    if size:
        stream.seek(size - 1)
        if stream.read(1) != b"\n":
            stream.seek(0)
            size = stream.read().rfind(b"\n") + 1
            stream.truncate(size)
    return size


def _take(partial: Path, path: Path) -> None:
    """Rename a file, not over another one: FileExistsError where there is one."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError, NotImplementedError):  # there are file systems without links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(partial, path)
    else:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """The name that a file has while it is written; gone where the block raises."""
    partial = path.with_name(f"{_short(path.name)}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _short(name: str) -> str:
    """A name with room for an ending: file systems take 255 bytes."""
    data = os.fsencode(name)
    return name if len(data) <= 220 else f"{cut_bytes(name, 200)}-{hashlib.sha256(data).hexdigest()[:8]}"


_LEFT = re.compile(rf".+\.([0-9]+){re.escape(PARTIAL)}", re.DOTALL)


def is_partial(path: Path) -> bool:
    """Whether a name is one that files have while they are written."""
    return _LEFT.fullmatch(path.name) is not None


def sweep_partials(paths: Iterable[Path], *, own: bool = False) -> None:
    """Delete, of some files, what killed processes of this machine left half-written.

    own: what has this process's number, too: of an earlier one that had it, as in containers.
    """
    for path in paths:
        match = _LEFT.fullmatch(path.name)
        if match and not _is_live(int(match[1]), own):
            with suppress(OSError):
                path.unlink()


def _sweep_others(path: Path) -> None:
    """Delete what killed processes left of a file. Others, elsewhere, may write it too: only what is old."""
    with suppress(OSError), os.scandir(path.parent) as entries:
        name = f"{_short(path.name)}."
        left = [entry for entry in entries if entry.name.startswith(name) and entry.name.endswith(PARTIAL)]
        old = [Path(entry) for entry in left if time.time() - entry.stat().st_mtime > STALE]
        sweep_partials(each for each in old if each.name[len(name) : -len(PARTIAL)].isdecimal())


def _is_live(process: int, own: bool) -> bool:
    if process == os.getpid():
        return not own
    if os.name == "nt":  # where a signal would end it, and where a file that is open cannot be deleted
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def unwritable(path: Path, error: OSError, *, folder: bool = False) -> OSError:
    """The error for a person, one line: what cannot be written, why, what to do, and what is lost.

    folder: the path is one that was to be made or written to, not a file.
    """
    reason = error.strerror or error
    lost = "Nothing" if folder or path.is_dir() else "Only this file"
    return OSError(
        f"{path} cannot be written ({reason}): choose another output folder, or put that right and give the "
        f"same command again. {lost} is lost, what was made before is safe"
    )


def cut_bytes(text: str, most: int) -> str:
    """The text, or as much of its beginning as `most` bytes of UTF-8 hold: for names of files.

    Line breaks and other control characters become blanks, bytes that are no UTF-8 become question marks.
    """
    clean = "".join(" " if ord(letter) < 32 or ord(letter) == 127 else letter for letter in text)
    return clean.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits. Raises OSError for a file that cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None for one that is not there, damaged, or something else."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None
