"""What the demos do with a checked spec: make pictures into a run's folder, and a page that shows them."""

import sys
from collections.abc import Callable

from flux.spec import Command
from flux.spec.loading import S

MISTAKE, INTERRUPTED = 2, 130


def carry_out(command: Command[S], make: Callable[[S], None]) -> int:
    """Do what was asked for on the command line, and return the exit code.

    Mistakes that only show now, such as a GPU that is not there, weights that are missing or damaged, or too
    little memory, end in one line and code 2. Faults of ours are raised.
    """
    from flux.device import OutOfMemory, out_of_memory_hint

    try:
        with out_of_memory_hint():
            if command.dry_run:
                from flux.runs.estimate import estimate

                print(estimate(command.spec))
            else:
                make(command.spec)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError, OutOfMemory) as error:
        return _mistake(str(error) or type(error).__name__)
    except (MemoryError, RuntimeError) as error:
        # On a CPU, torch says so in a plain RuntimeError.
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return _mistake("the machine is out of memory: use a smaller width, height or batch")
    return 0


def _mistake(text: str) -> int:
    """Say what is wrong, in one line; returns the exit code for it."""
    print(" ".join(text.split()), file=sys.stderr)
    return MISTAKE
