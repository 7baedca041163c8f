"""Text as people have it, from files and command lines, and the JSON in it. ValueError says what is wrong.

JSON is taken strictly: each key once, brackets at most `DEEPEST` deep, no number of thousands of digits.
"""

import codecs
import json
from pathlib import Path
from typing import Any

LONGEST, DEEPEST, MOST_DIGITS = 2**26, 64, 4300
"""Bytes of a file that are read at most; how deep brackets may be; digits of a number."""


def read_text(path: Path) -> str:
    """What a text file holds: UTF-8, or UTF-16 as Windows' editors write it.

    Raises ValueError, in words to stand behind the file's name.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise ValueError(f"is longer than {LONGEST // 2**20} MiB")
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except IsADirectoryError:
        raise ValueError("is a folder; name the file in it") from None
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise ValueError(f"cannot be read as UTF-8 text ({wrong}): save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None


def check_encodable(text: str) -> None:
    """ValueError, in words to stand behind what the text is, for one that no file and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(unencodable(text)) from None


def unencodable(text: str) -> str:
    """What is wrong with a text that holds surrogates. Python keeps as such, too, bytes it could not read."""
    if all("\udc80" <= each <= "\udcff" for each in text if "\ud800" <= each <= "\udfff"):
        return "has letters that this console's encoding has lost: set PYTHONUTF8=1, or a UTF-8 locale"
    return "must be text: it holds half of a surrogate pair"


def parse_json(text: str) -> Any:
    """The value of a JSON text. ValueError names line and column where it breaks.

    NaN and Infinity pass as floats, so that the check of what they stand for can name its place.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once_each, parse_int=_whole)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1].strip()
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"not valid JSON at {where}: {error.msg}: {line[:60]!r}") from None
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    _check_depth(value)
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in value if keys.count(key) > 1)
        raise ValueError(f'key "{twice[:60]}" is given twice in one object; keep one')
    return value


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"holds a number of {len(digits)} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        inside = [each for each in level if isinstance(each, list | dict)]
        level = [below for each in inside for below in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return
    raise ValueError("not valid JSON: nested too deeply")
