"""One question that a demo answers, and the way from its command line to an exit code. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

from flux.entry import show
from flux.outcome import ending, mistake, say


@dataclass(frozen=True)
class Study:
    """A spec's class and the functions that take one, by their dotted names, `package.module:name`.

    Names, not functions: torch takes seconds to load, and a wrong spec is answered at once.
    make: makes the run; may return an exit code of its own. describe: what `--dry-run` says, with `card` also
    of a card of so many GB.
    check: raises ValueError, OSError or ImportError for what can be known to be wrong without torch.
    """

    spec: str
    make: str
    describe: str
    check: str | None = None


def carry_out(study: Study, *, doc: str, default: Path, argv: Sequence[str] = ()) -> int:
    """Do what was asked for on the command line, and return the exit code.

    doc: the demo's own text, for `--help`. default: the spec where none is named. argv: what was typed
    behind the program's name. How it ends where a GPU is not there, weights are missing or damaged, or memory
    is too small: see `flux.outcome`.
    """
    try:
        read_command, kind = map(resolve_name, ("flux.studies.reading:read_command", study.spec))
        command = read_command(kind, doc=doc, default=default, argv=argv)
        if find_spec("jinja2") is None:  # of which a run would tell when all is made
            raise ImportError('pages need Jinja2: pip install "jinja2>=3.1"')
        if study.check is not None:
            resolve_name(study.check)(command.spec)
        for line in command.spec.notes():
            say(f"note: {line}")
    except BrokenPipeError:  # whoever read what we print has ended
        raise
    except (ValueError, OSError, ImportError) as error:
        return mistake(error)
    with ending(stopped="stopped; the same command goes on from here", lower="width, height or batch") as end:
        if command.dry_run:
            card = {} if command.card is None else {"card": command.card}
            show(resolve_name(study.describe)(command.spec, **card))
        else:
            end.code = resolve_name(study.make)(command.spec) or end.code
    return end.code
