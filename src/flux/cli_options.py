"""The options of every command of `python -m flux`: one table, their checks, and from words to values."""

import inspect
import json
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.files import unwritable
from flux.flags import Grammar, UsageError, cut
from flux.limits import DRAW, MOST_GUIDANCE, MOST_PIXELS, MOST_SEED, MOST_SEEDS, MOST_STEPS, SEED_RANGE
from flux.models import aspect_ratio_to_height_width
from flux.placement.modes import OFFLOADS, Offload, offload_key
from flux.prompts import prompt_file
from flux.text_files import check_encodable, parse_json

MOST_LORA_SCALE = 100


class Untouched:
    """Marks a default, to tell `--width 1360` from no width at all, which leaves it to the model."""


class UntouchedInt(Untouched, int):
    pass


class UntouchedFloat(Untouched, float):
    pass


class UntouchedStr(Untouched, str):
    pass


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


def check_count(name: str, value: Any) -> int:
    return check_whole(name, value, 1, MOST_SEEDS)


def check_precision(name: str, value: Any) -> Any:
    """A name, or the object that a text stands for; what they come to is asked with the model."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}; got {_got(value)}") from None


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


def check_offload(name: str, value: Any) -> Offload:
    try:
        return offload_key(False if value is None else value)  # None: the word "none"
    except ValueError:
        raise ValueError(
            f"{name} is either on or off, --{name} or --{name} False, or one of {', '.join(OFFLOADS)}; "
            f"got {_got(value)}"
        ) from None


def writable_folder(folder: str) -> str:
    """The folder, made if it is missing; OSError, before hours of work, if nothing can be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(Path(folder), error) from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to: name another output_dir")
    return folder


def check_size_or_auto(name: str, value: Any) -> int | None:
    """None for the picture's own, which may be typed as auto."""
    return None if value is None or value == "auto" else check_size(name, value)


def check_aspect_ratio(name: str, value: Any) -> str | None:
    if value is not None:
        aspect_ratio_to_height_width(str(value))
    return None if value is None else str(value)


def check_scale(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= MOST_LORA_SCALE:
        raise ValueError(f"{name} must be a number, {MOST_LORA_SCALE} at most; got {_got(value)}")
    return float(value)


def check_no_trt(name: str, value: Any) -> bool:
    if check_switch(name, value):
        raise ValueError("TensorRT engines are not carried: leave out trt, and the model runs in PyTorch")
    return False


def check_path(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError(f"{name} must be the path of a picture; got {_got(value)}")
    return str(value)


def as_it_is(name: str, value: Any) -> Any:
    return value


# The table


@dataclass(frozen=True)
class CommandOption:
    """An option of any command: what it is about, and its check."""

    about: str
    check: Callable[[str, Any], Any] = as_it_is


OPTIONS: Mapping[str, CommandOption] = {
    "name": CommandOption("the model"),
    "width": CommandOption("16 to 8192 pixels, rounded down to a multiple of 16", check_size),
    "height": CommandOption("16 to 8192 pixels, rounded down to a multiple of 16", check_size),
    "aspect_ratio": CommandOption("such as 16:9; without it the picture keeps its own", check_aspect_ratio),
    "seed": CommandOption("makes the same picture again; drawn, and printed, if not given or -1", check_seed),
    "prompt": CommandOption(
        "what to show; several prompts are separated by |, and share the seed if one is given; or the name "
        "of a file of prompts (.txt, one a line; .json, .jsonl, .csv), which may have seeds of their own",
        check_prompt,
    ),
    "device": CommandOption("cuda, cuda:1, mps, cpu or auto"),
    "num_steps": CommandOption("steps of the sampler, 1 to 1000; None: the model's own number", check_steps),
    "loop": CommandOption("ask for further prompts; /help there lists what can be changed", check_switch),
    "guidance": CommandOption(
        "how closely to follow the prompt, 0 to 100; flux-schnell has none", check_guidance
    ),
    "offload": CommandOption(
        "keep in the device's memory only the part of the model that is at work; or name a way: none, "
        "encoders (the same), modulation (that without its modulation layers), stream (a few blocks of it at "
        "a time; stream:12 while twelve stay), auto (what fits)",
        check_offload,
    ),
    "output_dir": CommandOption("made if it is missing; numbers count on from the highest there"),
    "add_sampling_metadata": CommandOption("write the prompt into the picture's EXIF fields", check_switch),
    "img_cond_path": CommandOption(
        "the picture that the model looks at: a file of any kind that Pillow opens", check_path
    ),
    "img_mask_path": CommandOption(
        "white where the picture is filled anew; of the picture's size", check_path
    ),
    "lora_scale": CommandOption("how much of the LoRA is added; for models with a LoRA alone", check_scale),
    "trt": CommandOption("TensorRT engines are not carried: it says so", check_no_trt),
    "trt_transformer_precision": CommandOption("of TensorRT engines, which are not carried"),
    "track_usage": CommandOption("nothing is ever reported: it says so", check_switch),
    "dtype": CommandOption("of the weights: float32, bfloat16, float16; auto fits the device"),
    "weights": CommandOption(
        "a folder to load from instead of a download, such as a clone of the model's repository"
    ),
    "lora": CommandOption(
        "LoRA files, each with its scale behind a colon if it is not 1: a.safetensors b.safetensors:0.6; by "
        "default what FLUX_LORA names"
    ),
    "precision": CommandOption(
        "of the weights: int8, fp8 or nf4 (4 bits), which need flux[quant], or a dtype; or "
        '{"others": "int8", "keep": "vital_layers.json", "count": 8}',
        check_precision,
    ),
    "lora_live": CommandOption("keep LoRAs beside the weights, and do not merge them", check_switch),
    "prompt_2": CommandOption(
        "what T5 reads, while CLIP reads the prompt; one for all prompts, or as many, separated by |",
        check_prompt,
    ),
    "negative_prompt": CommandOption("what to move away from, with true_cfg", check_prompt),
    "true_cfg": CommandOption("how far to move away, above 1 (true classifier-free guidance)"),
    "two_passes": CommandOption("evaluate both one behind the other, in less memory", check_switch),
    "image": CommandOption("a picture to start from"),
    "strength": CommandOption("the share of the steps that is sampled from it; by default 1, all"),
    "mask": CommandOption(
        "where the picture is painted anew: a file of its size, white there, or x0,y0,x1,y1 in its pixels"
    ),
    "start_rule": CommandOption(
        "at which step a strength starts: upstream or diffusers, which differ in roundings"
    ),
    "region": CommandOption(
        'parts with prompts of their own, as in "0,0,64,128: a red house" "64,0,128,128: a cat"; or the file '
        "of a mask in the place of the box"
    ),
    "region_layers": CommandOption("where regions obey, such as double.* or 0,1,17"),
    "per_prompt": CommandOption(
        "so many pictures of each prompt, from the seed and from those that follow it", check_count
    ),
}
"""Every option of every command, once. Defaults are those of each command's `main`."""


SEVERAL = frozenset({"lora", "region"})
"""Options that take every word up to the next one."""


def checked(name: str, value: Any) -> Any:
    """The value of an option as it is to be used; raises as the checks do."""
    return OPTIONS[name].check(name, value)


# Prompts


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


# From words to values


WORDS = {"true": True, "false": False, "none": None}


def literal(text: str) -> Any:
    """The number, True, False or None that was typed; else the text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def escaped(text: str) -> str:
    """Text that `str.format` gives back as it is."""
    return text.replace("{", "{{").replace("}", "}}")


Main = Callable[..., None]
"""A command: a function of options by name."""


def grammar_of(main: Main) -> Grammar:
    """The flags of a command, by the parameters of its function."""
    parameters = parameters_of(main)
    # Letters that one of upstream's parameters alone begins with, as in `-p "a cat"`.
    upstream = [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY]
    first = [name[0] for name in upstream]
    return Grammar(
        switches=frozenset(name for name, each in parameters.items() if each.annotation in (bool, Offload)),
        several=SEVERAL & parameters.keys(),
        options=tuple(parameters),
        letters={name[0]: name for name in upstream if first.count(name[0]) == 1},
    )


def parameters_of(main: Main) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(main).parameters
    return {name: each for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}


def options_of(main: Main, words: list[str]) -> dict[str, Any]:
    """The parameters of `main` that the words name; raises UsageError for those that name none.

    Text is taken as it is typed, for a prompt may look like a list; other values are numbers, True or False.
    """
    options: dict[str, Any] = {}
    parameters = parameters_of(main)
    for name, value in grammar_of(main).read(words).pairs:
        if name in options:
            raise UsageError(f"--{name}: given twice")
        as_typed = parameters[name].annotation in (str, str | None) or not isinstance(value, str)
        options[name] = value if as_typed else literal(value)
    missing = next((name for name, each in parameters.items() if each.default is each.empty), None)
    if missing is not None and missing not in options:
        raise UsageError(f"--{missing} is missing: options: --{', --'.join(parameters)}")
    return options


def help_text(main: Main, title: str) -> str:
    """What a command says of itself, and its options with their defaults."""
    rows = []
    for name, each in parameters_of(main).items():
        rows.append(f"  --{name}" + ("" if each.default is each.empty else f" {_shown(each.default)}"))
        rows += textwrap.wrap(OPTIONS[name].about, 100, initial_indent="      ", subsequent_indent="      ")
    usage = f"usage: {title} --option value ..."
    return "\n".join((usage, "", inspect.getdoc(main) or "", "", "Options and defaults:", *rows))


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) and " " in value else str(value)
