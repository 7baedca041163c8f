"""From a JSON file and the words behind a demo's name to a checked spec, or one line with every mistake.

`demo.py [spec.json] [--key value ...]`: any key of the spec, dotted, as in `--model.device cpu`.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from flux.entry import show
from flux.flags import HELP, Grammar, Typed, UsageError, choices, cut, nearest, shown, typed
from flux.outcome import mistake
from flux.placement.modes import is_offload
from flux.studies.schema import DEMOS, SCHEMAS
from flux.studies.spec import NOTHING, KeyPath, Problem, Section, StudySpec, ValidationError, dotted
from flux.text_files import parse_json, read_text, unencodable

S = TypeVar("S", bound=StudySpec)

SEVERAL = frozenset({"prompts", "pictures", "against", "metrics", "lora", "model.lora"})
"""Keys that take every word up to the next flag."""

SHORT = {name: f"model.{name}" for name in ("lora", "lora_live", "precision", "compile")}
"""Keys of the model that may be typed without it, where a spec has one."""

SERIES = frozenset({"seeds", "layers", "attention", "rounds", "window"})
"""Keys that take further numbers, as `--seeds 0 1 2`."""

NUMBERS = re.compile(r"[0-9]{1,9}([\s,]+[0-9]{1,9})+")
"""Several numbers that were typed; for keys that do not read such a text themselves."""

MOST_SAID = 20
"""So many mistakes are named in the one line."""


class SpecError(ValueError):
    """A spec that cannot be run. Its text is one line that names file, key, value and choices."""


# Files


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; SpecError as of `read_value`, and for a file that holds anything else."""
    value = read_value(path)
    if not isinstance(value, dict):
        raise SpecError(f"{path}: must hold a JSON object, {{...}}; got {type(value).__name__}")
    return value


def read_value(path: Path) -> Any:
    """What a JSON file holds, see `flux.text_files`. SpecError names the file, and where it breaks."""
    if path.is_dir():
        raise SpecError(f"{path}: is a folder; name the JSON file in it")
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None


# What a section's keys are


def section_in(annotation: Any) -> type[Section] | None:
    """The class of objects that are, or are in, values of a type."""
    return next((part for part in _parts(annotation) if _is_section(part)), None)


def section_at(kind: type[Section], path: KeyPath) -> type[Section] | None:
    """The class of the object that is, or whose list is, at a place of a spec."""
    here: type[Section] | None = kind
    for key in path:
        if isinstance(key, str) and here is not None:
            field = here.model_fields.get(key)
            here = section_in(field.annotation) if field else None
    return here


def _is_section(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Section)


def _parts(annotation: Any) -> Iterator[Any]:
    """A type, what is annotated to it, and the same of its arguments."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in (*get_args(annotation), *getattr(annotation, "metadata", ())):
            yield from _parts(part)


# From pydantic's mistakes to ours

WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "string_type": "must be text",
    "too_short": "must have at least one entry",
    "tuple_type": "must be a list",
    "too_long": "has more entries than one run takes",
}


def problems_of(kind: type[Section], error: ValidationError) -> list[Problem]:
    """The mistakes in a spec of this kind, in our words; what is missing last, for a slip explains it."""
    found = sorted(error.errors(include_url=False), key=lambda each: each["type"] == "missing")
    listed: set[type[Section]] = set()
    # A list with wrong entries is no list that is too short, though pydantic counts only the right ones.
    return [
        _unknown_key(kind, each, listed) if each["type"] == "extra_forbidden" else _problem(kind, each)
        for each in found
        if not (each["type"] == "too_short" and each["input"])
    ]


def _unknown_key(kind: type[Section], error: Mapping[str, Any], listed: set[type[Section]]) -> Problem:
    """listed: the objects whose keys have been listed in this line, which is enough."""
    path, owner = error["loc"], _owner(kind, error["loc"])
    said = choices(owner.model_fields, path[-1])
    if owner in listed:
        near = nearest(path[-1], owner.model_fields)
        said = f"did you mean {near}?" if near else "see above"
    listed.add(owner)
    return Problem(path, f"unknown key, {said}", error["input"])


def _problem(kind: type[Section], error: Mapping[str, Any]) -> Problem:
    path, value, reason = error["loc"], error["input"], error["type"]
    context = error.get("ctx", {})
    if reason == "missing":
        return Problem(path, f"missing: {_owner(kind, path).model_fields[path[-1]].description}")
    if reason == "problem":
        return Problem(path, context["text"], value)
    if reason == "value_error":
        return Problem(path, str(context["error"]), value)
    if reason == "model_type":
        names = section_at(kind, path).model_fields
        return Problem(path, f"must be an object with the keys {', '.join(names)}", value)
    if reason == "literal_error":
        names = next(get_args(part) for part in _type_at(kind, path) if get_origin(part) is Literal)
        return Problem(path, choices(names, value), value)
    if reason == "string_unicode":
        return Problem(path, unencodable(value), value)
    if reason == "multiple_of":
        if (words := _bounds(_type_at(kind, path), beyond=value)) is not None:
            return Problem(path, words, value)
        of = context["multiple_of"]
        return Problem(path, f"must be a multiple of {of}, such as {max(of, round(value / of) * of)}", value)
    if reason in ("greater_than_equal", "less_than_equal"):
        return Problem(path, _bounds(_type_at(kind, path)), value)
    if reason == "float_type" and type(value) is int:  # too large for a float
        return Problem(path, WORDS["finite_number"], value)
    return Problem(path, WORDS.get(reason, error["msg"]), value)


def _owner(kind: type[Section], path: KeyPath) -> type[Section]:
    """The class of the object that has, or should have, the last key of a path."""
    return section_at(kind, path[:-1])


def _type_at(kind: type[Section], path: KeyPath) -> list[Any]:
    """The parts of the type of the key that a path leads to, or into whose list."""
    last = max(i for i, key in enumerate(path) if isinstance(key, str))
    field = section_at(kind, path[:last]).model_fields[path[last]]
    return [part for source in (field.annotation, field) for part in _parts(source)]


def _limits(parts: Sequence[Any]) -> tuple[float, float] | None:
    """The bounds of a type; every number has them."""
    lowest = next((part.ge for part in parts if hasattr(part, "ge")), None)
    highest = next((part.le for part in parts if hasattr(part, "le")), None)
    return None if lowest is None or highest is None else (lowest, highest)


def _bounds(parts: Sequence[Any], beyond: float | None = None) -> str | None:
    """The bounds of a type in words. beyond: only if this value is, which is then what is wrong."""
    lowest, highest = _limits(parts)
    if beyond is not None and lowest <= beyond <= highest:
        return None
    return f"must be between {lowest} and {highest}"


# The one line


def one_line(problems: Iterable[Problem], source: str, flags: Sequence[KeyPath] = ()) -> str:
    """All problems of a spec in one line, as `json/edit.json: steps = 0: must be 1 or more; seed = ...`.

    flags: the keys set on the command line; a problem there is shown as `--steps = 0: ...`.
    """
    in_file, on_command_line = [], []
    problems = list(problems)
    for problem in problems[:MOST_SAID]:
        is_typed = any(_blames(problem, flag) for flag in flags)
        said = f"{_place(problem)}: {problem.text}"
        (on_command_line if is_typed else in_file).append(f"--{said}" if is_typed else said)
    if in_file:
        in_file[0] = f"{source}: {in_file[0]}"
    more = [f"and {len(problems) - MOST_SAID} more"] if len(problems) > MOST_SAID else []
    line = " ".join("; ".join(in_file + on_command_line + more).split())
    return line.encode(errors="backslashreplace").decode()


def _blames(problem: Problem, flag: KeyPath) -> bool:
    """Whether a flag is what is wrong: it set the value, or it set a key that needs another one beside it."""
    beside = problem.value is NOTHING and len(flag) > 1 and problem.path[: len(flag) - 1] == flag[:-1]
    return problem.path[: len(flag)] == flag or beside


def _place(problem: Problem) -> str:
    where = dotted(problem.path) or "the spec"
    return where if problem.value is NOTHING else f"{where} = {shown(problem.value)}"


# Specs


def load_spec(kind: type[S], path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> S:
    """The spec in `path` (None: defaults alone) with `overrides` by dotted key, as {"model.device": "cpu"}.

    Relative paths are relative to the spec's folder, in strings that are `Typed` to the working directory.
    Raises SpecError, one line with every mistake found: file or flag, key, value, choices.
    """
    source = str(path) if path is not None else f"{kind.demo} spec"
    data = read_json(Path(path)) if path is not None else {}
    folder = Path(path).parent if path is not None else Path(".")
    name = Path(path).stem if path is not None else kind.demo
    return read_spec(kind, data, source, overrides, folder=folder, name=name)


def read_spec(
    kind: type[S],
    data: dict[str, Any],
    source: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    folder: Path = Path("."),
    name: str = "",
) -> S:
    """The spec in an object, which is changed; see `load_spec`. source: where it is from, for messages.

    folder: what its paths are relative to. name: of its run, where it names no folder for it.
    """
    other = _meant_for(kind, data)
    flags = {_key_path(key): value for key, value in (overrides or {}).items()}
    for key in sorted(flags, key=len):  # what is typed of a part stays, wherever its whole is typed
        _put(kind, data, key, flags[key])
    if data.get("output") is None:
        data["output"] = Typed(Path("output") / kind.demo / (name or kind.demo))
    try:
        return kind.model_validate(data, context=folder)
    except ValidationError as error:
        if other is not None:
            raise SpecError(
                f"{source}: this is a spec of {other}: run python demos/{other}.py {source}"
            ) from None
        raise SpecError(one_line(problems_of(kind, error), source, list(flags))) from None


def _meant_for(kind: type[StudySpec], data: Mapping[str, Any]) -> str | None:
    """The demo that a spec is of, by its schema or by all of its keys, if that is not the one of `kind`."""
    keys = {key for key in data if key != "$schema"}
    if keys <= kind.model_fields.keys():
        return None
    known = {name: keys & resolve_name(SCHEMAS[name]).model_fields.keys() for name in DEMOS}
    fitting = [name for name in DEMOS if known[name] == keys]
    schema = re.fullmatch(r"(?:.*/)?(\w+)\.json", str(data.get("$schema")))
    named = schema[1] if schema else None
    if named in known and len(known[named]) > len(known[kind.demo]):
        return DEMOS[named]
    return DEMOS[fitting[0]] if len(fitting) == 1 else None


def _key_path(key: str) -> KeyPath:
    """`edits.0.prompt` as ("edits", 0, "prompt")."""
    return tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in key.split("."))


def _put(kind: type[Section], data: Any, path: KeyPath, value: Any) -> None:
    """Set the value at `path` in nested objects and lists, making objects on the way. SpecError otherwise."""
    for i, key in enumerate(path):
        if isinstance(data, list):
            fits = isinstance(key, int) and key < len(data)
            why = f"the list has {len(data)} entries, 0 to {len(data) - 1}"
        else:
            fits, why = isinstance(data, dict), f"{path[i - 1] if i else 'it'} is not an object"
            key = str(key)
        if not fits:
            raise SpecError(one_line([Problem(path, why, value)], "", [path]))
        if i == len(path) - 1:
            data[key] = value
            return
        below = data[key] if isinstance(data, list) else data.get(key)
        if below is None:
            below = {}
        text_key = _text_key(kind, path[: i + 1])
        if isinstance(below, str) and text_key:
            below = {text_key: below}
        data[key] = below
        data = below


def _text_key(kind: type[Section], path: KeyPath) -> str | None:
    """What a bare text at a place is the value of, where an object may stand there."""
    if (section := section_at(kind, path)) is not None:
        return section.text_key
    owner = section_at(kind, path[:-1])
    return None if owner is None or path[-1] in owner.model_fields else owner.further_text_key


# The command line

MOST_CARD = 10_000


@dataclass(frozen=True)
class Command(Generic[S]):
    """What was asked for on the command line. card: GB of a card's memory, for a dry run."""

    spec: S
    dry_run: bool = False
    card: float | None = None


def read_command(kind: type[S], *, doc: str, default: Path, argv: Sequence[str] = ()) -> Command[S]:
    """The command in `argv`, which is empty where nothing was typed; `default` is the spec then.

    Leaves the program with 0 after `--help`, and with 2 and one line after a mistake.
    """
    if any(word in HELP for word in argv):
        show(help_text(kind, doc, default))
        raise SystemExit(0)
    try:
        path, flags = _split(kind, argv)
        dry_run = flags.pop("dry-run", False)
        if not isinstance(dry_run, bool):
            raise SpecError(f"--dry-run = {shown(dry_run)}: takes no value")
        card = flags.pop("card", None)
        number = isinstance(card, int | float) and not isinstance(card, bool)
        if card is not None and not (dry_run and number and 1 <= card <= MOST_CARD):
            raise SpecError(
                f"--card = {shown(card)}: goes with --dry-run, and is a GPU's memory in GB, such as 24, "
                f"1 to {MOST_CARD}"
            )
        if path is None:
            kind.require_alone(flags)
        spec = load_spec(kind, _short(default) if path is None else Path(path), kind.from_flags(flags))
    except (SpecError, UsageError) as error:
        raise SystemExit(mistake(error)) from None
    return Command(spec, dry_run, card)


def _split(kind: type[StudySpec], argv: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The spec's path, if one is named, and each flag's value."""
    short = SHORT if "model" in kind.model_fields else {}
    switches = {"dry-run", *_switches(kind)}
    switches |= {typed for typed, key in short.items() if key in switches}
    said = {key: is_offload for key in switches if key.rpartition(".")[2] == "offload"}
    given = Grammar(frozenset(switches), SEVERAL, SERIES, said=said).read(argv)
    flags: dict[str, Any] = {}
    for key, value in ((short.get(key, key), value) for key, value in given.pairs):
        if key in flags:
            raise UsageError(f"--{cut(key)}: given twice")
        if isinstance(value, list):
            flags[key] = _list(key, value)
        elif key.rpartition(".")[2] in ("rounds", "window") and NUMBERS.fullmatch(str(value)):
            flags[key] = [int(word) for word in re.findall("[0-9]+", value)]
        else:
            flags[key] = _typed(kind, key, value)
    if len(given.words) > 1:
        first, second = map(cut, given.words[:2])
        raise UsageError(f"{second}: one spec at a time; {first} is named already")
    return (given.words[0] if given.words else None), flags


def _typed(kind: type[StudySpec], key: str, text: str | bool) -> Any:
    """What a word means: a number is text where text is asked for, and no number would do."""
    value = typed(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    path = _key_path(key)
    section = section_at(kind, path[:-1])
    field = section.model_fields.get(str(path[-1])) if section is not None else None
    parts = list(_parts(field.annotation)) if field is not None else []
    takes = {part for part in parts if part in (str, Path, int, float)}
    return Typed(text) if takes and takes <= {str, Path} else value


def _list(key: str, words: list[str]) -> Any:
    """Words as a list of texts; a single one may be the list itself, in JSON, and a prompt an object."""
    if key != "prompts":
        whole = typed(words[0]) if len(words) == 1 else None
        return whole if isinstance(whole, list) else [Typed(word) for word in words]
    values = [_prompt(word) for word in words]
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _prompt(word: str) -> Any:
    """A prompt: a text, or JSON where it is a list or an object. "[V] a dog" is a text."""
    value = typed(word)
    if isinstance(value, list | dict):
        return value
    if re.match(r"\s*(\[\s*[\[{\"]|\{\s*\")", word):
        try:
            parse_json(word)
        except ValueError as error:
            raise UsageError(f"--prompts = {shown(word)}: {error}") from None
    return Typed(word)


def _switches(kind: type[Section], prefix: str = "") -> Iterator[str]:
    """The keys that are true when no value follows."""
    for name, field in kind.model_fields.items():
        if field.annotation is bool or name == "offload":
            yield prefix + name
        elif section := section_in(field.annotation):
            yield from _switches(section, f"{prefix}{name}.")


def _short(path: Path) -> Path:
    """Relative to the working directory where it is below it, for messages."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def help_text(kind: type[StudySpec], doc: str, default: Path) -> str:
    """Usage, what the demo does, and every key with its default and meaning."""
    lines = [doc.strip(), "", "keys, in the spec or as --key value:"]
    rows = list(_rows(kind))
    margin = max(len(key) for key, _ in rows) + 4
    for key, meaning in rows:
        lines += textwrap.wrap(
            meaning,
            110,
            initial_indent=f"  {key}".ljust(margin),
            subsequent_indent=" " * margin,
            break_on_hyphens=False,
        )
    return "\n".join([*lines, "", f"without a spec: {_short(default)}"])


def _rows(
    kind: type[Section], prefix: str = "", above: frozenset[type | None] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Each key with its meaning and, unless it is null or an object, its default as JSON.

    above: objects whose keys are left out, for they are those of a key of the whole spec.
    """
    inside = {name: section_in(field.annotation) for name, field in kind.model_fields.items()}
    for name, field in kind.model_fields.items():
        section = inside[name]
        given = not field.is_required() and field.default is not None and section is None
        limits = None if section is not None else _limits(_type_at(kind, (name,)))
        within = "" if limits is None else f" ({limits[0]} to {limits[1]})"
        yield prefix + name, field.description + within + (f" [{shown(field.default)}]" if given else "")
        if section is not None and section not in above:
            entry = ".0" if any(get_origin(part) is tuple for part in _parts(field.annotation)) else ""
            yield from _rows(section, f"{prefix}{name}{entry}.", above or frozenset(inside.values()))
