"""Pictures on the command line: `python -m flux t2i --name flux-dev --prompt "..."`, or without `t2i`."""

import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flux.cli_wanted import wanted_of
from flux.entry import show
from flux.extras import lazy_names
from flux.files import unwritable
from flux.flags import HELP, Grammar, UsageError, cut
from flux.generate import Sampling, decode, encode, sample_steps
from flux.limits import (
    DRAW,
    MOST_GUIDANCE,
    MOST_PIXELS,
    MOST_SEED,
    MOST_SEEDS,
    MOST_STEPS,
    SEED_RANGE,
    draw_seed,
)
from flux.outcome import mistake, outcome, say
from flux.photos.conditions import open_conditions
from flux.photos.wanted import Wanted
from flux.pictures.files import next_index, save_image
from flux.pictures.safety import NSFW_THRESHOLD, load_nsfw_classifier
from flux.prompts import prompt_file
from flux.text_files import check_encodable
from flux.util import Models, ModelSpec, configs, load_models

LATER = ("control", "fill", "kontext", "redux")

# What clients take from upstream's module besides `main`.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **{
            name: f"flux.sampling:{name}"
            for name in ("denoise", "get_noise", "get_schedule", "prepare", "unpack")
        },
        **{name: f"flux.util:{name}" for name in ("load_ae", "load_clip", "load_flow_model", "load_t5")},
        "pipeline": "transformers:pipeline",
    },
)


class Untouched:
    """Marks a default, to tell `--width 1360` from no width at all, which leaves it to the model."""


class UntouchedInt(Untouched, int):
    pass


class UntouchedFloat(Untouched, float):
    pass


class UntouchedStr(Untouched, str):
    pass


WIDTH, HEIGHT, GUIDANCE = UntouchedInt(1360), UntouchedInt(768), UntouchedFloat(2.5)
PROMPT = UntouchedStr(
    "a photo of a forest with mist swirling around the tree trunks. The word "
    '"FLUX" is painted over it in big, red brush strokes with visible texture'
)
TINY_PROMPT = "a big red house and a small blue cat on the grass under a blue day sky"

LOOP_HELP = """\
Type a prompt, leave it empty to repeat the last one, or change a setting:
/w <width>    /h <height>    in pixels, rounded down to multiples of 16
/s <seed>     for the next picture; random otherwise
/g <guidance>    /n <number of steps>
/q to quit, /help (or /h alone) for this help"""

# Checks: each takes a name and a value and returns the value to use, or raises ValueError, or OSError for
# folders, in one line that names the setting and what it got.


def check_whole(name: str, value: Any, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ValueError(f"{name} must be a whole number between {lowest} and {highest}; got {_got(value)}")
    return int(value)


def _got(value: Any) -> str:
    try:
        return cut(repr(value))
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"


def check_size(name: str, value: Any) -> int:
    size = check_whole(name, value, 16, MOST_PIXELS) // 16 * 16
    if size != value:
        print(f"{name} {value} becomes {size}: sizes are multiples of 16")
    return size


def check_steps(name: str, value: Any) -> int:
    return check_whole(name, value, 1, MOST_STEPS)


def check_seed(name: str, value: Any) -> int | None:
    """None for a seed that is to be drawn."""
    if value is None or (value == DRAW and type(value) is int):
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_SEED:
        raise ValueError(f"{name} must be a whole number {SEED_RANGE}; got {_got(value)}")
    return int(value)


def check_guidance(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST_GUIDANCE:
        raise ValueError(f"{name} must be a number between 0 and {MOST_GUIDANCE}; got {_got(value)}")
    return float(value)


def check_prompt(name: str, value: Any) -> str:
    """A text, which may be the name of a file of prompts."""
    text = str(value)
    try:
        check_encodable(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    prompts_in(text)
    return text


def check_switch(name: str, value: Any) -> bool:
    if value not in (True, False):
        raise ValueError(f"{name} is either on or off: --{name}, or --{name} False; got {_got(value)}")
    return bool(value)


def writable_folder(folder: str) -> str:
    """The folder, made if it is missing; OSError, before hours of work, if nothing can be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(Path(folder), error) from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to: name another output_dir")
    return folder


LOOP_SETTINGS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "w": ("width", check_size),
    "h": ("height", check_size),
    "s": ("seed", check_seed),
    "g": ("guidance", check_guidance),
    "n": ("num_steps", check_steps),
}


@dataclass
class SamplingOptions:
    """What one picture is made from; `seed` None draws one.

    prompt_2: what T5 reads in the place of the prompt. wanted: what it is made from beside both.
    """

    prompt: str
    width: int
    height: int
    num_steps: int
    guidance: float
    seed: int | None
    prompt_2: str | None = None
    wanted: Wanted = Wanted()
    per_prompt: int = 1


def main(
    name: str = "flux-dev-krea",
    width: int = WIDTH,
    height: int = HEIGHT,
    seed: int | None = None,
    prompt: str = PROMPT,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    num_steps: int | None = None,
    loop: bool = False,
    guidance: float = GUIDANCE,
    offload: bool = False,
    output_dir: str = "output",
    add_sampling_metadata: bool = True,
    trt: bool = False,
    trt_transformer_precision: str = "bf16",
    track_usage: bool = False,
    *,
    dtype: str = "auto",
    weights: str | None = None,
    lora: str | Sequence[str] | None = None,
    lora_live: bool = False,
    prompt_2: str | None = None,
    negative_prompt: str | None = None,
    true_cfg: float | None = None,
    two_passes: bool = False,
    image: str | None = None,
    strength: float | None = None,
    mask: str | None = None,
    start_rule: str = "upstream",
    region: str | Sequence[str] | None = None,
    region_layers: str = "all",
    per_prompt: int = 1,
) -> None:
    """Make pictures from text and save them as <output_dir>/img_<number>.jpg.

    name: a model, such as flux-dev, flux-schnell, or flux-tiny, which comes with the package.
    width, height: 16 to 8192 pixels, rounded down to multiples of 16.
    seed: makes the same picture again; drawn, and printed, if not given or -1.
    prompt: what to show; several prompts are separated by |, and share the seed if one is given; or the name
    of a file of prompts (.txt, one a line; .json, .jsonl, .csv), which may have seeds of their own.
    device: cuda, cuda:1, mps, cpu or auto.
    num_steps: steps of the sampler, 1 to 1000; by default the model's own number, 4 for flux-schnell, 50 for
    flux-dev.
    loop: ask for further prompts; /help there lists what can be changed.
    guidance: how closely to follow the prompt, 0 to 100; flux-schnell has none.
    offload: keep in the device's memory only the part of the model that is at work.
    output_dir: made if it is missing; numbers count on from the highest there.
    add_sampling_metadata: write the prompt into the picture's EXIF fields.
    trt, trt_transformer_precision: TensorRT engines are not carried; trt says so.
    track_usage: report each picture to Black Forest Labs, for licences that ask for it.
    dtype: of the weights: float32, bfloat16, float16; auto fits the device.
    weights: a folder to load from instead of a download, such as a clone of the model's repository.
    lora: LoRA files, each with its scale behind a colon if it is not 1: a.safetensors b.safetensors:0.6;
    by default what FLUX_LORA names.
    lora_live: keep LoRAs beside the weights, and do not merge them.
    prompt_2: what T5 reads, while CLIP reads the prompt; one for all prompts, or as many, separated by |.
    negative_prompt, true_cfg: what to move away from, and how far, above 1 (true classifier-free guidance).
    two_passes: evaluate both one behind the other, in less memory.
    image, strength: a picture to start from, and the share of the steps that is sampled; by default 1, all.
    mask: where the picture is painted anew: a file of its size, white there, or x0,y0,x1,y1 in its pixels.
    start_rule: at which step a strength starts: upstream or diffusers, which differ in roundings.
    region: parts with prompts of their own, as in "0,0,64,128: a red house" "64,0,128,128: a cat"; or a file
    of a mask in the place of the box. region_layers: where they obey, such as double.* or 0,1,17.
    per_prompt: so many pictures of each prompt, from the seed and from those that follow it.

    For flux-tiny, width, height, guidance and prompt are its own where they are not given: 128 x 128 pixels,
    guidance 3.5.

    Raises ValueError for a setting out of range, its subclass CheckpointError for weights that cannot be had.
    """
    if check_switch("trt", trt):
        raise ValueError("TensorRT engines are not carried: leave out trt, and the model runs in PyTorch")
    spec = text_to_image_spec(name)

    def own(value: Any, models_own: Any) -> Any:
        return models_own if spec.embedded and isinstance(value, Untouched) else value

    options = SamplingOptions(
        prompt=check_prompt("prompt", own(prompt, TINY_PROMPT)),
        width=check_size("width", own(width, spec.ae_params.resolution)),
        height=check_size("height", own(height, spec.ae_params.resolution)),
        num_steps=check_steps("num_steps", spec.num_steps if num_steps is None else num_steps),
        guidance=check_guidance("guidance", own(guidance, spec.guidance)),
        seed=check_seed("seed", seed),
        prompt_2=None if prompt_2 is None else check_prompt("prompt_2", prompt_2),
        per_prompt=check_whole("per_prompt", per_prompt, 1, MOST_SEEDS),
        wanted=wanted_of(
            spec,
            negative_prompt=None
            if negative_prompt is None
            else check_prompt("negative_prompt", negative_prompt),
            true_cfg=true_cfg,
            two_passes=check_switch("two_passes", two_passes),
            image=image,
            strength=strength,
            mask=mask,
            start_rule=start_rule,
            region=region,
            region_layers=region_layers,
        ),
    )
    seconds_of(options)
    options.wanted.check((options.width, options.height), options.num_steps)
    if (note := spec.size_note(options.width, options.height)) is not None:
        say(f"note: {name} {note}")
    loop, offload = check_switch("loop", loop), check_switch("offload", offload)
    metadata = check_switch("add_sampling_metadata", add_sampling_metadata)
    track_usage = check_switch("track_usage", track_usage)
    output_name = os.path.join(escaped(writable_folder(output_dir)), "img_{idx}.jpg")

    known = None if loop else known_prompts(options)
    models = load_models(
        name,
        device=device,
        dtype=dtype,
        weights=weights,
        offload=offload,
        prompts=known,
        lora=lora,
        lora_live=check_switch("lora_live", lora_live),
    )
    for each in models.loras:
        print(f"LoRA {each}")
    classifier = None if spec.embedded else load_nsfw_classifier(models.device)

    idx = next_index(output_dir)
    for job in jobs(options, loop):
        start = time.perf_counter()
        print(f"seed {job.seed}, {job.width} x {job.height}, {job.num_steps} steps: {job.prompt}")
        picture = make_picture(models, job, offload=offload)
        seconds = time.perf_counter() - start
        # Others may save into the same folder, so that the picture may have a later number than was free.
        following = save_image(
            *(classifier, name, output_name, idx, picture, metadata, job.prompt, NSFW_THRESHOLD, track_usage),
            replace=False,
        )
        if following > idx:
            print(f"saved {output_name.format(idx=following - 1)} after {seconds:.1f} s")
        idx = following


def make_picture(models: Models, options: SamplingOptions, *, offload: bool = False) -> Tensor:
    """One picture, RGB in about [-1, 1], (1, 3, height, width), with a progress bar where a person watches.

    With `offload`, each part of the model is on the device only while it is at work.
    """
    prompts, seeds = [options.prompt], [options.seed]
    sampling = Sampling(options.num_steps, options.guidance, options.width, options.height)
    second = None if options.prompt_2 is None else [options.prompt_2]
    conditions = open_conditions(models, options.wanted, sampling, second, offload=offload)
    texts = encode(models, [*prompts, *conditions.prompts], offload=offload)
    steps = sample_steps(models, texts, prompts, seeds, sampling, offload=offload, conditions=conditions)
    for step in tqdm(steps, total=options.num_steps, leave=False, disable=None):
        latent = step.after
    return decode(models, latent, sampling, offload=offload)


# What to make


def jobs(options: SamplingOptions, loop: bool) -> Iterator[SamplingOptions]:
    """The pictures to make, each with one prompt and a seed; with `loop` also those the user types."""
    current: SamplingOptions | None = options
    while current is not None:
        for (prompt, own), second in zip(prompts_in(current.prompt), seconds_of(current), strict=True):
            seed = current.seed if own is None else own
            first = int(draw_seed()) if seed is None else seed
            for number in range(current.per_prompt):
                yield replace(current, prompt=prompt, prompt_2=second, seed=first + number)
        current = parse_prompt(replace(current, seed=None)) if loop else None


def seconds_of(options: SamplingOptions) -> list[str | None]:
    """What T5 reads in the place of each of the prompts; ValueError for more or fewer texts than prompts."""
    prompts = prompts_in(options.prompt)
    if options.prompt_2 is None:
        return [None] * len(prompts)
    seconds = [text for text, _ in prompts_in(options.prompt_2)]
    if len(seconds) not in (1, len(prompts)):
        raise ValueError(
            f"prompt_2 has {len(seconds)} texts for {len(prompts)} prompts: give one, or as many"
        )
    return seconds * len(prompts) if len(seconds) == 1 else seconds


def known_prompts(options: SamplingOptions) -> list[str]:
    """All texts that the encoders will be asked for."""
    seconds = [text for text in seconds_of(options) if text is not None]
    return [*(text for text, _ in prompts_in(options.prompt)), *seconds, *options.wanted.prompts]


def prompts_in(prompt: str) -> list[tuple[str, int | None]]:
    """Each prompt and its own seed: those of the file that is named, or those between the bars.

    Raises ValueError, one line, for a file that is not there or not as it should be.
    """
    if (file := prompt_file(prompt)) is None:
        return [(part, None) for part in split_prompts(prompt)]
    from flux.studies.prompts import read_prompts

    return [(each.prompt, each.seed) for each in read_prompts(file)]


def split_prompts(prompt: str) -> list[str]:
    """The prompts between the bars of "a cat | a dog"; one empty prompt if there is no text at all."""
    return [part.strip() for part in prompt.split("|") if part.strip()] or [""]


def parse_prompt(options: SamplingOptions) -> SamplingOptions | None:
    """Ask on the terminal for the next picture; None to quit. What is not changed stays as in `options`."""
    while True:
        try:
            line = input("next prompt (/help for help, /q to quit, empty to repeat): ").strip()
        except EOFError:
            return None
        if not line.startswith("/"):
            try:
                # What T5 read in the place of the last prompt is not meant for another one.
                second = None if line else options.prompt_2
                prompt = check_prompt("prompt", line or options.prompt)
                return replace(options, prompt=prompt, prompt_2=second)
            except ValueError as error:
                print(error)
                continue
        match = re.fullmatch(r"/([a-z]+)\s*(.*)", line)
        key, value = match.groups() if match else (line[1:], "")
        if key == "q":
            return None
        options = _changed(options, key, value)


def _changed(options: SamplingOptions, key: str, value: str) -> SamplingOptions:
    """The options after a line `/key value`; what it did, or why not, is printed."""
    if key not in LOOP_SETTINGS or (key == "h" and not value):
        print(LOOP_HELP if key in ("h", "help") else f"there is no /{key}\n{LOOP_HELP}")
        return options
    field, check = LOOP_SETTINGS[key]
    try:
        options = replace(options, **{field: check(field, _literal(value))})
    except ValueError as error:
        print(error)
    print(f"{field} is {getattr(options, field)}")
    return options


WORDS = {"true": True, "false": False, "none": None}


def _literal(text: str) -> Any:
    """The number, True, False or None that was typed; else the text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def text_to_image_spec(name: str) -> ModelSpec:
    """The spec of a model that a prompt is enough for; ValueError, with the choices, for any other name."""
    choices = [
        key
        for key, spec in configs.items()
        if spec.params.in_channels == spec.params.out_channels and spec.flow_name is None
    ]
    if name in choices:
        return configs[name]
    problem = "starts from a picture, which comes in a later release" if name in configs else "is not a model"
    raise ValueError(f"{cut(name)!r} {problem}; choose one of {', '.join(choices)}")


def escaped(text: str) -> str:
    """Text that `str.format` gives back as it is."""
    return text.replace("{", "{{").replace("}", "}}")


# The entry


def app(arguments: list[str] | None = None) -> int:
    """`python -m flux` and the console script `flux`; returns the exit code.

    The first word names a command. Without one, options go to t2i, as they did before there were commands.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, rest = arguments[0] if arguments else "", arguments[1:]
    if not arguments or (asks_for_help(arguments) and OPTIONS.is_flag(command)):
        return outcome(lambda: show(help_text("python -m flux [t2i]")), name="flux")
    if command in LATER:
        return mistake(f"{command} is not there yet, it comes in a later release; there is t2i now", "flux")
    if command == "t2i" and asks_for_help(rest):
        return outcome(lambda: show(help_text("python -m flux t2i")), name="flux")
    if command == "t2i" or OPTIONS.is_flag(command):
        words = rest if command == "t2i" else arguments
        return outcome(lambda: main(**options_in(words)), name="flux")
    return mistake(f"there is no command {cut(command)!r}; commands: t2i, later {', '.join(LATER)}", "flux")


PARAMETERS = inspect.signature(main).parameters


def _letters() -> dict[str, str]:
    """The letters that one of upstream's parameters alone begins with, as in `-p "a cat"`."""
    upstream = [name for name, each in PARAMETERS.items() if each.kind is not each.KEYWORD_ONLY]
    first = [name[0] for name in upstream]
    return {name[0]: name for name in upstream if first.count(name[0]) == 1}


OPTIONS = Grammar(
    switches=frozenset(name for name, each in PARAMETERS.items() if each.annotation is bool),
    several=frozenset({"lora", "region"}),
    options=tuple(PARAMETERS),
    letters=_letters(),
)


def options_in(words: list[str]) -> dict[str, Any]:
    """The parameters of `main` that the words name; raises UsageError for those that name none.

    Text is taken as it is typed, for a prompt may look like a list; other values are numbers, True or False.
    """
    options: dict[str, Any] = {}
    for name, value in OPTIONS.read(words).pairs:
        if name in options:
            raise UsageError(f"--{name}: given twice")
        as_typed = PARAMETERS[name].annotation in (str, str | None) or not isinstance(value, str)
        options[name] = value if as_typed else _literal(value)
    return options


def asks_for_help(arguments: list[str]) -> bool:
    return any(argument in HELP for argument in arguments)


def help_text(title: str) -> str:
    """What `main` says of itself, and its options with their defaults."""
    rows = [
        f"  --{p.name}" + ("" if p.default is p.empty else f" {_shown(p.default)}")
        for p in PARAMETERS.values()
    ]
    usage = f"usage: {title} --option value ..."
    return "\n".join((usage, "", inspect.getdoc(main) or "", "", "Options and defaults:", *rows))


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) and " " in value else str(value)
