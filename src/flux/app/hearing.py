"""What a job prints, heard by the page in the place of the console. Other threads print as ever."""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

OnLine = Callable[[str, bool], None]
"""Takes a line, and whether it was a warning or a mistake."""


class HeardStream(io.TextIOBase):
    """A console to one thread, whose lines go to `on_line`; to all others the stream that was there."""

    def __init__(self, stream: TextIO, on_line: Callable[[str], None]):
        self._stream, self._on_line = stream, on_line
        self._thread, self._rest = threading.get_ident(), ""

    def write(self, text: str) -> int:
        if threading.get_ident() != self._thread:
            return self._stream.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._on_line(line.strip())
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._stream.flush()


@contextmanager
def heard(on_line: OnLine) -> Iterator[None]:
    """Hear what this thread prints within."""
    before = sys.stdout, sys.stderr
    sys.stdout = HeardStream(before[0], lambda line: on_line(line, False))
    sys.stderr = HeardStream(before[1], lambda line: on_line(line, True))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
