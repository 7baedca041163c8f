"""What all specs share: frozen models by pydantic, the types of their keys, and which model runs.

class Source(Section):
    prompt: str = Field(description="what the source picture shows")

A key's type, bounds, default and description are what the reader checks, `--help` prints, and the JSON
Schemas say. No torch is needed. The only module that imports pydantic: the others take from here what they
need of it, so that all of them say the same where it is missing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from flux.flags import Typed
from flux.models import FROM_TEXT, LayerName, ModelSpec, configs

try:
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        PlainValidator,
        ValidationError,
        ValidationInfo,
        WithJsonSchema,
        model_validator,
    )
    from pydantic_core import InitErrorDetails, PydanticCustomError
except ImportError:
    raise ImportError('studies need pydantic 2: pip install "pydantic>=2.11"') from None

T = TypeVar("T")

# Mistakes

KeyPath = tuple[str | int, ...]
"""Where in a spec: keys and list positions, from the top."""

NOTHING = object()
"""The value of a key that is not there."""


class Problem(NamedTuple):
    """One mistake: where, what is wrong there, in words, and the value."""

    path: KeyPath
    text: str
    value: Any = NOTHING


def refusal(problems: Iterable[Problem]) -> ValidationError:
    """To be raised by a validator that finds mistakes at several places; for one place, raise ValueError."""
    details = [
        InitErrorDetails(type=PydanticCustomError("problem", "{text}", {"text": text}), loc=path, input=value)
        for path, text, value in problems
    ]
    return ValidationError.from_exception_data("spec", details)


def below(path: KeyPath, problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems of a value that stands at `path`."""
    return (Problem(path + problem.path, problem.text, problem.value) for problem in problems)


# Objects


def _with_text(schema: dict[str, Any], section: type["Section"]) -> None:
    """In the JSON Schema of a section with a `text_key`: a text, or the object."""
    if section.text_key:
        body = dict(schema)
        schema.clear()
        schema["anyOf"] = [{"type": "string"}, body]


class Section(BaseModel):
    """An object with a fixed set of keys. text_key: what a bare text in its place is the value of."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        json_schema_extra=_with_text,
    )
    text_key: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _object(cls, data: Any) -> Any:
        if cls.text_key and isinstance(data, str):
            return {cls.text_key: data}
        # "$schema" is for editors.
        return {key: data[key] for key in data if key != "$schema"} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _right_together(self) -> "Section":
        problems = list(self.problems())
        if problems:
            raise refusal(problems)
        return self

    def problems(self) -> Iterator[Problem]:
        """What is wrong between keys that are right by themselves."""
        return iter(())

    def as_json(self) -> dict[str, Any]:
        """As plain JSON that reads as an equal section from any folder."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.as_json()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


# Types of keys

MORE_THAN_ANY_SEED = 2**63


def _whole_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be text: it holds half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_whole_characters)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=16, multiple_of=16)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=MORE_THAN_ANY_SEED - 1)]

Several = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]
"""A list in JSON, with an entry at least."""


def _distinct(value: tuple) -> tuple:
    twice = [i for i, entry in enumerate(value) if entry in value[:i]]
    if twice:
        raise refusal(Problem((i,), "stands here twice", value[i]) for i in twice)
    return value


Distinct = Annotated[Several[T], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]
"""A list with no entry twice."""


def or_one(kind: Any) -> BeforeValidator:
    """For a list of `kind`, as Annotated[Several[str], or_one(str)]: what is no list is its only entry."""
    return BeforeValidator(
        lambda value: value if isinstance(value, list | tuple) else [value],
        json_schema_input_type=Several[kind] | kind,
    )


def absolute(text: str, info: ValidationInfo) -> Path:
    """A path: in a spec relative to its folder, typed on the command line to the working directory.

    Raises ValueError for what no file can be called.
    """
    folder = Path(".") if isinstance(text, Typed) else info.context or Path(".")
    try:
        path = Path(os.path.abspath(folder / Path(text).expanduser()))
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot be a path ({reason})") from None
    return path


def _path(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must be a path, as text")
    return value if isinstance(value, Path) else absolute(value, info)


def _existing(value: Any, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if not path.exists():
        raise ValueError(f"no such file or folder: {path}")
    return path


def _folder(value: Any, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder" if path.exists() else f"no such folder: {path}")
    return path


def _hub_or_folder(value: Any, info: ValidationInfo) -> Any:
    """A folder's absolute path where there is such a folder, else the text as it stands."""
    place = absolute(_whole_characters(value), info) if isinstance(value, str) else None
    return str(place) if place is not None and place.is_dir() else value


_TEXT = WithJsonSchema({"type": "string"})
AnyPath = Annotated[Path, PlainValidator(_path), _TEXT]
ExistingPath = Annotated[Path, PlainValidator(_existing), _TEXT]
Folder = Annotated[Path, PlainValidator(_folder), _TEXT]
HubOrFolder = Annotated[Text, BeforeValidator(_hub_or_folder)]


def _device(value: Any) -> str:
    name, colon, number = value.partition(":") if isinstance(value, str) else ("", "", "")
    if name not in ("auto", "cpu", "mps", "cuda") or (colon and not (name == "cuda" and number.isdecimal())):
        raise ValueError("choose from auto, cpu, mps, cuda, cuda:0, cuda:1 and so on")
    return str(value)


Device = Annotated[
    str,
    PlainValidator(_device),
    WithJsonSchema({"type": "string", "pattern": "^(auto|cpu|mps|cuda(:[0-9]+)?)$"}),
]

NOT_A_LAYER = "must be a layer's number or its name, such as double.3"


def is_layer_name(value: Any) -> bool:
    """Whether it can be one; whether the model has the layer is asked later."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _layer(value: Any) -> LayerName:
    if not is_layer_name(value):
        raise ValueError(NOT_A_LAYER)
    return value


ALayer = Annotated[LayerName, PlainValidator(_layer), WithJsonSchema({"type": ["integer", "string"]})]


# The spec


class ModelChoice(Section):
    """Which model runs, and where."""

    text_key: ClassVar[str] = "name"

    name: Literal[FROM_TEXT] = Field("flux-tiny", description="the model")
    weights: Folder | None = Field(
        None,
        description="a folder with all its weights, such as a clone of FLUX.1-dev; null: where upstream "
        "looks for them",
    )
    device: Device = Field(
        "auto", description="auto, cpu, mps, cuda or cuda:1; auto is CUDA where there is one"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the weights; auto is bfloat16 on CUDA and float32 elsewhere"
    )
    offload: bool = Field(False, description="keep on the device only the part that is at work")

    @property
    def record(self) -> ModelSpec:
        return configs[self.name]


def _or_models(name: str) -> AfterValidator:
    """For a key whose null stands for what the model's record has under this name."""

    def complete(value: float | None, info: ValidationInfo) -> float | None:
        if value is not None or "model" not in info.data:  # a wrong model is a mistake already
            return value
        return getattr(info.data["model"].record, name)

    return AfterValidator(complete)


class StudySpec(Section):
    """What a demo is asked for, the whole of a spec's file."""

    demo: ClassVar[str]

    @classmethod
    def from_flags(cls, flags: dict[str, Any]) -> dict[str, Any]:
        """The keys of the spec that were meant by what was typed."""
        return flags

    def recipe(self) -> dict[str, Any]:
        """What decides the outcome, as plain JSON that reads as the same spec again wherever it is put."""
        return {name: value for name, value in self.as_json().items() if name not in ("output", "overwrite")}


class Spec(StudySpec):
    """What every spec holds that makes pictures.

    Paths are relative to the spec's folder, on the command line to the working directory.
    """

    model: ModelChoice = Field("flux-tiny", validate_default=True, description="the model and where it runs")
    steps: Annotated[Count | None, _or_models("num_steps")] = Field(
        None, validate_default=True, description="sampling steps; null: the model's own number"
    )
    guidance: Annotated[Annotated[float, Field(ge=0)] | None, _or_models("guidance")] = Field(
        None,
        validate_default=True,
        description="how strictly the prompt is followed; null: the model's own value",
    )
    width: Annotated[Pixels | None, _or_models("size")] = Field(
        None, validate_default=True, description="in pixels, a multiple of 16; null: the model's own size"
    )
    height: Annotated[Pixels | None, _or_models("size")] = Field(
        None, validate_default=True, description="in pixels, a multiple of 16; null: the model's own size"
    )
    output: AnyPath | None = Field(
        None,
        description="folder of the run; null: output/<demo>/<name of the spec> in the working directory. "
        "Where it holds a run of another spec, a number is added",
    )
    overwrite: bool = Field(False, description="make a finished run again")

    def problems(self) -> Iterator[Problem]:
        if self.model.record.guidance is None and self.guidance is not None:
            yield Problem(("guidance",), f"{self.model.name} takes no guidance: use null", self.guidance)
