"""Mistakes in a spec, said in one line: place, value, choices."""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
"""Where in a spec: keys and list positions, from the top."""

NOTHING = object()
"""The value of a key that is not there."""


class SpecError(ValueError):
    """A spec that cannot be run. Its text is one line that names file, key, value and choices."""


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what stands there, and what is wrong with it, in words."""

    path: Path
    text: str
    value: Any = NOTHING


class Refused(ValueError):
    """A value cannot be used. problems: every mistake in it, with paths from this value on."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(one_line(problems, "spec"))
        self.problems = tuple(problems)


def below(path: Path, problems: Iterable[Problem]) -> list[Problem]:
    """The problems of a value that stands at `path`."""
    return [Problem(path + problem.path, problem.text, problem.value) for problem in problems]


def one_line(problems: Iterable[Problem], source: str, flags: Sequence[Path] = ()) -> str:
    """All problems of a spec in one line, as `json/edit.json: steps = 0: must be 1 or more; seed = ...`.

    flags: the keys set on the command line; a problem there is shown as `--steps = 0: ...`.
    """
    in_file, on_command_line = [], []
    for problem in problems:
        typed = any(problem.path[: len(flag)] == flag for flag in flags)
        if typed:
            on_command_line.append(f"--{_place(problem)}: {problem.text}")
        else:
            in_file.append(f"{_place(problem)}: {problem.text}")
    if in_file:
        in_file[0] = f"{source}: {in_file[0]}"
    return " ".join("; ".join(in_file + on_command_line).split())


def _place(problem: Problem) -> str:
    where = dotted(problem.path) or "the spec"
    return where if problem.value is NOTHING else f"{where} = {shown(problem.value)}"


def dotted(path: Path) -> str:
    """`("edits", 0, "layers", 2)` as `edits[0].layers[2]`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def shown(value: Any, width: int = 60) -> str:
    """A value as JSON, cut to `width` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= width else text[: width - 3] + "..."


def choices(names: Iterable[str], wrong: Any = None) -> str:
    """`choose from a, b, c`, led by the nearest name where `wrong` looks like a slip of one."""
    names = list(names)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6) if isinstance(wrong, str) else []
    return f"{f'did you mean {near[0]}? ' if near else ''}choose from {', '.join(names)}"
