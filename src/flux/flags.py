"""From words on a command line to flags and their values, for the demos and `python -m flux` alike.

Says which flag a word belongs to, not what it means: values stay the text that was typed.
"""

import difflib
import json
import math
import os.path
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flux.text_files import parse_json

HELP = ("-h", "--help")

SWITCHED = frozenset({"true", "false"})
"""What may follow a switch where other words may stand free."""


_TOKEN = r"(?:(?:[a-z_]+\.)?(?:\*|-?[0-9]+(?:-[0-9]+)?)|all)"
SERIES = re.compile(rf"[\[\],+]*(?:{_TOKEN}(?:[\[\],+]+{_TOKEN})*)?[\[\],+]*")
"""A word that may go on with numbers or layers: `0`, `0,1`, `0-3`, `double.2`, `[0,`."""


WORD = re.compile(r"[A-Za-z0-9_:-]+")
"""A word that is no path of a spec, unless there is a file of this name."""


class UsageError(ValueError):
    """The command line itself is wrong."""


class Typed(str):
    """A text that was typed on the command line: as a path, it is relative to the working directory."""


def is_typed(value: Any) -> bool:
    """Whether a value of a spec, or a text in it, was typed on the command line."""
    if isinstance(value, dict):
        value = list(value.values())
    return any(map(is_typed, value)) if isinstance(value, list) else isinstance(value, Typed)


@dataclass(frozen=True)
class Flags:
    """words: those before, between and behind the flags. pairs: each key with its text.

    A switch that stands alone has True in the place of its text, a key of several words their list.
    """

    words: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str | list[str] | bool]] = field(default_factory=list)


@dataclass(frozen=True)
class Grammar:
    """The flags of a command: `--key value` or `--key=value`, and switches, which need no value.

    switches: their keys. several: keys that take every word up to the next flag.
    series: keys, by what stands behind their last dot, of numbers or layers: `--seeds 0 1 2` is `"0 1 2"`.
    options: all keys, which may be typed with - for _, a switch with `no` before it to turn it off, and no
    words but theirs; empty: any key and other words too, for whoever reads the flags to judge.
    letters: what single letters stand for, as in `-p "a cat"`. said: whether a word may
    follow a switch, by key.
    """

    switches: frozenset[str] = frozenset()
    several: frozenset[str] = frozenset()
    series: frozenset[str] = frozenset()
    options: Sequence[str] = ()
    letters: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)

    def read(self, words: Sequence[str]) -> Flags:
        """Raises UsageError for an unknown option, a missing value, and a word that belongs to none."""
        flags, rest = Flags(), list(words)
        while rest:
            word = rest.pop(0)
            if not self.is_flag(word):
                flags.words.append(self._free(word))
                continue
            flag, equals, value = word.partition("=")
            key, off = self._key(flag)
            if off:
                if equals:
                    raise UsageError(f"{cut(flag)}: takes no value")
                flags.pairs.append((key, "False"))
            elif key in self.several:
                flags.pairs.append((key, [value] if equals else self._up_to_next_flag(rest)))
            elif equals or self._has_value(key, rest):
                words = [value] if equals else [rest.pop(0)]
                if key.rpartition(".")[2] in self.series and SERIES.fullmatch(words[0]):
                    words += self._series(rest)
                flags.pairs.append((key, " ".join(words)))
            elif key in self.switches:
                flags.pairs.append((key, True))
            else:
                raise UsageError(f"{cut(flag)}: needs a value")
        return flags

    def is_flag(self, word: str) -> bool:
        """A single dash leads a flag only where letters have a meaning; a negative number never is one."""
        return word.startswith("--") or bool(self.letters and word[:1] == "-" and word[1:2].isalpha())

    def _free(self, word: str) -> str:
        if self.options:
            raise UsageError(f"unexpected word {cut(word)!r}: give --option value, and quote a prompt")
        return word

    def _key(self, flag: str) -> tuple[str, bool]:
        """The key that a flag means, and whether it is a switch that is turned off."""
        if not self.options:
            return flag[2:], False
        key = flag.lstrip("-").replace("-", "_")
        key = self.letters.get(key, key)
        if key in self.options:
            return key, False
        if key.startswith("no") and key[2:] in self.switches:
            return key[2:], True
        near = nearest(key, self.options)
        hint = f", did you mean --{near}?" if near else ";"
        raise UsageError(f"unknown option {cut(flag)}{hint} options: --{', --'.join(self.options)}")

    def _has_value(self, key: str, rest: Sequence[str]) -> bool:
        """Whether the next word is the key's. One that may stand free is a switch's only if it says so."""
        if not rest or self.is_flag(rest[0]):
            return False
        if key not in self.switches or self.options:
            return True
        # Behind a switch that takes names, a slip of one is no spec: the key's own check tells the names.
        slip = key in self.said and WORD.fullmatch(rest[0]) is not None and not os.path.exists(rest[0])
        return slip or rest[0] in SWITCHED or (key in self.said and self.said[key](rest[0]))

    def _up_to_next_flag(self, rest: list[str]) -> list[str]:
        """Take words from `rest` until one is a flag."""
        values: list[str] = []
        while rest and not self.is_flag(rest[0]):
            values.append(rest.pop(0))
        return values

    def _series(self, rest: list[str]) -> list[str]:
        """Take words from `rest` as long as they may belong to a list of numbers."""
        words: list[str] = []
        while rest and not self.is_flag(rest[0]) and SERIES.fullmatch(rest[0]):
            words.append(rest.pop(0))
        return words


def cut(text: str, width: int = 60) -> str:
    """The text, or its beginning and three dots."""
    return text if len(text) <= width else text[: width - 3] + "..."


def shown(value: Any, width: int = 60) -> str:
    """A value as JSON, cut to `width` characters."""
    return cut(json.dumps(value, ensure_ascii=False, default=str), width)


def typed(text: str | bool) -> Any:
    """What was typed after a flag: JSON where it is JSON (3, true, [0, 1]), otherwise the text itself."""
    if isinstance(text, bool):
        return text
    try:
        value = parse_json(text)
    except ValueError:
        return Typed(text)
    return Typed(text) if isinstance(value, float) and not math.isfinite(value) else _mark(value)


def _mark(value: Any) -> Any:
    if isinstance(value, str):
        return Typed(value)
    if isinstance(value, list):
        return [_mark(item) for item in value]
    if isinstance(value, dict):
        return {key: _mark(item) for key, item in value.items()}
    return value


def nearest(wrong: Any, names: Iterable[str]) -> str | None:
    """The name that `wrong` looks like a slip of."""
    if not isinstance(wrong, str) or len(wrong) > 100:
        return None
    near = difflib.get_close_matches(wrong, list(names), n=1, cutoff=0.6)
    return near[0] if near else None


def choices(names: Iterable[str], wrong: Any = None) -> str:
    """`choose from a, b, c`, led by the nearest name to `wrong`, if there is one."""
    names = list(names)
    near = nearest(wrong, names)
    return f"{f'did you mean {near}? ' if near else ''}choose from {', '.join(names)}"
