"""Pictures on the command line: `python -m flux t2i --name flux-dev --prompt "..."`, or without `t2i`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flux.cli_options import (
    Untouched,
    UntouchedFloat,
    UntouchedInt,
    UntouchedStr,
    checked,
    grammar_of,
    help_text,
    options_of,
    parameters_of,
    prompts_in,
)
from flux.cli_run import PictureOptions, Session, Tools, ask_prompt, loop_help, run
from flux.cli_wanted import wanted_of
from flux.entry import show
from flux.extras import lazy_names
from flux.flags import HELP, cut
from flux.generate import Sampling, decode, encode, sample_steps
from flux.limits import draw_seed
from flux.outcome import mistake, outcome
from flux.photos.conditions import open_conditions
from flux.photos.wanted import Wanted
from flux.pictures.files import next_index, save_image
from flux.pictures.safety import NSFW_THRESHOLD as NSFW_THRESHOLD  # upstream has it here
from flux.pictures.safety import load_nsfw_classifier
from flux.placement.modes import Offload
from flux.util import Models, ModelSpec, configs, load_models

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


WIDTH, HEIGHT, GUIDANCE = UntouchedInt(1360), UntouchedInt(768), UntouchedFloat(2.5)
PROMPT = UntouchedStr(
    "a photo of a forest with mist swirling around the tree trunks. The word "
    '"FLUX" is painted over it in big, red brush strokes with visible texture'
)
TINY_PROMPT = "a big red house and a small blue cat on the grass under a blue day sky"

LOOP_HELP = loop_help()


@dataclass
class SamplingOptions(PictureOptions):
    """What one picture is made from; `seed` None draws one.

    prompt_2: what T5 reads in the place of the prompt. wanted: what it is made from beside both.
    per_prompt: so many pictures of each prompt.
    """

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
    offload: Offload = False,
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
    precision: str | None = None,
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

    The parameters are options of `flux.cli_options.OPTIONS`. name: a model, such as flux-dev, flux-schnell,
    or flux-tiny, which comes with the package. For flux-tiny, width, height, guidance and prompt are its own
    where they are not given: 128 x 128 pixels, guidance 3.5.

    Raises ValueError for a setting out of range, its subclass CheckpointError for weights that cannot be had.
    """
    given = dict(locals())
    checked("trt", trt)
    spec = text_to_image_spec(name)

    def own(value: Any, models_own: Any) -> Any:
        return models_own if spec.embedded and isinstance(value, Untouched) else value

    options = SamplingOptions(
        prompt=checked("prompt", own(prompt, TINY_PROMPT)),
        width=checked("width", own(width, spec.ae_params.resolution)),
        height=checked("height", own(height, spec.ae_params.resolution)),
        num_steps=checked("num_steps", spec.num_steps if num_steps is None else num_steps),
        guidance=checked("guidance", own(guidance, spec.guidance)),
        seed=checked("seed", seed),
        prompt_2=None if prompt_2 is None else checked("prompt_2", prompt_2),
        per_prompt=checked("per_prompt", per_prompt),
        wanted=wanted_of(
            spec,
            negative_prompt=None if negative_prompt is None else checked("negative_prompt", negative_prompt),
            true_cfg=true_cfg,
            two_passes=checked("two_passes", two_passes),
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
    run(
        Session.of(name, spec, given),
        options,
        lambda models: make_picture,
        (parse_prompt,),
        pictures=pictures_of,
        texts=known_prompts,
        # Looked up here when they are called, for clients patch them.
        tools=Tools(load_models, load_nsfw_classifier, next_index, save_image),
    )


def make_picture(models: Models, options: SamplingOptions, *, offload: Offload = False) -> Tensor:
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


def pictures_of(options: SamplingOptions) -> Iterator[SamplingOptions]:
    """The pictures that options ask for: so many of each prompt, from its seed and those that follow it."""
    for (prompt, own), second in zip(prompts_in(options.prompt), seconds_of(options), strict=True):
        seed = options.seed if own is None else own
        first = int(draw_seed()) if seed is None else seed
        for number in range(options.per_prompt):
            yield replace(options, prompt=prompt, prompt_2=second, seed=first + number)


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


def parse_prompt(options: SamplingOptions) -> SamplingOptions | None:
    """Ask on the terminal for the next picture; None to quit. What is not changed stays as in `options`."""
    changed = ask_prompt(options)
    if changed is None or changed.prompt == options.prompt:
        return changed
    # What T5 read in the place of the last prompt is not meant for another one.
    return replace(changed, prompt_2=None)


def text_to_image_spec(name: str) -> ModelSpec:
    """The spec of a model that a prompt is enough for; ValueError, with the choices, for any other name."""
    choices = [key for key, spec in configs.items() if spec.from_text]
    if name in choices:
        return configs[name]
    problem = "is not a model"
    if name in configs:
        reference = configs[name].reference
        word = reference if reference in COMMANDS else "control"
        problem = f"starts from a picture, which python -m flux {word} takes"
    raise ValueError(f"{cut(name)!r} {problem}; choose one of {', '.join(choices)}")


# The entry


def app(arguments: list[str] | None = None) -> int:
    """`python -m flux` and the console script `flux`; returns the exit code.

    The first word names a command. Without one, options go to t2i, as they did before there were commands.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    word = arguments[0] if arguments else ""
    command = word if word in COMMANDS else "t2i"
    rest = arguments[1:] if word in COMMANDS else arguments
    if word and word not in COMMANDS and not OPTIONS.is_flag(word):
        return mistake(f"there is no command {cut(word)!r}; commands: {', '.join(COMMANDS)}", "flux")
    run_command = resolve_name(COMMANDS[command])
    if not arguments or asks_for_help(rest):
        title = f"python -m flux {command if word in COMMANDS else '[t2i]'}"
        return outcome(lambda: show(help_text(run_command, title)), name="flux")
    return outcome(lambda: run_command(**options_of(run_command, rest)), name="flux")


COMMANDS = {
    "t2i": "flux.cli:main",
    **{word: f"flux.cli_{word}:main" for word in ("control", "fill", "kontext", "redux")},
}
"""The commands, and the functions that they are."""

PARAMETERS = parameters_of(main)
OPTIONS = grammar_of(main)


def options_in(words: list[str]) -> dict[str, Any]:
    """The parameters of `main` that the words name, see `flux.cli_options.options_of`."""
    return options_of(main, words)


def asks_for_help(arguments: list[str]) -> bool:
    return any(argument in HELP for argument in arguments)
