"""Who owns a folder: one process at a time, from before it looks what is there until it is done.

    hold = own(folder)      # None while another process owns it
    ...
    hold.release()

A lock of the operating system, which ends with its process, however that ends: what a kill leaves of it, a
file, blocks nobody. On a file system without locks, as some network file systems are, folders are used
unowned, which is said once. Whoever only reads a folder needs no lock.
"""

import errno
import json
import os
import socket
import threading
import warnings
import weakref
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flux.files import read_json_object

LOCK = ".flux.lock"
"""The file in a folder that its owner holds, and that says who that is."""

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class Ownership:
    """A folder that is this process's until it is released, or nobody refers to this any more."""

    def __init__(self, folder: Path, lock: FileLock | None):
        self.folder = folder
        self.release = weakref.finalize(self, _let_go, folder / LOCK, lock)


_owned: "weakref.WeakValueDictionary[tuple[Path, int], Ownership]" = weakref.WeakValueDictionary()
"""By folder and thread: a thread may own a folder twice."""


def own(folder: Path) -> Ownership | None:
    """Own a folder, which is there; None while another process or thread does.

    Raises OSError where nothing can be written.
    """
    key = folder.resolve(), threading.get_ident()
    found = _owned.get(key)
    if found is not None and found.release.alive:
        return found
    lock = FileLock(folder / LOCK, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        reason = error.strerror or error
        warnings.warn(
            f"{folder} is on a file system without locks ({reason}): start no second run into it",
            stacklevel=2,
        )
        lock = None
    else:
        _sign(folder / LOCK)
    _owned[key] = hold = Ownership(folder, lock)
    return hold


def owner_of(folder: Path) -> str:
    """Who owns a folder, in words."""
    found = read_json_object(folder / LOCK) or {}
    if not {"pid", "host", "since"} <= found.keys():
        return "another process"
    return "process {pid} on {host} since {since}".format(**found)


def _sign(path: Path) -> None:
    now = datetime.now().isoformat(sep=" ", timespec="seconds")
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    with suppress(OSError):  # the lock is had without it
        path.write_text(json.dumps(about), encoding="utf-8")


def _let_go(path: Path, lock: FileLock | None) -> None:
    # While it is held, so that it is ours. Who has opened it by then finds its name gone, and tries anew.
    with suppress(OSError):
        path.unlink()
    with suppress(OSError):
        if lock is not None:
            lock.release()
