"""Pictures on the command line: `python -m flux t2i --name flux-dev --prompt "..."`, or without `t2i`."""

import ast
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flux.command_line import asks_for_help, help_text, is_flag, run
from flux.generate import Sampling, decode, encode, sample_steps
from flux.outcome import EXIT_OK, mistake, silence_loading_bars
from flux.pictures.files import next_index, save_image
from flux.pictures.safety import NSFW_THRESHOLD, load_nsfw_classifier
from flux.settings import (
    Untouched,
    UntouchedFloat,
    UntouchedInt,
    UntouchedStr,
    check_number,
    check_seed,
    check_size,
    check_steps,
    check_switch,
    writable_folder,
)
from flux.util import Models, ModelSpec, configs, load_models

LATER = ("control", "fill", "kontext", "redux")

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

LOOP_SETTINGS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "w": ("width", check_size),
    "h": ("height", check_size),
    "s": ("seed", check_seed),
    "g": ("guidance", check_number),
    "n": ("num_steps", check_steps),
}


@dataclass
class SamplingOptions:
    """What one picture is made from; `seed` None draws one."""

    prompt: str
    width: int
    height: int
    num_steps: int
    guidance: float
    seed: int | None


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
) -> None:
    """Make pictures from text and save them as <output_dir>/img_<number>.jpg.

    name: a model, such as flux-dev, flux-schnell, or flux-tiny, which comes with the package.
    width, height: in pixels, rounded down to multiples of 16.
    seed: makes the same picture again; drawn, and printed, if not given.
    prompt: what to show; several prompts are separated by |, and share the seed if one is given.
    device: cuda, cuda:1, mps, cpu or auto.
    num_steps: steps of the sampler; by default the model's own number, 4 for flux-schnell, 50 for flux-dev.
    loop: ask for further prompts; /help there lists what can be changed.
    guidance: how closely to follow the prompt; flux-schnell has none.
    offload: keep in the device's memory only the part of the model that is at work.
    output_dir: made if it is missing; numbers count on from the highest there.
    add_sampling_metadata: write the prompt into the picture's EXIF fields.
    trt, trt_transformer_precision: TensorRT engines are not carried; trt says so.
    track_usage: report each picture to Black Forest Labs, for licences that ask for it.
    dtype: of the weights: float32, bfloat16, float16; auto fits the device.
    weights: a folder to load from instead of a download, such as a clone of the model's repository.

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
        prompt=str(own(prompt, TINY_PROMPT)),
        width=check_size("width", own(width, spec.ae_params.resolution)),
        height=check_size("height", own(height, spec.ae_params.resolution)),
        num_steps=check_steps("num_steps", spec.num_steps if num_steps is None else num_steps),
        guidance=check_number("guidance", own(guidance, spec.guidance)),
        seed=check_seed("seed", seed),
    )
    loop, offload = check_switch("loop", loop), check_switch("offload", offload)
    metadata = check_switch("add_sampling_metadata", add_sampling_metadata)
    track_usage = check_switch("track_usage", track_usage)
    output_name = os.path.join(escaped(writable_folder(output_dir)), "img_{idx}.jpg")

    if spec.embedded:
        silence_loading_bars()
    models = load_models(name, device=device, dtype=dtype, weights=weights, offload=offload)
    classifier = None if spec.embedded else load_nsfw_classifier(models.device)

    idx = next_index(output_dir)
    for job in jobs(options, loop):
        start = time.perf_counter()
        print(f"seed {job.seed}, {job.width} x {job.height}, {job.num_steps} steps: {job.prompt}")
        picture = make_picture(models, job, offload=offload)
        seconds = time.perf_counter() - start
        following = save_image(
            classifier, name, output_name, idx, picture, metadata, job.prompt, NSFW_THRESHOLD, track_usage
        )
        if following > idx:
            print(f"saved {output_name.format(idx=idx)} after {seconds:.1f} s")
        idx = following


def make_picture(models: Models, options: SamplingOptions, *, offload: bool = False) -> Tensor:
    """One picture, RGB in about [-1, 1], (1, 3, height, width), with a progress bar where a person watches.

    With `offload`, each part of the model is on the device only while it is at work.
    """
    prompts, seeds = [options.prompt], [options.seed]
    sampling = Sampling(options.num_steps, options.guidance, options.width, options.height)
    texts = encode(models, prompts, offload=offload)
    steps = sample_steps(models, texts, prompts, seeds, sampling, offload=offload)
    for step in tqdm(steps, total=options.num_steps, leave=False, disable=None):
        latent = step.after
    return decode(models, latent, sampling, offload=offload)


# What to make


def jobs(options: SamplingOptions, loop: bool) -> Iterator[SamplingOptions]:
    """The pictures to make, each with one prompt and a seed; with `loop` also those the user types."""
    current: SamplingOptions | None = options
    while current is not None:
        for prompt in split_prompts(current.prompt):
            seed = secrets.randbelow(2**32) if current.seed is None else current.seed
            yield replace(current, prompt=prompt, seed=seed)
        current = parse_prompt(replace(current, seed=None)) if loop else None


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
            return replace(options, prompt=line or options.prompt)
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


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
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
    raise ValueError(f"{name!r} {problem}; choose one of {', '.join(choices)}")


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
    if not arguments or (asks_for_help(arguments) and is_flag(command)):
        print(help_text(main, "python -m flux [t2i]"))
        return EXIT_OK
    if command in LATER:
        return mistake(f"{command} is not there yet, it comes in a later release; there is t2i now", "flux")
    if command == "t2i":
        return run(main, rest, "python -m flux t2i")
    if is_flag(command):
        return run(main, arguments, "python -m flux")
    return mistake(f"there is no command {command!r}; commands: t2i, later {', '.join(LATER)}", "flux")
