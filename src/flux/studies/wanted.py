"""Keys of what pictures are made from beside their prompts: a negative prompt, a photo, regions."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from flux.files import sha256_of
from flux.limits import MOST_GUIDANCE
from flux.photos.wanted import Place, RegionPlace, StartPhoto, Wanted, guidance_problem
from flux.strength import START_RULES, first_step
from flux.studies.given import APicture, Sha256, Sparse, changed_file, picture_file, read_box
from flux.studies.layers import LayerChoice, layer_numbers, layer_problems
from flux.studies.prompts import OnePrompt, Prompt
from flux.studies.spec import (
    BeforeValidator,
    Field,
    PlainValidator,
    Problem,
    Section,
    Several,
    Spec,
    ValidationInfo,
    below,
)

MOST_REGIONS = 64


def _place(whose: str) -> Any:
    """The type of a mask's file or a box in the pixels of a picture."""

    def read(value: Any, info: ValidationInfo) -> Place:
        if isinstance(value, list | tuple):
            return read_box(value, whose)
        if not isinstance(value, str | Path):
            raise ValueError("must be the path of a mask, or a box [x0, y0, x1, y1]")
        return picture_file(value, info)

    box = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=4, max_length=4)]
    return Annotated[Path | tuple[int, int, int, int], PlainValidator(read, json_schema_input_type=str | box)]


class StartMask(Sparse):
    """Where a photo is painted anew."""

    text_key: ClassVar[str] = "where"
    quiet: ClassVar[frozenset[str]] = frozenset({"sha256"})

    where: _place("photo") = Field(
        description="a picture of the photo's size, white where it is painted anew; or a box "
        "[x0, y0, x1, y1] in the photo's pixels"
    )
    sha256: Sha256 | None = Field(None, description="of the mask's file; another one is refused")

    @cached_property
    def digest(self) -> str | None:
        return sha256_of(self.where) if isinstance(self.where, Path) else None

    def problems(self) -> Iterator[Problem]:
        yield from changed_file(("where",), self.where, self.digest, self.sha256)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | ({"sha256": self.digest} if self.digest else {})


def _or_box(value: Any) -> Any:
    return {"where": value} if isinstance(value, list | tuple) else value


class StartChoice(Sparse):
    """A photo that sampling starts from."""

    text_key: ClassVar[str] = "image"
    quiet: ClassVar[frozenset[str]] = frozenset({"sha256"})

    image: APicture = Field(description="the photo, of any kind that Pillow opens and any size")
    strength: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="the share of the steps that is sampled: 1 keeps nothing of the photo but its mask"
    )
    mask: Annotated[
        StartMask | None, BeforeValidator(_or_box, json_schema_input_type=StartMask | list[int] | None)
    ] = Field(None, description="where it is painted anew (inpainting); null: everywhere")
    fit: Literal["crop", "pad"] = Field(
        "crop", description="the photo's middle, or all of it, in exactly width x height"
    )
    rule: Literal[tuple(START_RULES)] = Field(
        "upstream", description="whose rule says at which step a strength starts; they differ in roundings"
    )
    sha256: Sha256 | None = Field(None, description="of the photo's file; another one is refused")

    @cached_property
    def digest(self) -> str:
        return sha256_of(self.image)

    def problems(self) -> Iterator[Problem]:
        yield from changed_file(("image",), self.image, self.digest, self.sha256)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"sha256": self.digest}

    @property
    def photo(self) -> StartPhoto:
        mask = None if self.mask is None else self.mask.where
        return StartPhoto(self.image, self.strength, mask, self.fit, self.rule)


class RegionItem(Sparse):
    """A part of the picture that has a prompt of its own."""

    quiet: ClassVar[frozenset[str]] = frozenset({"sha256"})

    prompt: Prompt = Field(description="what the region shows")
    where: _place("picture") = Field(
        description="a box [x0, y0, x1, y1] in the picture's pixels, or a mask of its size, white where it is"
    )
    sha256: Sha256 | None = Field(None, description="of the mask's file; another one is refused")

    @cached_property
    def digest(self) -> str | None:
        return sha256_of(self.where) if isinstance(self.where, Path) else None

    def problems(self) -> Iterator[Problem]:
        yield from changed_file(("where",), self.where, self.digest, self.sha256)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | ({"sha256": self.digest} if self.digest else {})


RegionItems = Annotated[Several[RegionItem], Field(max_length=MOST_REGIONS)]


class RegionHow(Section):
    """How regions obey their prompts."""

    layers: LayerChoice = Field(
        "all", description="the layers in which they do; in others all read the whole prompt"
    )
    alone: bool = Field(False, description="regions read their own prompt alone, not the whole picture's too")
    apart: bool = Field(False, description="regions do not see each other")


class Guided(Sparse):
    """Keys of true classifier-free guidance."""

    negative_prompt: OnePrompt | None = Field(
        None, description='what pictures move away from, by true_cfg; may be ""'
    )
    true_cfg: Annotated[float | None, Field(ge=1, le=MOST_GUIDANCE)] = Field(
        None, description="how far they do, above 1: true classifier-free guidance, beside `guidance`"
    )
    two_passes: bool = Field(
        False, description="evaluate prompt and negative prompt one behind the other, in less memory"
    )

    def guidance_problems(self) -> Iterator[Problem]:
        if wrong := guidance_problem(self.negative_prompt, self.true_cfg):
            yield Problem((wrong[0],), wrong[1], getattr(self, wrong[0]))
        elif self.two_passes and self.true_cfg is None:
            yield Problem(("two_passes",), "is for true_cfg with a negative_prompt", True)


GUIDED = frozenset(Guided.model_fields)


def start_problems(start: StartChoice, spec: Spec) -> Iterator[Problem]:
    """What is wrong with a start that is known without opening the photo."""
    try:
        first_step(spec.steps, start.strength, start.rule)
    except ValueError as error:
        yield Problem(("strength",), str(error), start.strength)


def region_problems(
    regions: tuple[RegionItem, ...] | None, how: RegionHow | None, spec: Spec
) -> Iterator[Problem]:
    """What is wrong with regions of a picture of the spec's size; masks are opened later."""
    if how is not None:
        if regions is None:
            yield Problem(("regional",), "is for regions: give regions too")
        yield from below(("regional",), layer_problems(("layers",), how.layers, spec.model))
    for i, each in enumerate(regions or ()):
        if isinstance(each.where, Path):
            continue
        if each.where[2] > spec.width or each.where[3] > spec.height:
            text = f"lies outside a picture of {spec.width} x {spec.height} pixels"
            yield Problem(("regions", i, "where"), text, list(each.where))
            continue
        try:
            RegionPlace(each.prompt, each.where).weights((spec.width, spec.height))
        except ValueError as error:
            yield Problem(("regions", i, "where"), str(error), list(each.where))


def wanted_of(
    spec: Spec,
    guided: Guided,
    start: StartChoice | None = None,
    regions: tuple[RegionItem, ...] | None = None,
    how: RegionHow | None = None,
) -> Wanted:
    """What the keys of a spec say."""
    how = how or RegionHow()
    return Wanted(
        negative_prompt=guided.negative_prompt,
        true_cfg=guided.true_cfg,
        two_passes=guided.two_passes,
        start=None if start is None else start.photo,
        regions=tuple(RegionPlace(each.prompt, each.where) for each in regions or ()),
        layers=layer_numbers(how.layers, spec.model) if regions else ("all",),
        alone=how.alone,
        apart=how.apart,
    )
