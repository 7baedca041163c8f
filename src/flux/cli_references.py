"""What the commands share whose models look at a picture: control, fill, kontext and redux."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from flux.cli_options import check_scale, checked, literal
from flux.cli_run import Make, Options, PictureOptions, Question, Session, ask_line, run
from flux.conditions import Conditions
from flux.flags import cut
from flux.generate import Sampling, decode, encode, sample_steps
from flux.model import FluxLoraWrapper
from flux.models import aspect_ratio_to_height_width
from flux.pictures.looked_at import LookedAt, own_size, picture_problem
from flux.pictures.referencing import find_projector, load_encoder, make_reference
from flux.placement.modes import Offload
from flux.references import Reference
from flux.util import Models, ModelSpec, configs

PATHS = {"picture": "img_cond_path", "mask": "img_mask_path"}
"""The options that name what `picture_problem` speaks of."""


@dataclass(frozen=True)
class Looking:
    """What sets a command apart.

    word: its name. models: those it takes. options: what one picture is made from. questions: of its loop.
    """

    word: str
    models: tuple[str, ...]
    options: type[PictureOptions]
    questions: tuple[Question, ...]

    def record(self, name: str) -> ModelSpec:
        """The record of a model; ValueError, with the choices, for one that the command does not take."""
        if name not in self.models:
            problem = f"is not for {self.word}" if name in configs else "is not a model"
            raise ValueError(f"name {cut(str(name))!r} {problem}; choose one of {', '.join(self.models)}")
        return configs[name]

    def kind(self, record: ModelSpec) -> str:
        """How the picture gets in; that of Redux into any model that starts from text."""
        return record.reference or self.word


def make_pictures(
    looking: Looking, given: Mapping[str, Any], guard: Callable[[Make], Make] = lambda make: make
) -> None:
    """All that a command does. given: its options by name, see `flux.cli_options.OPTIONS`.

    guard: stands around what makes pictures, once the models are loaded.
    Raises ValueError or OSError, one line, for what is wrong; before weights load where it can be known.
    """
    checked("trt", given.get("trt", False))
    record = looking.record(given["name"])
    options = _options(looking, record, given)
    kind = looking.kind(record)
    check_pictures(kind, options)
    projector = find_projector(given["weights"]) if kind == "redux" else None
    run(
        Session.of(given["name"], record, given),
        options,
        lambda models: guard(Looker(kind, models, projector).make),
        looking.questions,
        complete=lambda job: completed(kind, job),
    )


def _options(looking: Looking, record: ModelSpec, given: Mapping[str, Any]) -> PictureOptions:
    """What the first picture is made from. What is None is the model's own, or the picture's: a size."""
    values = {each.name: given.get(each.name) for each in fields(looking.options)}
    if values["num_steps"] is None:
        values["num_steps"] = record.num_steps
    if values["guidance"] is None:
        values["guidance"] = record.guidance or 0.0
    if (ratio := checked("aspect_ratio", given.get("aspect_ratio"))) is not None:
        values["width"], values["height"] = aspect_ratio_to_height_width(ratio)
    if "lora_scale" in values and record.lora_filename is None:
        values["lora_scale"] = None
    free = ("width", "height", "lora_scale")  # which may be None
    return looking.options(
        **{
            name: value if value is None and name in free else checked(name, value)
            for name, value in values.items()
        }
    )


def looked_at(options: PictureOptions) -> LookedAt:
    """The files that a picture is made from."""
    mask = getattr(options, "img_mask_path", None)
    return LookedAt(
        Path(options.img_cond_path).expanduser(), None if mask is None else Path(mask).expanduser()
    )


def check_pictures(kind: str, options: PictureOptions) -> None:
    """Raise ValueError, one line that names the option, for files that the model cannot look at."""
    problem = picture_problem(kind, looked_at(options))
    if problem is not None:
        part, why = problem
        raise ValueError(f"{PATHS[part]} {why}; name one by --{PATHS[part]}")


def completed(kind: str, options: Options) -> Options:
    """With the picture's own size where none is asked for."""
    if options.width is not None and options.height is not None:
        return options
    width, height = own_size(kind, looked_at(options).picture)
    return replace(options, width=options.width or width, height=options.height or height)


@dataclass
class Looker:
    """Makes pictures with references; the last one is kept, for a loop often goes on with it."""

    kind: str
    models: Models
    projector: Path | None = None
    encoder: Any = field(init=False)
    last: tuple[Any, Reference] | None = None

    def __post_init__(self) -> None:
        self.encoder = load_encoder(self.kind, self.models, self.projector)

    def make(self, models: Models, options: PictureOptions, *, offload: Offload = False) -> Tensor:
        """One picture, RGB in about [-1, 1], (1, 3, height, width), with a progress bar."""
        scale = getattr(options, "lora_scale", None)
        if scale is not None and isinstance(models.flow, FluxLoraWrapper):
            models.flow.set_lora_scale(scale)
        conditions = Conditions(references=(self.reference(options, offload),))
        prompts, seeds = [options.prompt], [options.seed]
        sampling = Sampling(options.num_steps, options.guidance, options.width, options.height)
        texts = encode(models, prompts, offload=offload)
        how = {"offload": offload, "conditions": conditions}
        steps = sample_steps(models, texts, prompts, seeds, sampling, **how)
        for step in tqdm(steps, total=options.num_steps, leave=False, disable=None):
            latent = step.after
        return decode(models, latent, sampling, offload=offload)

    def reference(self, options: PictureOptions, offload: Offload) -> Reference:
        seen = looked_at(options)
        key = (seen, options.height, options.width)
        if self.last is None or self.last[0] != key:
            made = make_reference(self.kind, self.models, *key, encoder=self.encoder, offload=offload)
            self.last = key, made
        return self.last[1]


# The questions of the loops


def ask_picture(options: Options, kind: str) -> Options | None:
    """Ask for the picture that the model looks at; None to quit. An empty line keeps the one there is."""
    return _ask_path(options, "img_cond_path", "picture to look at", kind, ("picture",))


def ask_mask(options: Options) -> Options | None:
    """Ask for the mask of the picture; None to quit. An empty line keeps the one there is."""
    return _ask_path(options, "img_mask_path", "mask, white to be filled", "fill", ("picture", "mask"))


def _ask_path(options: Options, name: str, what: str, kind: str, about: tuple[str, ...]) -> Options | None:
    """Ask until the file that an option names can be looked at. about: whose problems count."""
    while True:
        line = ask_line(f"{what} (/q to quit, empty: {getattr(options, name)}): ")
        if line is None:
            return None
        changed = replace(options, **{name: line}) if line else options
        problem = picture_problem(kind, looked_at(changed))
        if problem is None or problem[0] not in about:
            return changed
        print(problem[1])


def ask_scale(options: Options) -> Options | None:
    """Ask for the scale of the LoRA, for models with one; None to quit. An empty line keeps it."""
    while options.lora_scale is not None:
        line = ask_line(f"scale of the LoRA (/q to quit, empty: {options.lora_scale:g}): ")
        if not line:
            return None if line is None else options
        try:
            return replace(options, lora_scale=check_scale("lora_scale", literal(line)))
        except ValueError as error:
            print(error)
    return options
