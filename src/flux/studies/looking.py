"""The picture that a model looks at, as specs name it: by a key of prompts, or by one for a whole run."""

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from flux.files import sha256_of
from flux.studies.given import APicture, Sha256, Sparse, changed_file
from flux.studies.prompts import PromptFile, PromptItem, item_or_text
from flux.studies.spec import (
    Field,
    KeyPath,
    ModelChoice,
    PlainValidator,
    Problem,
    Several,
    Text,
    ValidationInfo,
)

if TYPE_CHECKING:
    from flux.pictures.looked_at import LookedAt


class ReferenceKeys(Sparse):
    """The files that a model looks at, and which files these are."""

    quiet: ClassVar[frozenset[str]] = frozenset({"picture", "mask", "sha256", "mask_sha256"})

    picture: APicture | None = Field(
        None, description="what a Kontext, Control, Fill or Redux model looks at; null: nothing"
    )
    mask: APicture | None = Field(None, description="for Fill: white where the picture is filled anew")
    sha256: Sha256 | None = Field(None, description="of the picture's file; another one is refused")
    mask_sha256: Sha256 | None = Field(None, description="of the mask's file; another one is refused")

    @cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, by its key."""
        files = {"sha256": self.picture, "mask_sha256": self.mask}
        return {key: sha256_of(file) for key, file in files.items() if file is not None}

    def problems(self) -> Iterator[Problem]:
        for name, key in (("picture", "sha256"), ("mask", "mask_sha256")):
            file, expected = getattr(self, name), getattr(self, key)
            for problem in changed_file((name,), file, self.digests.get(key), expected):
                yield problem if problem.path == (name,) else problem._replace(path=(key,))

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | self.digests

    @property
    def names_files(self) -> bool:
        """Whether anything is looked at; what lacks beside it is a mistake."""
        return self.picture is not None or self.mask is not None

    @property
    def looked_at(self) -> "LookedAt | None":
        from flux.pictures.looked_at import LookedAt  # with Pillow, which most specs do not need

        return None if self.picture is None else LookedAt(self.picture, self.mask)

    @property
    def in_words(self) -> str:
        inside = "" if self.mask is None else f", filled inside {self.mask.name}"
        return "" if self.picture is None else f"looking at {self.picture.name}{inside}"


class ReferenceChoice(ReferenceKeys):
    """What a model looks at; a bare text is the picture's file."""

    text_key: ClassVar[str] = "picture"


REFERENCE: Any = Field(
    None,
    description='the picture that a Kontext, Control, Fill or Redux model looks at: its file, or {"picture": '
    '..., "mask": ...}',
)
"""The key for all pictures of a run."""


class PromptWithPicture(ReferenceKeys, PromptItem):
    """A prompt, its seed, and the picture that the model looks at."""


class FileWithPictures(PromptFile):
    """What a file of prompts holds that may name pictures; their paths are relative to its folder."""

    columns: ClassVar[tuple[str, ...]] = ("picture", "mask")

    prompts: Several[PromptWithPicture] = Field(description="a list of prompts, each with its seed")


def _read(value: Any, info: ValidationInfo) -> str | PromptWithPicture:
    return item_or_text(value, PromptWithPicture, info)


PromptOrPicture = Annotated[
    str | PromptWithPicture, PlainValidator(_read, json_schema_input_type=Text | PromptWithPicture)
]
"""A text; an object, where the prompt has a seed or a picture of its own."""

Seen = Sequence[tuple[KeyPath, ReferenceKeys | None]]
"""What is looked at for each picture, or none, and where that stands in the spec."""


def looking_problems(model: ModelChoice, size: tuple[int, int] | None, seen: Seen) -> Iterator[Problem]:
    """Pictures that a model does not look at, or cannot, and those that it misses.

    size: width and height of what is made, where that is known.
    """
    name, kind = model.name, model.record.reference
    if kind in (None, "kontext") and not any(each is not None and each.names_files for _, each in seen):
        return
    some = any(each is not None and each.picture is not None for _, each in seen)
    told: set[KeyPath] = set()
    for path, each in seen:
        if path in told:
            continue
        told.add(path)
        if each is not None and each.mask is not None and kind != "fill":
            yield Problem((*path, "mask"), f"is for Fill models, and the model is {name}", str(each.mask))
        elif each is None or each.picture is None:
            if some or kind not in (None, "kontext"):
                why = "each prompt needs one, or none" if some else f"{name} looks at a picture"
                by = ": name it, as in --reference cup.png" if path[-1] == "reference" else ""
                yield Problem(path if each is None else (*path, "picture"), f"missing: {why}{by}")
        elif kind is None:
            yield Problem((*path, "picture"), f"{name} looks at no picture", str(each.picture))
        else:
            yield from _file_problems(path, each, kind, size)


def beside_text(model: ModelChoice) -> Iterator[Problem]:
    """What keeps regions from a model that reads a picture as text."""
    if model.record.reference == "redux":
        yield Problem(
            (), f"have texts of their own, and {model.name} reads its picture as text: leave them out"
        )


def _file_problems(
    path: KeyPath, each: ReferenceKeys, kind: str, size: tuple[int, int] | None
) -> Iterator[Problem]:
    from flux.pictures.looked_at import picture_problem

    if (problem := picture_problem(kind, each.looked_at)) is not None:
        yield Problem((*path, problem[0]), problem[1])
    elif kind == "fill" and size is not None and (found := size_of(each.picture)) != size:
        yield Problem((*path, "picture"), size_problem(found, size), str(each.picture))


def size_problem(found: tuple[int, int], size: tuple[int, int]) -> str:
    """What is wrong with a picture to be filled, of a size, where another one is made."""
    made = "has {} x {} pixels, and {} x {} are made".format(*found, *size)
    return f"{made}: ask for the picture's width and height"


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a picture in a file."""
    return _size(picture, picture.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _size(picture: Path, changed: int) -> tuple[int, int]:
    from flux.pictures.opening import open_picture

    return open_picture(picture).size
