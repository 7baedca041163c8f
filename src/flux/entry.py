"""The outermost frame of every command: what the console can print, Ctrl-C at any moment, a reader that left.

    if __name__ == "__main__":
        with Console():
            sys.exit(main(sys.argv[1:]))

Imports next to nothing, and whatever is slow to import belongs inside the block: a command is only safe from
the moment at which this one is there.
"""

import atexit
import gc
import os
import signal
import sys
from types import FrameType

UNWRITABLE, INTERRUPTED, NOBODY_READS = 2, 130, 141
"""Exit codes, as shells have them: of output that cannot be written, of Ctrl-C, and of a command whose output
a program read that has ended."""

SELDOM = 100
"""After so many passes over younger objects Python's collector may walk through all that there are, not after
10. While torch and transformers are imported, which make half a million that stay, it did so seven times."""


class Console:
    """Around all that a command does, in `with`. Ends the process where the user or the reader has left.

    Letters that the console's encoding lacks are printed as escapes, `\\xe9`, and end nothing.
    """

    def __enter__(self) -> None:
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*self._thresholds[:2], SELDOM)
        atexit.register(gc.freeze)  # for Python looks for garbage once more where all memory is given back
        self._handler = signal.getsignal(signal.SIGINT)
        if self._handler is signal.default_int_handler:  # not where Ctrl-C is ignored, as behind nohup
            try:
                signal.signal(signal.SIGINT, _interrupt)
            except ValueError:  # in a thread
                self._handler = None
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # not where a notebook or a test has put its own
                stream.reconfigure(errors="backslashreplace")

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        if self._handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handler)
        gc.set_threshold(*self._thresholds)
        try:
            if kind is None or issubclass(kind, SystemExit):
                _flush()
        except BrokenPipeError:
            kind = BrokenPipeError
        except OSError as error:
            print(_unwritable(error), file=sys.stderr)
            _drop(sys.stdout)
            raise SystemExit(UNWRITABLE) from None
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            print("stopped", file=sys.stderr)
            raise SystemExit(INTERRUPTED)
        if kind is not None and issubclass(kind, BrokenPipeError):
            _drop(sys.stdout, sys.stderr)
            raise SystemExit(NOBODY_READS)


def show(text: object) -> None:
    """Print what was asked for; OSError, one line, where standard output cannot be written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop(sys.stdout)
        raise OSError(_unwritable(error)) from None


def _unwritable(error: OSError) -> str:
    return f"standard output cannot be written: {error.strerror or error}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: a KeyboardInterrupt, or the end at once in the middle of an import.

    There compiled modules would answer it with a report of their own. Files are whole or absent wherever a
    process ends.
    """
    at = frame
    while at is not None:
        if at.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, b"stopped\n")
            os._exit(INTERRUPTED)
        at = at.f_back
    signal.default_int_handler(number, frame)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _drop(*streams: object) -> None:
    """So that Python's own flush at the very end has somewhere to write to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            os.dup2(nowhere, stream.fileno())
