"""The one loop of every command: load, make picture by picture, save, and ask for the next."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from flux.cli_options import (
    check_guidance,
    check_prompt,
    check_seed,
    check_size,
    check_steps,
    checked,
    escaped,
    literal,
    prompts_in,
    writable_folder,
)
from flux.limits import draw_seed
from flux.outcome import say
from flux.pictures.files import next_index, save_image
from flux.pictures.safety import NSFW_THRESHOLD, Classifier, load_nsfw_classifier
from flux.pictures.usage import track_usage_via_api
from flux.placement.modes import AUTO, Offload
from flux.placement.peaks import Demand
from flux.precision.choice import Precision, as_precision
from flux.util import Models, ModelSpec, load_models


@dataclass
class PictureOptions:
    """What one picture is made from, by any command; `seed` None draws one."""

    prompt: str
    width: int
    height: int
    num_steps: int
    guidance: float
    seed: int | None


Options = TypeVar("Options", bound=PictureOptions)

Make = Callable[..., Tensor | None]
"""`make(models, options, offload=...)`: the picture, RGB in about [-1, 1], (1, 3, H, W); None for none."""

Question = Callable[[Options], Options | None]
"""Asks on the terminal for a part of the next picture's options; None to quit."""


@dataclass(frozen=True)
class Tools:
    """What a run works with. A command whose module clients patch hands on what stands in it."""

    load_models: Callable[..., Models]
    load_classifier: Callable[..., Classifier | None]
    next_index: Callable[[str | Path], int]
    save_image: Callable[..., int]


@dataclass(frozen=True)
class Session:
    """What all pictures of a run have in common, checked; see `flux.cli_options.OPTIONS`."""

    name: str
    spec: ModelSpec
    device: str
    dtype: str
    weights: str | None
    loop: bool
    offload: Offload
    output_dir: str
    add_sampling_metadata: bool
    track_usage: bool
    lora: str | Sequence[str] | None
    lora_live: bool
    precision: Precision | None

    @classmethod
    def of(cls, name: str, spec: ModelSpec, given: Mapping[str, Any]) -> "Session":
        """From the options of a command by name, of which it takes its own. ValueError as their checks."""
        own = [each.name for each in fields(cls) if each.name not in ("name", "spec")]
        values = {each: checked(each, given[each]) for each in own}
        values["precision"] = as_precision(values["precision"], spec, name)
        return cls(name, spec, **values)


def each_prompt(options: Options) -> Iterator[Options]:
    """The pictures that options ask for: one of each prompt, with its own seed if it has one."""
    for prompt, own in prompts_in(options.prompt):
        yield replace(options, prompt=prompt, seed=options.seed if own is None else own)


def texts_of(options: PictureOptions) -> list[str]:
    """All texts that the encoders will be asked for."""
    return [text for text, _ in prompts_in(options.prompt)]


def run(
    session: Session,
    options: Options,
    ready: Callable[[Models], Make],
    questions: tuple[Question, ...],
    *,
    pictures: Callable[[Options], Iterable[Options]] = each_prompt,
    texts: Callable[[Options], list[str]] = texts_of,
    complete: Callable[[Options], Options] = lambda options: options,
    tools: Tools | None = None,
) -> None:
    """Make the pictures that are asked for and save them as <output_dir>/img_<number>.jpg.

    ready: is given the loaded models, and returns what makes a picture. questions: of the loop, in turn.
    pictures: those that options ask for, each with a seed, or None for one that is drawn.
    complete: fills in what the options leave to the picture that the model looks at.
    """
    tools = tools or Tools(load_models, load_nsfw_classifier, next_index, save_image)
    first = complete(options)
    if (note := session.spec.size_note(first.width, first.height)) is not None:
        say(f"note: {session.name} {note}")
    output_name = os.path.join(escaped(writable_folder(session.output_dir)), "img_{idx}.jpg")
    demand = {}
    if session.offload == AUTO:
        demand["demand"] = Demand(1, first.width, first.height, first.num_steps)
    models = tools.load_models(
        session.name,
        device=session.device,
        dtype=session.dtype,
        weights=session.weights,
        offload=session.offload,
        prompts=None if session.loop else texts(options),
        lora=session.lora,
        lora_live=session.lora_live,
        **({} if session.precision is None else {"precision": session.precision}),
        **demand,
    )
    for each in models.loras:
        print(f"LoRA {each}")
    classifier = None if session.spec.embedded else tools.load_classifier(models.device)
    make = ready(models)
    if session.track_usage:
        track_usage_via_api(session.name)

    idx = tools.next_index(session.output_dir)
    for job in map(complete, jobs(options, pictures, questions if session.loop else ())):
        start = time.perf_counter()
        print(f"seed {job.seed}, {job.width} x {job.height}, {job.num_steps} steps: {job.prompt}")
        picture = make(models, job, offload=session.offload)
        if picture is None:
            continue
        seconds = time.perf_counter() - start
        about = (picture, session.add_sampling_metadata, job.prompt, NSFW_THRESHOLD)
        # Others may save into the same folder, so that the picture may have a later number than was free.
        following = tools.save_image(classifier, session.name, output_name, idx, *about, replace=False)
        if following > idx:
            print(f"saved {output_name.format(idx=following - 1)} after {seconds:.1f} s")
        idx = following


def jobs(
    options: Options, pictures: Callable[[Options], Iterable[Options]], questions: tuple[Question, ...]
) -> Iterator[Options]:
    """The pictures to make, each with one prompt and a seed; with questions also those the user types."""
    current: Options | None = options
    while current is not None:
        for job in pictures(current):
            yield job if job.seed is not None else replace(job, seed=int(draw_seed()))
        current = asked(replace(current, seed=None), questions)


def asked(options: Options, questions: tuple[Question, ...]) -> Options | None:
    """The options of the next picture; None to quit, which no questions do too."""
    current: Options | None = options if questions else None
    for question in questions:
        if current is not None:
            current = question(current)
    return current


# The questions of the loop

Settings = Mapping[str, tuple[str, Callable[[str, Any], Any]]]
"""What a letter changes: an option, and its check."""

SIZES: Settings = {"w": ("width", check_size), "h": ("height", check_size)}
LOOP_SETTINGS: Settings = {
    **SIZES,
    "s": ("seed", check_seed),
    "g": ("guidance", check_guidance),
    "n": ("num_steps", check_steps),
}

LOOP_HELP = """\
Type a prompt, leave it empty to repeat the last one, or change a setting:
{sizes}/s <seed>     for the next picture; random otherwise
/g <guidance>    /n <number of steps>
/q to quit, /help (or /h alone) for this help"""

SIZES_HELP = "/w <width>    /h <height>    in pixels, rounded down to multiples of 16\n"


def loop_help(settings: Settings = LOOP_SETTINGS, sizes: str = SIZES_HELP) -> str:
    """What can be typed."""
    return LOOP_HELP.replace("{sizes}", sizes if "w" in settings else "")


def ask_prompt(
    options: Options, settings: Settings = LOOP_SETTINGS, sizes: str = SIZES_HELP
) -> Options | None:
    """Ask on the terminal for the next prompt; None to quit. What is not changed stays as in `options`.

    settings: what else can be changed there. sizes: what its help says of sizes.
    """
    while True:
        try:
            line = input("next prompt (/help for help, /q to quit, empty to repeat): ").strip()
        except EOFError:
            return None
        if not line.startswith("/"):
            try:
                return replace(options, prompt=check_prompt("prompt", line or options.prompt))
            except ValueError as error:
                print(error)
                continue
        match = re.fullmatch(r"/([a-z]+)\s*(.*)", line)
        key, value = match.groups() if match else (line[1:], "")
        if key == "q":
            return None
        options = _changed(options, key, value, settings, loop_help(settings, sizes))


def _changed(options: Options, key: str, value: str, settings: Settings, helping: str) -> Options:
    """The options after a line `/key value`; what it did, or why not, is printed."""
    if key not in settings or (key == "h" and not value):
        print(helping if key in ("h", "help") else f"there is no /{key}\n{helping}")
        return options
    field, check = settings[key]
    try:
        options = replace(options, **{field: check(field, literal(value))})
    except ValueError as error:
        print(error)
    print(f"{field} is {getattr(options, field)}")
    return options


def ask_line(question: str) -> str | None:
    """What is typed, without blanks around it; None to quit: /q, or the end of what can be typed."""
    try:
        line = input(question).strip()
    except EOFError:
        return None
    return None if line == "/q" else line
