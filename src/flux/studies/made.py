"""The files that a run has made, each with the SHA-256 of its bytes: no others are ever removed or replaced.

`run.json` lists them under "made". While a run is at work, a line is added to a journal, and on the disk,
before the file itself is written; so a kill at any moment leaves no file that is not listed.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from flux.files import append, sha256_of, unwritable

JOURNAL = ".flux.made"


class MadeFiles:
    """Digests by name, which is relative to the folder. known: False where the record is damaged."""

    def __init__(self, folder: Path, record: Mapping[str, Any] | None):
        self.folder = folder
        listed = (record or {}).get("made")
        self.known = isinstance(listed, dict) or record is None
        self._digests = {
            name: str(sha256)
            for name, sha256 in (listed if isinstance(listed, dict) else {}).items()
            if _is_below(name)
        }
        self._digests |= dict(_lines(folder / JOURNAL))
        self._writing = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def as_json(self) -> dict[str, str]:
        """For `run.json`."""
        return dict(sorted(self._digests.items()))

    def add(self, digests: Mapping[str, str]) -> None:
        """List files that are to be written now. Raises OSError where the journal cannot be written."""
        text = "".join(json.dumps(pair) + "\n" for pair in digests.items())
        path = self.folder / JOURNAL
        with self._writing:
            try:
                append(path, text.encode())
            except OSError as error:
                raise unwritable(path, error) from error
            self._digests |= digests

    def is_whole(self, name: str) -> bool:
        """Whether a file is there with the bytes that it was made with."""
        with suppress(OSError):
            return name in self._digests and sha256_of(self.folder / name) == self._digests[name]
        return False

    def forget(self) -> None:
        """List nothing any more."""
        self._digests, self.known = {}, True
        self.close()

    def close(self) -> None:
        """The journal goes: `run.json` has what it says."""
        with suppress(OSError):
            (self.folder / JOURNAL).unlink()


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The whole lines of a journal; none where there is none."""
    with suppress(OSError):
        for line in path.read_bytes().split(b"\n")[:-1]:
            with suppress(ValueError, TypeError):
                name, sha256 = json.loads(line)
                if _is_below(name):
                    yield name, str(sha256)


def _is_below(name: Any) -> bool:
    """Whether a name stays in the folder, whatever somebody wrote into the record."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    return bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute()
