"""Faults at write calls: the n-th call that writes below a folder fails, as on a full or read-only disk."""

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL, READ_ONLY, REFUSED = errno.ENOSPC, errno.EROFS, errno.EACCES


class Faults:
    """Counts the writing calls below a folder; the one with the number `at`, from 0, and all later ones fail.

    at: None to count alone. once: later ones do not fail. fail: what is done with the error.
    """

    def __init__(self, folder: Path, number: int, at: int | None, once: bool, fail: Callable):
        self.folder, self.number, self.at, self.once = os.path.realpath(folder), number, at, once
        self.fail = fail
        self.calls: list[str] = []

    def meet(self, call: str, path: object) -> None:
        """Count a call, and let it fail if it is its turn."""
        if not os.path.realpath(os.fspath(path)).startswith(self.folder):
            return
        index = len(self.calls)
        self.calls.append(f"{call} {os.path.basename(path)}")
        if self.at is not None and (index == self.at if self.once else index >= self.at):
            self.fail(OSError(self.number, os.strerror(self.number), str(path)))


def throw(error: OSError) -> None:
    raise error


class Stream:
    """A file whose `write` may fail, after it has written half."""

    def __init__(self, file, path, faults: Faults):
        self._file, self._path, self._faults = file, path, faults

    def write(self, data):
        try:
            self._faults.meet("write", self._path)
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)


@contextmanager
def faults(
    folder: Path,
    number: int = FULL,
    at: int | None = None,
    *,
    once: bool = False,
    fail: Callable[[OSError], None] = throw,
) -> Iterator[Faults]:
    """Let calls fail that open to write, write, sync, rename or delete below a folder, from the n-th on."""
    found = Faults(folder, number, at, once, fail)
    plain = {name: getattr(os, name) for name in ("open", "mkdir", "replace", "link", "unlink", "fsync")}
    open_file = builtins.open

    def opened(file, mode="r", *args, **options):
        writes = isinstance(file, str | os.PathLike) and set(mode) & set("wax+")
        if writes:
            found.meet("open", file)
        stream = open_file(file, mode, *args, **options)
        return Stream(stream, file, found) if writes and "b" in mode else stream

    def opened_low(path, flags, *args, **options):
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            found.meet("os.open", path)
        return plain["open"](path, flags, *args, **options)

    def failing(name):
        def call(path, *args, **options):
            if name == "fsync":
                path = os.readlink(f"/proc/self/fd/{path}")
                found.meet(name, path)
                return None  # to be fast; nobody pulls the plug here
            found.meet(name, path)
            return plain[name](path, *args, **options)

        return call

    builtins.open, os.open = opened, opened_low
    for name in ("mkdir", "replace", "link", "unlink", "fsync"):
        setattr(os, name, failing(name))
    try:
        yield found
    finally:
        builtins.open = open_file
        for name, call in plain.items():
            setattr(os, name, call)
