"""The JSON file of one part, written anew with each figure: a run that is cut off keeps them."""

import json
import os
from pathlib import Path
from typing import Any

RUNNING, DONE, FAILED, SKIPPED, CUT_OFF = "running", "done", "failed", "skipped", "cut off"


class Skip(Exception):
    """Raised by a part that cannot be run here; the message says why."""


class Record:
    """What is known of a part: its status, the reason for it, where it ran, and its figures."""

    def __init__(self, path: Path, data: dict[str, Any]):
        self.path = path
        self.data = data

    @classmethod
    def begin(cls, path: Path, about: dict[str, Any]) -> "Record":
        """A new record, on the disk at once. about: what is known before the part runs."""
        record = cls(path, {**about, "status": RUNNING, "reason": None, "seconds": None, "figures": {}})
        record.write()
        return record

    @classmethod
    def read(cls, path: Path) -> "Record":
        return cls(path, json.loads(path.read_text(encoding="utf-8")))

    @property
    def figures(self) -> dict[str, Any]:
        return self.data["figures"]

    @property
    def status(self) -> str:
        return self.data["status"]

    def put(self, **figures: Any) -> None:
        """Add or replace figures, and write."""
        self.figures.update(figures)
        self.write()

    def end(self, status: str, reason: str | None = None) -> None:
        self.data.update(status=status, reason=reason)
        self.write()

    def other(self, part: str) -> dict[str, Any]:
        """The figures of another part of the same run; empty where there are none."""
        path = self.path.with_name(f"{part}.json")
        return Record.read(path).figures if path.is_file() else {}

    def write(self) -> None:
        """Whole or not at all: under another name first, then renamed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, self.path)


def one_line(error: BaseException, most: int = 300) -> str:
    """An error in one line: its kind and the beginning of what it says."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:most].removesuffix(": ")
