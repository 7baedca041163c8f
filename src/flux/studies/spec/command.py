"""The command line of a demo: `demo.py [spec.json] [--key value ...]`, any key of the spec, dotted."""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Generic

from flux.studies.spec.dino import alone
from flux.studies.spec.errors import SpecError, shown
from flux.studies.spec.loading import S, load_spec
from flux.studies.spec.part import Part
from flux.studies.spec.specs import Strategy
from flux.studies.spec.strict_json import Typed, parse_typed
from flux.studies.spec.values import flag

SEVERAL = ("prompts", "pictures", "against", "metrics")
"""Keys that take every word up to the next flag."""


@dataclass(frozen=True)
class Command(Generic[S]):
    """What was asked for on the command line."""

    spec: S
    dry_run: bool = False


def read_command(kind: type[S], *, doc: str, default: Path, argv: Sequence[str] | None = None) -> Command[S]:
    """The command in `argv` (none: the program's own). `default` is the spec taken when none is named.

    Leaves the program with 0 after `--help`, and with 2 and one line after a mistake.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if "-h" in argv or "--help" in argv:
        print(help_text(kind, doc, default))
        raise SystemExit(0)
    try:
        path, flags = _split(argv, {"dry-run", *_switches(kind)})
        dry_run = flags.pop("dry-run", False)
        if not isinstance(dry_run, bool):
            raise SpecError(f"--dry-run = {shown(dry_run)}: takes no value")
        flags = alone(kind, _source_and_edits(kind, flags))
        spec = load_spec(kind, _short(default) if path is None else Path(path), flags)
    except SpecError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    return Command(spec, dry_run)


def _switches(kind: type[Part], prefix: str = "") -> Iterator[str]:
    """The keys that are true when no value follows."""
    for each in fields(kind):
        if each.metadata["kind"] is flag:
            yield prefix + each.name
        elif each.metadata["kind"].part is not None:
            yield from _switches(each.metadata["kind"].part, f"{prefix}{each.name}.")


def _split(argv: Sequence[str], switches: set[str]) -> tuple[str | None, dict[str, Any]]:
    """The spec's path, if one is named, and each flag's value."""
    paths: list[str] = []
    flags: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            paths.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if key in flags:
            raise SpecError(f"--{key}: given twice")
        if key in SEVERAL:
            flags[key] = _list(key, [value] if equals else _up_to_next_flag(rest))
        elif equals or (rest and not rest[0].startswith("--") and key not in switches):
            flags[key] = parse_typed(value if equals else rest.pop(0))
        elif key in switches:
            flags[key] = rest.pop(0) == "true" if rest and rest[0] in ("true", "false") else True
        else:
            raise SpecError(f"--{key}: needs a value")
    if len(paths) > 1:
        raise SpecError(f"{paths[1]}: one spec at a time; {paths[0]} is named already")
    return (paths[0] if paths else None), flags


def _list(key: str, words: list[str]) -> list[Any]:
    """Words as a list of texts; a single one may be the list itself, in JSON, save for prompts."""
    if len(words) == 1 and key != "prompts" and isinstance(whole := parse_typed(words[0]), list):
        return whole
    return [Typed(word) for word in words]


def _up_to_next_flag(rest: list[str]) -> list[str]:
    """Take words from `rest` until one is a flag."""
    values: list[str] = []
    while rest and not rest[0].startswith("--"):
        values.append(rest.pop(0))
    return values


def _source_and_edits(kind: type[S], flags: dict[str, Any]) -> dict[str, Any]:
    """For a spec with a source: `--prompts "source" "edit 1" ...` as its source and its edits."""
    if "prompts" not in flags or "source" not in {each.name for each in fields(kind)}:
        return flags
    source, *edits = flags.pop("prompts") or [""]
    if not edits:
        raise SpecError(
            '--prompts: needs the source\'s prompt and at least one edit\'s: --prompts "source" "edit"'
        )
    return {"source": {"prompt": source}, "edits": [{"prompt": edit} for edit in edits], **flags}


def _short(path: Path) -> Path:
    """Relative to the working directory where it is below it, for messages."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def help_text(kind: type[S], doc: str, default: Path) -> str:
    """Usage, what the demo does, and every key with its default and meaning."""
    lines = [doc.strip(), "", "keys, in the spec or as --key value:"]
    rows = list(_rows(kind))
    margin = max(len(key) for key, _, _ in rows) + 4
    for key, value, meaning in rows:
        text = meaning + (f" [{value}]" if value else "")
        lines += textwrap.wrap(
            text,
            110,
            initial_indent=f"  {key}".ljust(margin),
            subsequent_indent=" " * margin,
            break_on_hyphens=False,
        )
    return "\n".join([*lines, "", f"without a spec: {_short(default)}"])


def _rows(kind: type[Part], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Each key with its default, as JSON (empty: must be given, or null), and its meaning."""
    for each in fields(kind):
        nested = each.metadata["kind"].part
        given = each.default not in (MISSING, None) and nested is None
        yield prefix + each.name, shown(each.default) if given else "", each.metadata["about"]
        # Keys of an edit's own strategy are those of the spec's.
        if nested is not None and not (prefix and nested is Strategy):
            entry = ".0" if each.name == "edits" else ""
            yield from _rows(nested, f"{prefix}{each.name}{entry}.")
