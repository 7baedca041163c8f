"""Files that are whole or absent, their digests, and JSON objects read back.

A file is written under another name beside its own and then renamed, so that after a kill, even by SIGKILL,
it is whole or absent; what such a kill leaves behind ends with `PARTIAL`. Standard library only.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"
"""The ending of a file that is being written, behind its name and the number of the process."""

Content = bytes | Callable[[IO[bytes]], Any]
"""What goes into a file: the bytes, or a function that writes them to a binary stream."""

BLOCK = 2**20  # bytes read at once


def write_atomically(path: Path, content: Content, *, durable: bool = False) -> None:
    """Write a file, whole or not at all; the folders above it are made.

    durable: through to the disk, so that it outlasts a power cut.
    Raises OSError where it cannot be written, and whatever `content` raises; the old file then stays.
    """
    with whole_file(path) as partial, open(partial, "wb") as stream:
        if callable(content):
            content(stream)
        else:
            stream.write(content)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write a file under that becomes `path` at the end of the block, or is gone if that raises.

    For writers that want a name; others take `write_atomically`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits. Raises OSError for a file that cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None for one that is not there, damaged, or something else."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None
