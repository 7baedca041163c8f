"""How a command ends: mistakes and warnings in one line on stderr, an exit code, and no half sentence.

Mistakes of the user are ValueError, OSError, a missing package, too little memory, and a GPU that fails;
faults of ours are raised and show their traceback.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flux.extras import quiet

EXIT_OK, EXIT_MISTAKE, EXIT_INTERRUPTED = 0, 2, 130

LONGEST_WORD = 300  # as long as a path may well be

DEVICE_FAILURES = ("CUDA error", "CUDA driver error", "HIP error")


@dataclass
class Ending:
    """How a command ends: its exit code."""

    code: int = EXIT_OK


@contextmanager
def ending(*, name: str = "", stopped: str = "stopped", lower: str = "picture") -> Iterator[Ending]:
    """Do the work of a command within; its exit code is set where something goes wrong.

    name: stands before each mistake. stopped: what Ctrl-C is answered with. lower: what should be smaller
    where memory is too small.
    """
    from flux.device import OutOfMemory, out_of_memory_hint

    end = Ending()
    with one_line_warnings(), quiet():
        try:
            with out_of_memory_hint():
                yield end
        except BrokenPipeError:  # whoever read what we print has ended: see `flux.entry`
            raise
        except KeyboardInterrupt:
            say(stopped)
            end.code = EXIT_INTERRUPTED
        except (ValueError, OSError, ImportError, OutOfMemory) as error:
            end.code = mistake(error, name)
        except (MemoryError, RuntimeError) as error:
            if is_device_failure(error):
                reason = str(error).strip().partition("\n")[0]
                said = f"the GPU failed ({reason}): {stopped}; if it fails again, restart the machine"
            elif isinstance(error, MemoryError) or "allocate memory" in str(error):
                # On a CPU, torch says so in a plain RuntimeError.
                said = f"the machine is out of memory: use a smaller {lower}"
            else:
                raise
            end.code = mistake(said, name)


def is_device_failure(error: BaseException) -> bool:
    """Whether a GPU has failed, for want of memory or otherwise, so that this process may not go on with it.

    After most such errors all that follows on the device fails too. By what torch calls them: it need not be
    imported, and its older releases raise a plain RuntimeError.
    """
    if any(kind.__name__ in ("OutOfMemoryError", "AcceleratorError") for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in DEVICE_FAILURES)


def outcome(work: Callable[[], int | None], **words: str) -> int:
    """Do the work and return the exit code, its own if it has one. words: as `ending` takes them."""
    with ending(**words) as end:
        end.code = work() or end.code
    return end.code


def mistake(error: Exception | str, name: str = "") -> int:
    """Say what is wrong, in one line on stderr; returns the exit code for it."""
    text = str(error) or type(error).__name__
    say(f"{name}: {text}" if name else text)
    return EXIT_MISTAKE


def say(text: str) -> None:
    """One line on stderr, whatever line breaks the text has; words without an end are cut."""
    words = (word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 3] + "..." for word in text.split())
    print(" ".join(words), file=sys.stderr)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Show what the package warns of as one clean line; other warnings stay as they are."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_one_line(message, category, *place, **more) -> None:
            if category is UserWarning:
                say(f"note: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = show_one_line
        yield
