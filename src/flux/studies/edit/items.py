"""Parts of demo 4's spec: how an edit looks at its source, and where it may change it."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from flux.files import sha256_of
from flux.flags import choices, nearest
from flux.limits import MOST_PIXELS, MOST_PROMPTS
from flux.methods import STRATEGIES
from flux.methods.tables import MASKS, SIDES, PartRecord
from flux.studies.edit.choices import setting_problems
from flux.studies.given import APicture, Box, Sha256, Sparse, changed_file, picture_file, read_box
from flux.studies.layers import LayerChoice
from flux.studies.prompts import OnePrompt, Prompt
from flux.studies.spec import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Problem,
    Section,
    Seeds,
    Several,
    Share,
    ValidationInfo,
    Window,
    WithJsonSchema,
    WrapValidator,
    whole,
)
from flux.studies.wanted import RegionItems

_PARAMETERS = {row.name: row.parameter for row in STRATEGIES if row.parameter is not None}


# How an edit looks at its source


def _parameter(name: str) -> Any:
    """The type of the key that holds a strategy's number."""
    known = _PARAMETERS[name]
    about = f'for "{name}": {known.about}'
    return Annotated[float | None, Field(ge=known.lowest, le=known.highest, description=about)]


class Strategy(Section):
    """What an injection copies from the source, and to which image tokens."""

    text_key: ClassVar[str] = "name"

    name: Literal[tuple(row.name for row in STRATEGIES)] = Field(
        STRATEGIES[0].name, description="; ".join(f"{row.name}: {row.about}" for row in STRATEGIES)
    )
    ratio: _parameter("ratio") = None
    threshold: _parameter("threshold") = None
    keys: bool = Field(True, description="copy the keys")
    values: bool = Field(True, description="copy the values")

    def problems(self) -> Iterator[Problem]:
        for name in _PARAMETERS:
            value = getattr(self, name)
            if value is None and self.name == name:
                yield Problem((name,), f'missing: strategy "{name}" needs it')
            if value is not None and self.name != name:
                yield Problem((name,), f'is for strategy "{name}", and the strategy is "{self.name}"', value)


FADES = ("linear", "cosine")
"""Strengths that go from 1 in the first step to 0 behind the last one."""


def _strength(value: Any, handler: Callable[[Any], Any]) -> Any:
    if isinstance(value, str):
        if value not in FADES:
            fades = " or ".join(FADES)
            raise ValueError(f"must be a number from 0 to 1, a list of them, one a step, {fades}")
        return str(value)
    if isinstance(value, list | tuple):
        if not value or any(type(each) not in (int, float) or not 0 <= each <= 1 for each in value):
            raise ValueError("must be numbers from 0 to 1, one a step")
        return tuple(float(each) for each in value)
    return handler(value)


Strength = Annotated[
    Share, WrapValidator(_strength, json_schema_input_type=Share | Literal[FADES] | Several[Share])
]
"""A number, a fade, or a number for each step."""


class RoleItem(Section):
    """How an edit looks at its source in some layers. What it leaves out, the edit or the spec says."""

    layers: LayerChoice = Field(
        description="the layers, as `layers` of the spec has them; of a layer the last role counts"
    )
    side: Literal[tuple(SIDES)] = Field(
        "everywhere", description="; ".join(f"{name}: {about}" for name, about in SIDES.items())
    )
    what: Literal["keys", "values", "both"] | None = Field(
        None, description="what is taken; null: what the strategy copies"
    )
    strength: Strength | None = Field(None, description="its own strength")
    window: Window | None = Field(None, description="its own step window")


Roles = Several[RoleItem]


def strength_problems(strength: Any, steps: int) -> Iterator[Problem]:
    """What is wrong with a strength for each step, in a run of so many steps."""
    if isinstance(strength, tuple) and len(strength) != steps:
        yield Problem((), f"has {len(strength)} entries, and there are {steps} steps", list(strength))


# Where it may change it


def _auto(value: Any) -> bool | str:
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("choose from auto, true, false")
    return value


Auto = Annotated[bool | str, PlainValidator(_auto), WithJsonSchema({"enum": ["auto", True, False]})]


class Pasting(Sparse):
    """Whether, and how, an edit comes back into the source's own pixels."""

    text_key: ClassVar[str] = "when"
    quiet: ClassVar[frozenset[str]] = frozenset({"residual"})

    when: Auto = Field("auto", description="true, false, or auto: if only a part changed")
    residual: Auto = Field(
        "auto",
        description="whether details that autoencoder and smaller size lose stay inside the mask as well; "
        "auto: where the edit drew nothing else",
    )


def _pasting(value: Any) -> Any:
    return {"when": value} if isinstance(value, bool) else value


APasting = Annotated[Pasting, BeforeValidator(_pasting, json_schema_input_type=Pasting | bool)]

FOUND = {row.name: row.settings.get("threshold") for row in MASKS}
"""Masks that are found, and the bounds of where they begin, if they have such a threshold."""


def _where(value: Any, info: ValidationInfo) -> str | Path | Box:
    if isinstance(value, str) and value in FOUND:
        return str(value)
    if isinstance(value, list | tuple):
        return read_box(value)
    if isinstance(value, str) and (near := nearest(value, FOUND)) and "." not in value:
        raise ValueError(f"did you mean {near}? choose from {', '.join(FOUND)}, a picture, or a box")
    if not isinstance(value, str | Path):
        raise ValueError(f"must be {', '.join(FOUND)}, the path of a picture, or a box [x0, y0, x1, y1]")
    return picture_file(value, info)


Where = Annotated[
    str | Path | Box,
    PlainValidator(
        _where,
        json_schema_input_type=str
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=4, max_length=4)],
    ),
]


class MaskChoice(Sparse):
    """Where an edit may change its source. Further keys are settings of a mask that is found."""

    model_config = ConfigDict(extra="allow")
    text_key: ClassVar[str] = "where"
    quiet: ClassVar[frozenset[str]] = frozenset({"threshold", "feather", "sha256"})

    where: Where = Field(
        description="auto, velocity or words; a picture of the source's size, white where it may change; "
        "or a box [x0, y0, x1, y1] in the source's pixels"
    )
    threshold: Annotated[float | None, Field(ge=0, le=10)] = Field(
        None, description="of auto and velocity: where the mask begins; null: its own"
    )
    feather: Annotated[float | None, Field(ge=0, le=MOST_PIXELS)] = Field(
        None, description="how softly it ends, in pixels of the picture as it is edited; null: as it is"
    )
    sha256: Sha256 | None = Field(None, description="of the picture's file; another one is refused")

    @cached_property
    def digest(self) -> str | None:
        return sha256_of(self.where) if isinstance(self.where, Path) else None

    @property
    def row(self) -> PartRecord | None:
        """What finds it; None for one that is given."""
        return next((row for row in MASKS if row.name == self.where), None)

    @property
    def settings(self) -> dict[str, float]:
        """The settings that the spec gives."""
        threshold = {} if self.threshold is None else {"threshold": self.threshold}
        return threshold | dict(self.model_extra or {})

    def problems(self) -> Iterator[Problem]:
        yield from changed_file(("where",), self.where, self.digest, self.sha256)
        yield from self._setting_problems()
        known = FOUND.get(self.where)
        if self.threshold is not None and known is None:
            able = ", ".join(name for name, bounds in FOUND.items() if bounds is not None)
            yield Problem(("threshold",), f"is for masks that have one: {able}", self.threshold)
        elif self.threshold is not None and not known.lowest <= self.threshold <= known.highest:
            text = f"must be between {known.lowest:g} and {known.highest:g}"
            yield Problem(("threshold",), text, self.threshold)

    def _setting_problems(self) -> Iterator[Problem]:
        """What is wrong with further keys."""
        known = {} if self.row is None else self.row.settings
        given = dict(self.model_extra or {})
        for key in [key for key in given if key not in known]:
            able = [*type(self).model_fields, *(name for name in known if name != "threshold")]
            yield Problem((key,), f"unknown key, {choices(able, key)}", given.pop(key))
        yield from setting_problems(str(self.where), known, given)

    def as_json(self) -> dict[str, Any]:
        digest = {"sha256": self.digest} if self.digest else {}
        return super().as_json() | dict(self.model_extra or {}) | digest


def mask_caption(mask: MaskChoice | None) -> str:
    """Of the picture of an edit's mask; None: there is none, and the picture shows the edit's own change."""
    own = mask is None or mask.where == "auto"
    return "mask: where it changed" if own else "mask: white may change"


def _mask(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        found = ", ".join(FOUND)
        raise ValueError(f"must be {found}, a picture, a box [x0, y0, x1, y1], or an object with where")
    return {"where": value} if isinstance(value, list | tuple) else value


AMask = Annotated[
    MaskChoice,
    BeforeValidator(_mask, json_schema_input_type=MaskChoice | list[int]),
]


def roles_in(spec: Any, edit: "EditItem") -> tuple[RoleItem, ...] | None:
    """The roles that an edit has, its own or the spec's; None where layers and outside stand instead."""
    if edit.roles is None and edit.layers is None and edit.outside is None:
        return spec.roles
    return edit.roles


def role_conflicts(item: Any) -> Iterator[Problem]:
    """What stands twice where layers have roles."""
    for name in ("layers", "outside") if item.roles is not None else ():
        if getattr(item, name) is not None:
            yield Problem((name,), "roles stand in its place: name one of both")


class EditItem(Sparse):
    """One edit. What it does not say itself, it takes from the spec."""

    text_key: ClassVar[str] = "prompt"
    quiet: ClassVar[frozenset[str]] = frozenset({"outside", "mask", "after", "prompt_2", "regions", "roles"})

    prompt: Prompt = Field(description="what the edited picture shows")
    seeds: Seeds | None = Field(None, description="several pairs of source and edit, one from each seed")
    layers: LayerChoice | None = Field(None, description="its own layers")
    strategy: Strategy | None = Field(None, description="its own strategy")
    strength: Strength | None = Field(None, description="its own strength")
    window: Window | None = Field(None, description="its own step window")
    outside: LayerChoice | None = Field(None, description="its own layers outside the mask")
    mask: AMask | None = Field(None, description="its own mask")
    after: whole(0, MOST_PROMPTS) | None = Field(
        None,
        description="in a chain, what it goes on from: 0, the source, or an edit's number; null: the one "
        "before it",
    )
    prompt_2: Prompt | None = Field(
        None, description="what T5 reads in the place of the prompt, while CLIP reads the prompt"
    )
    regions: RegionItems | None = Field(
        None,
        description="parts of the edited picture with prompts of their own, in the source's pixels",
    )
    roles: Roles | None = Field(None, description="its own roles, in the place of layers and outside")

    def problems(self) -> Iterator[Problem]:
        yield from role_conflicts(self)


# What is edited


class Source(Sparse):
    """The picture to edit."""

    text_key: ClassVar[str] = "prompt"
    quiet: ClassVar[frozenset[str]] = frozenset({"image", "sha256", "prompt_2"})

    prompt: OnePrompt = Field(description="what the source picture shows")
    image: APicture | None = Field(
        None,
        description="a photo, of any kind that Pillow opens and any size; null: the source is generated from "
        "its prompt",
    )
    sha256: Sha256 | None = Field(None, description="of the photo's file; another one is refused")
    prompt_2: Prompt | None = Field(
        None, description="what T5 reads in the place of the prompt, while CLIP reads the prompt"
    )

    @cached_property
    def digest(self) -> str | None:
        return None if self.image is None else sha256_of(self.image)

    def problems(self) -> Iterator[Problem]:
        yield from changed_file(("image",), self.image, self.digest, self.sha256)
        if self.image is not None and not self.prompt.strip():
            yield Problem(("prompt",), "must say what the photo shows, as edits do", self.prompt)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | ({"sha256": self.digest} if self.digest else {})
