"""What the demos do with a checked spec: make pictures into a run's folder, and a page that shows them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeVar

from flux.outcome import mistake, outcome

if TYPE_CHECKING:
    from flux.studies.reading import Command

S = TypeVar("S")


def read_command(spec: str, *, doc: str, default: Path, argv: Sequence[str] | None = None) -> "Command":
    """As `flux.studies.reading.read_command`; spec: the class by its dotted name, `package.module:Name`.

    Leaves the program with 2, and one line that says what to install, where pydantic is missing.
    """
    try:
        read = resolve_name("flux.studies.reading:read_command")
        kind = resolve_name(spec)
    except ImportError as error:
        raise SystemExit(mistake(error)) from None
    return read(kind, doc=doc, default=default, argv=argv)


def carry_out(
    command: "Command[S]",
    make: Callable[[S], int | None],
    *,
    check: Callable[[S], None] | None = None,
    describe: Callable[[S], str] | None = None,
) -> int:
    """Do what was asked for on the command line, and return the exit code.

    make: makes the run; may return an exit code of its own.
    check: raises for what can be known to be wrong before torch is imported, which takes seconds.
    describe: says what `--dry-run` does; None: `flux.studies.cost`.
    How it ends where a GPU is not there, weights are missing or damaged, or memory is too small: see
    `flux.outcome`.
    """
    spec = command.spec
    if check is not None:
        try:
            check(spec)
        except (ValueError, OSError, ImportError) as error:
            return mistake(error)

    def work() -> int | None:
        if not command.dry_run:
            return make(spec)
        if describe is None:
            from flux.studies.cost import estimate as describe_work
        else:
            describe_work = describe
        print(describe_work(spec))
        return None

    stopped = "stopped; the same command goes on from here"
    return outcome(work, stopped=stopped, lower="width, height or batch")
