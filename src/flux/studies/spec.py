"""What all specs share: frozen models by pydantic, the types of their keys, and which model runs.

class Source(Section):
    prompt: str = Field(description="what the source picture shows")

A key's type, bounds, default and description are what the reader checks, `--help` prints, and the JSON
Schemas say. No torch is needed. The only module that imports pydantic: the others take from here what they
need of it, so that all of them say the same where it is missing.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from flux.confined import is_confined, require_within
from flux.flags import Typed, cut
from flux.formats.header import CheckpointError
from flux.integrators import INTEGRATORS, IntegratorRecord, integrator_record
from flux.limits import (
    DRAW,
    MOST_GUIDANCE,
    MOST_PIXELS,
    MOST_PROMPTS,
    MOST_ROWS,
    MOST_SEED,
    MOST_SEEDS,
    MOST_STEPS,
    SEED_RANGE,
    Drawn,
    draw_seed,
)
from flux.lora.choice import MOST_SCALE, choices_of_environment, split_scale
from flux.lora.plan import plan_lora
from flux.models import LayerName, ModelSpec, configs
from flux.placement.modes import OFFLOADS, STREAM_PATTERN, Offload, offload_key
from flux.precision.choice import BITS, FULL, PRECISIONS, Precision, kept
from flux.text_files import check_encodable

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
        WrapValidator,
        model_validator,
    )
    from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
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


def dotted(path: KeyPath) -> str:
    """`("edits", 0, "layers", 2)` as `edits[0].layers[2]`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{cut(key)}" for key in path)
    return text.removeprefix(".")


# Objects


def _with_text(schema: dict[str, Any], section: type["Section"]) -> None:
    """In the JSON Schema of a section with a `text_key`: a text, or the object."""
    if section.text_key:
        body = dict(schema)
        schema.clear()
        schema["anyOf"] = [{"type": "string"}, body]


class Section(BaseModel):
    """An object with a fixed set of keys. text_key: what a bare text in its place is the value of.

    further_text_key: the same of a bare text under a key that is not among the fixed ones, if it takes any.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        json_schema_extra=_with_text,
    )
    text_key: ClassVar[str | None] = None
    further_text_key: ClassVar[str | None] = None

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

    def drawn(self) -> Iterator[tuple[KeyPath, int]]:
        """Where seeds stand that were drawn, and the seeds."""
        for name in type(self).model_fields:
            yield from _drawn((name,), getattr(self, name))

    def as_json(self) -> dict[str, Any]:
        """As plain JSON that reads as an equal section from any folder."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields}


def _drawn(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(value, Drawn):
        yield path, value
    elif isinstance(value, Section):
        yield from ((path + below, seed) for below, seed in value.drawn())
    elif isinstance(value, tuple):
        for i, entry in enumerate(value):
            yield from _drawn((*path, i), entry)


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.as_json()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


# Types of keys


def whole_text(text: str) -> str:
    """The text; ValueError for one that no file and no tokenizer takes."""
    check_encodable(text)
    return text


def whole(lowest: int, highest: int) -> Any:
    """The type of whole numbers within bounds."""
    return Annotated[int, Field(ge=lowest, le=highest)]


Text = Annotated[str, AfterValidator(whole_text)]
Steps = whole(1, MOST_STEPS)
Rows = whole(1, MOST_ROWS)
Pixels = Annotated[int, Field(ge=16, le=MOST_PIXELS, multiple_of=16)]
Guidance = Annotated[float, Field(ge=0, le=MOST_GUIDANCE)]
Share = Annotated[float, Field(ge=0, le=1)]

Several = Annotated[tuple[T, ...], Field(strict=False, min_length=1, max_length=MOST_PROMPTS)]
"""A list in JSON, with an entry at least."""


def _distinct(value: tuple) -> tuple:
    seen: set[Any] = set()
    twice = [i for i, entry in enumerate(value) if entry in seen or seen.add(entry)]
    if twice:
        raise refusal(Problem((i,), "stands here twice", value[i]) for i in twice)
    return value


Distinct = Annotated[Several[T], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]
"""A list with no entry twice."""


def bare(value: Any, entries: list[Any], handler: Callable[[Any], Any]) -> Any:
    """The entries of a list that `value`, which is no list, stands for. What is wrong is wrong with it."""
    try:
        return handler(entries)
    except ValidationError as error:
        raise ValidationError.from_exception_data("spec", [_above(each) for each in error.errors()]) from None


def _above(error: ErrorDetails) -> InitErrorDetails:
    """A mistake in an entry of a list, at the place of the list."""
    kind, context = error["type"], error.get("ctx", {})
    kept = PydanticCustomError("problem", "{text}", context) if kind == "problem" else kind
    return InitErrorDetails(type=kept, loc=error["loc"][1:], input=error["input"], ctx=context)


def or_one(kind: Any) -> WrapValidator:
    """For a list of `kind`, as Annotated[Several[str], or_one(str)]: what is no list is its only entry."""
    return WrapValidator(
        lambda value, handler: (
            handler(value) if isinstance(value, list | tuple) else bare(value, [value], handler)
        ),
        json_schema_input_type=Several[kind] | kind,
    )


# Steps


def _window(value: Any) -> tuple[int, int]:
    numbers = isinstance(value, list | tuple) and all(type(step) is int for step in value)
    if not numbers or len(value) != 2 or not 0 <= value[0] < value[1]:
        raise ValueError("must be [start, stop], two whole numbers with 0 <= start < stop")
    return tuple(value)


Window = Annotated[
    tuple[int, int],
    PlainValidator(_window),
    WithJsonSchema(
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}
    ),
]
"""Sampling steps from `start` to before `stop`."""

# Seeds


def _seed(value: Any) -> int:
    if type(value) is not int and not isinstance(value, Drawn):
        raise ValueError("must be a whole number")
    if not DRAW <= value <= MOST_SEED:
        raise ValueError(f"must be {SEED_RANGE}")
    return draw_seed() if value == DRAW else value


Seed = Annotated[
    int,
    PlainValidator(_seed),
    WithJsonSchema({"type": "integer", "minimum": DRAW, "maximum": MOST_SEED}),
]
"""-1 is drawn when the spec is read, and what was drawn stands in the spec from then on."""

SEED_WORD = re.compile(r"(-?[0-9]{1,30})|([0-9]{1,30})-([0-9]{1,30})")
TOO_MANY_SEEDS = f"must have at most {MOST_SEEDS} entries"


def _seeds(value: Any, handler: Callable[[Any], Any]) -> Any:
    if not isinstance(value, list | tuple):
        words = re.split(r"[\s,]+", value.strip(" \t,")) if isinstance(value, str) else [value]
        return bare(value, _numbers(words), handler)
    numbers = _numbers(value)
    return handler(numbers) if len(numbers) == len(value) else bare(value, numbers, handler)


def _numbers(entries: Iterable[Any]) -> list[Any]:
    """Entries with the numbers that texts as `0` and `0-3` stand for; other texts stay, and are refused."""
    numbers: list[Any] = []
    for entry in entries:
        word = SEED_WORD.fullmatch(entry) if isinstance(entry, str) else None
        if word is None:
            numbers.append(entry)
            continue
        first, last = (int(word[1]),) * 2 if word[1] else (int(word[2]), int(word[3]))
        if first > last:
            raise ValueError("a range goes from its lower seed to its higher one")
        if len(numbers) + last - first >= MOST_SEEDS:
            raise ValueError(TOO_MANY_SEEDS)
        numbers += range(first, last + 1)
    return numbers


def _few(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(value) > MOST_SEEDS:
        raise ValueError(TOO_MANY_SEEDS)
    return value


Seeds = Annotated[
    Distinct[Seed],
    AfterValidator(_few),
    WrapValidator(_seeds, json_schema_input_type=Distinct[Seed | str] | Seed | str),
]
"""A list of numbers, one number, or both as text: `0 1 2`, `0,1`, `0-3`."""

# Paths


def folder_of(text: str, info: ValidationInfo) -> Path:
    """What a path is relative to: of what was typed, the working directory, else the spec's folder."""
    return Path(".") if isinstance(text, Typed) else info.context or Path(".")


def absolute(text: str, info: ValidationInfo) -> Path:
    """A path: in a spec relative to its folder, typed on the command line to the working directory.

    Raises ValueError for what no file can be called, and for what lies elsewhere than `flux.confined` allows.
    """
    try:
        path = Path(os.path.abspath(folder_of(text, info) / Path(whole_text(text)).expanduser()))
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot be a path ({reason})") from None
    require_within(path)
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
    if is_confined() and value in ("auto", "off"):
        return value  # the keys' own words; as folders they lie outside
    place = absolute(whole_text(value), info) if isinstance(value, str) else None
    return str(place) if place is not None and place.is_dir() else value


_TEXT = WithJsonSchema({"type": "string"})
AnyPath = Annotated[Path, PlainValidator(_path), _TEXT]
ExistingPath = Annotated[Path, PlainValidator(_existing), _TEXT]
Folder = Annotated[Path, PlainValidator(_folder), _TEXT]
HubOrFolder = Annotated[Text, BeforeValidator(_hub_or_folder)]


def _device(value: Any) -> str:
    name, colon, number = value.partition(":") if isinstance(value, str) else ("", "", "")
    numbered = name == "cuda" and re.fullmatch("[0-9]{1,2}", number)
    if name not in ("auto", "cpu", "mps", "cuda") or (colon and not numbered):
        raise ValueError("choose from auto, cpu, mps, cuda, cuda:0, cuda:1 and so on")
    return str(value)


Device = Annotated[
    str,
    PlainValidator(_device),
    WithJsonSchema({"type": "string", "pattern": "^(auto|cpu|mps|cuda(:[0-9]{1,2})?)$"}),
]


def _offload(value: Any) -> Offload:
    if not isinstance(value, bool | str):
        raise ValueError(NOT_AN_OFFLOAD)
    try:
        return offload_key(value)
    except ValueError:
        raise ValueError(NOT_AN_OFFLOAD) from None


NOT_AN_OFFLOAD = f"must be true or false, or one of {', '.join(OFFLOADS)}"
OFFLOAD_ABOUT = (
    "none, false: all stays on the device; encoders, true: only the part that is at work; modulation: that "
    "without its modulation layers; stream: a few blocks of it at a time, stream:12: while 12 stay; auto: "
    "what fits"
)
Offloading = Annotated[
    Offload,
    PlainValidator(_offload),
    WithJsonSchema(
        {"anyOf": [{"enum": [False, True, *OFFLOADS]}, {"type": "string", "pattern": STREAM_PATTERN}]}
    ),
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


# LoRAs


class LoraItem(Section):
    """A LoRA and how strong it is; a bare text is its file, or `file:scale`."""

    text_key: ClassVar[str] = "file"

    file: ExistingPath = Field(description="the LoRA's file, or the folder that holds it")
    scale: Annotated[float, Field(ge=-MOST_SCALE, le=MOST_SCALE)] = Field(
        1.0, description="how strong: 1 is as it was trained, 0 nothing"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_scale(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        path, scale = split_scale(data)
        path = type(data)(path)  # typed texts stay typed
        return {"file": path} if scale is None else {"file": path, "scale": scale}


MOST_LORAS = 32


def _loras(value: Any, handler: Callable[[Any], Any]) -> Any:
    if isinstance(value, list | tuple) or value is None:
        return handler(value)
    words = value.split(",") if isinstance(value, str) and not os.path.exists(value) else [value]
    return bare(value, [type(value)(word) for word in words] if len(words) > 1 else [value], handler)


def _or_of_environment(value: Any, info: ValidationInfo) -> Any:
    """For null, what FLUX_LORA names. Of a model of the package, whatever does not fit is left to loading."""
    if value is not None or "name" not in info.data:
        return value
    record = configs[info.data["name"]]
    if record.lora_filename:
        return None
    try:
        found = choices_of_environment()
        if record.embedded:
            for each in found:
                plan_lora(each.path, record)
    except ValueError:
        if record.embedded:
            return None
        raise
    whole = ({"file": Path(os.path.abspath(each.path)), "scale": each.scale} for each in found)
    return tuple(map(LoraItem.model_validate, whole)) or None


Loras = Annotated[
    Annotated[tuple[LoraItem, ...], Field(strict=False, max_length=MOST_LORAS)] | None,
    WrapValidator(_loras, json_schema_input_type=tuple[LoraItem, ...] | LoraItem | None),
    AfterValidator(_or_of_environment),
]

# The precision


class PrecisionChoice(Section):
    """How exact weights are kept; a bare text is that of all of them."""

    text_key: ClassVar[str] = "others"

    others: Literal[PRECISIONS] = Field(
        description="of the weights of the flow model's and T5's layers: a dtype, or int8, fp8 and nf4 (4 "
        "bits), which compute in the dtype"
    )
    keep: ExistingPath | None = Field(
        None,
        description="a file of demo 3 that ranks layers of the flow model, which stay in full: "
        "vital_layers.json, probe_layers.json, editing_layers.json",
    )
    count: whole(1, 1000) | None = Field(
        None, description="how many of them, what matters most first; null: as many as a vital set has"
    )

    def problems(self) -> Iterator[Problem]:
        if self.keep is not None and self.others in FULL:
            yield Problem(("keep",), f"{self.others} is full for all layers: choose int8, fp8 or nf4")
        if self.count is not None and self.keep is None:
            yield Problem(("count",), "needs keep, the file that ranks the layers", self.count)

    def as_json(self) -> Any:
        return self.others if self.keep is None else super().as_json()

    def of(self, record: ModelSpec, name: str) -> Precision:
        """What it comes to for a model. Raises ValueError, one line, that begins with the key."""
        keep = () if self.keep is None else kept(self.keep, self.count, record, name)
        return Precision(self.others, keep)


# The spec


class ModelChoice(Section):
    """Which model runs, and where."""

    text_key: ClassVar[str] = "name"

    name: Literal[tuple(configs)] = Field("flux-tiny", description="the model")
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
    offload: Offloading = Field(False, description=OFFLOAD_ABOUT)
    lora: Loras = Field(
        None,
        validate_default=True,
        description='LoRA files, each with its scale: "style.safetensors:0.8", or a list; typed, --lora is '
        "enough; null: what FLUX_LORA names, [] none",
    )
    lora_live: bool = Field(
        False, description="keep LoRAs beside the weights, which stay as they are, and do not merge them"
    )
    precision: PrecisionChoice | None = Field(
        None,
        description='how exact weights are kept: "int8", "fp8", "nf4" or a dtype, or an object; null: as the '
        "files have them, so that GGUF files stay packed",
    )
    compile: bool = Field(False, description="compile the flow model's blocks, which pays off in long runs")
    attention: Literal["sdpa", "cudnn", "flash3"] = Field(
        "sdpa", description="the kernel of attention: what torch picks, cuDNN's, or FlashAttention 3"
    )

    def problems(self) -> Iterator[Problem]:
        for i, each in enumerate(self.lora or ()):
            try:
                plan_lora(each.file, self.record, self.name)
            except CheckpointError as error:
                yield Problem(("lora", i, "file"), str(error))
        if self.precision is not None:
            if self.precision.others in FULL and self.dtype not in ("auto", self.precision.others):
                yield Problem(("precision",), f"dtype is {self.dtype}: leave one out", self.precision.others)
            try:
                self.kept_in()
            except ValueError as error:
                key, _, said = str(error).partition(" ")
                key = key.rstrip(":")
                value = getattr(self.precision, key, None)
                yield Problem(("precision", key), said, str(value) if key == "keep" else value)

    def kept_in(self) -> Precision | None:
        """The precision that the weights are kept in. Raises ValueError, one line."""
        return None if self.precision is None else self.precision.of(self.record, self.name)

    @property
    def computes_in(self) -> str:
        """The name of the dtype, or "auto"."""
        return (
            self.dtype if self.precision is None or self.precision.others in BITS else self.precision.others
        )

    def as_json(self) -> dict[str, Any]:
        """Without what is not there, LoRAs and a precision, as it was written before there could be any."""
        whole = super().as_json()
        unused = ("lora", "lora_live") if not self.lora else ()
        unused += ("precision",) if self.precision is None else ()
        unused += tuple(name for name in ("compile", "attention") if name not in self.faster())
        return {key: value for key, value in whole.items() if key not in unused}

    def faster(self) -> dict[str, Any]:
        """What is chosen of `flux.speed`, by key; {} where nothing is."""
        kernel = {} if self.attention == "sdpa" else {"attention": self.attention}
        return ({"compile": True} if self.compile else {}) | kernel

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


_GIVEN = {key: bounds for row in INTEGRATORS for key, bounds in row.settings.items()}
"""Settings of integrators, with their bounds."""


def _setting_of_integrator(name: str) -> Any:
    lowest, highest = _GIVEN[name]
    return Annotated[type(lowest) | None, Field(ge=lowest, le=highest)]


class IntegratorItem(Section):
    """By which rule velocities are followed; a bare text is its name."""

    text_key: ClassVar[str] = "name"

    name: Literal[tuple(row.name for row in INTEGRATORS)] = Field(
        "euler", description="the integrator; see docs/methods.md"
    )
    iterations: _setting_of_integrator("iterations") = Field(
        None, description="of fixed-point: evaluations a step, at most; null: 2"
    )
    tolerance: _setting_of_integrator("tolerance") = Field(
        None, description="of fixed-point: a change so small, relative to the latent, ends a step"
    )

    @property
    def settings(self) -> dict[str, float]:
        """Those that are given."""
        return {key: value for key in _GIVEN if (value := getattr(self, key)) is not None}

    @property
    def record(self) -> IntegratorRecord:
        return integrator_record({"name": self.name, **self.settings})

    @property
    def choice(self) -> str | IntegratorRecord:
        """As `flux.generate.Sampling` takes it."""
        return self.record if self.settings else self.name

    @property
    def in_words(self) -> str:
        given = ", ".join(f"{key} {value:g}" for key, value in self.settings.items())
        return f"{self.name} ({given})" if given else self.name

    def problems(self) -> Iterator[Problem]:
        known = integrator_record(self.name).settings
        for key, value in self.settings.items():
            if key not in known:
                able = ", ".join(row.name for row in INTEGRATORS if key in row.settings)
                yield Problem((key,), f"is for {able}, and the integrator is {self.name}", value)

    def as_json(self) -> Any:
        """A bare name where nothing else is given."""
        return {"name": self.name, **self.settings} if self.settings else self.name


class StudySpec(Section):
    """What a demo is asked for, the whole of a spec's file."""

    demo: ClassVar[str]

    @classmethod
    def from_flags(cls, flags: dict[str, Any]) -> dict[str, Any]:
        """The keys of the spec that were meant by what was typed."""
        return flags

    @classmethod
    def require_alone(cls, flags: dict[str, Any]) -> None:
        """Raise UsageError for flags that mean nothing over the demo's own spec, where no other was named."""

    def notes(self) -> Iterator[str]:
        """What a user should know before anything is made, a line each."""
        for path, seed in self.drawn():
            yield f"{dotted(path)} is {seed}, which was drawn"

    def recipe(self) -> dict[str, Any]:
        """What decides the outcome, as plain JSON that reads as the same spec again wherever it is put."""
        return {name: value for name, value in self.as_json().items() if name not in ("output", "overwrite")}


class Spec(StudySpec):
    """What every spec holds that makes pictures.

    Paths are relative to the spec's folder, on the command line to the working directory.
    """

    model: ModelChoice = Field("flux-tiny", validate_default=True, description="the model and where it runs")
    steps: Annotated[Steps | None, _or_models("num_steps")] = Field(
        None, validate_default=True, description="sampling steps; null: the model's own number"
    )
    guidance: Annotated[Guidance | None, _or_models("guidance")] = Field(
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
    integrator: IntegratorItem = Field(
        "euler", validate_default=True, description="by which rule pictures are sampled"
    )
    output: AnyPath | None = Field(
        None,
        description="folder of the run; null: output/<demo>/<name of the spec> in the working directory. "
        "Where it holds a run of another spec, a number is added",
    )
    overwrite: bool = Field(False, description="make a finished run again")

    @property
    def looks(self) -> bool:
        """Whether its model looks at a picture."""
        return False

    def notes(self) -> Iterator[str]:
        yield from super().notes()
        if (note := self.model.record.size_note(self.width, self.height)) is not None:
            yield f"{self.model.name} {note}"

    def as_json(self) -> dict[str, Any]:
        """Without the integrator of those that came before there was a choice."""
        whole = super().as_json()
        return {key: value for key, value in whole.items() if (key, value) != ("integrator", "euler")}

    def problems(self) -> Iterator[Problem]:
        if self.model.record.guidance is None and self.guidance is not None:
            yield Problem(("guidance",), f"{self.model.name} takes no guidance: use null", self.guidance)
