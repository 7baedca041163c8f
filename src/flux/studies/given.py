"""Parts of specs that several demos take: pictures and boxes that are given, and keys that came later."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from flux.studies.spec import PlainValidator, Problem, Section, ValidationInfo, WithJsonSchema, absolute


class Sparse(Section):
    """A section some of whose keys are left out of its JSON where they stand at their defaults.

    quiet: these keys. They came later, and runs of specs without them are still the same runs.
    """

    quiet: ClassVar[frozenset[str]] = frozenset()

    def as_json(self) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in super().as_json().items()
            if name not in self.quiet or getattr(self, name) != fields[name].default
        }


def picture_file(value: Any, info: ValidationInfo) -> Path:
    """A file; whether there is a picture in it is asked before models load."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("must be the path of a picture, as text")
    path = absolute(value, info)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the picture in it")
    if not path.is_file():
        raise ValueError(f"{path} is no file" if path.exists() else f"no such file: {path}")
    return path


APicture = Annotated[Path, PlainValidator(picture_file), WithJsonSchema({"type": "string"})]


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("must be a SHA-256 in 64 hexadecimal digits")
    return value


Sha256 = Annotated[
    str, PlainValidator(_digest), WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"})
]


Box = tuple[int, int, int, int]


def read_box(value: Any, whose: str = "source") -> Box:
    """A box. whose: the picture that its pixels are counted in, for messages."""
    whole = len(value) == 4 and all(type(each) is int and 0 <= each <= 2**20 for each in value)
    if not whole or not (value[0] < value[2] and value[1] < value[3]):
        raise ValueError(f"must be a box [x0, y0, x1, y1] in the {whose}'s pixels, with x0 < x1 and y0 < y1")
    return tuple(value)


def changed_file(path: tuple, file: Any, digest: str | None, expected: str | None) -> Iterator[Problem]:
    """What is wrong with a file that is not the one whose SHA-256 the spec holds."""
    if expected is not None and digest is None:
        yield Problem(("sha256",), "is of a file, and no file is named", expected)
    elif expected is not None and digest != expected:
        yield Problem(
            path, "is another file than sha256 says: leave sha256 out to take it as it is", str(file)
        )
