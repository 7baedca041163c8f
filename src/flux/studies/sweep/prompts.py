"""A prompt of demo 2, and the picture that the model looks at for it."""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from flux.files import sha256_of
from flux.models import kontext_size
from flux.studies.given import APicture, Sha256, Sparse, changed_file
from flux.studies.prompts import PromptItem
from flux.studies.spec import Field, Problem

if TYPE_CHECKING:
    from flux.pictures.looked_at import LookedAt
    from flux.studies.sweep.spec import SkipSpec


class SweptPrompt(Sparse, PromptItem):
    """A prompt, its seed, and the picture that the model looks at."""

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
    def looked_at(self) -> "LookedAt | None":
        from flux.pictures.looked_at import LookedAt  # with Pillow, which most specs do not need

        return None if self.picture is None else LookedAt(self.picture, self.mask)


def looking_problems(spec: "SkipSpec") -> Iterator[Problem]:
    """Pictures that the model of a spec does not look at, or cannot, and those that it misses."""
    name, kind = spec.model.name, spec.model.record.reference
    if all(each.picture is None and each.mask is None for each in spec.prompts) and kind in (None, "kontext"):
        return
    from flux.pictures.looked_at import picture_problem
    from flux.pictures.opening import open_picture

    some = any(each.picture is not None for each in spec.prompts)
    for i, each in enumerate(spec.prompts):
        seen = each.looked_at
        if each.mask is not None and kind != "fill":
            yield Problem(
                ("prompts", i, "mask"), f"is for Fill models, and the model is {name}", str(each.mask)
            )
        elif seen is None:
            if some or kind not in (None, "kontext"):
                why = "each prompt needs one, or none" if some else f"{name} looks at a picture"
                yield Problem(("prompts", i, "picture"), f"missing: {why}")
        elif kind is None:
            yield Problem(("prompts", i, "picture"), f"{name} looks at no picture", str(each.picture))
        elif (problem := picture_problem(kind, seen)) is not None:
            yield Problem(("prompts", i, problem[0]), problem[1])
        elif kind == "fill" and (size := open_picture(each.picture).size) != (spec.width, spec.height):
            text = f"has {size[0]} x {size[1]} pixels, and {spec.width} x {spec.height} are made"
            yield Problem(("prompts", i, "picture"), text, str(each.picture))
    if kind == "kontext" and spec.batch > 1 and all(each.picture for each in spec.prompts):
        sizes = _sizes(spec)
        if len(sizes) > 1:
            told = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
            yield Problem(("batch",), f"pictures seen as {told} cannot run side by side: use 1", spec.batch)


def _sizes(spec: "SkipSpec") -> set[tuple[int, int]]:
    """The sizes in which Kontext sees the pictures of a spec; those that are none are told elsewhere."""
    from flux.pictures.looked_at import picture_problem
    from flux.pictures.opening import open_picture

    found = set()
    for each in spec.prompts:
        if picture_problem("kontext", each.looked_at) is None:
            found.add(kontext_size(*open_picture(each.picture).size))
    return found
