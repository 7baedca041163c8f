"""Pictures changed as a prompt says: `python -m flux kontext --img_cond_path cup.png --prompt "..."`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flux.cli_options import check_size_or_auto
from flux.cli_references import Looking, ask_picture, make_pictures
from flux.cli_run import LOOP_SETTINGS, Make, PictureOptions, ask_prompt
from flux.content_filters import PixtralContentFilter, load_content_filter
from flux.placement.modes import Offload
from flux.util import Models

SETTINGS = LOOP_SETTINGS | {"w": ("width", check_size_or_auto), "h": ("height", check_size_or_auto)}
SIZES_HELP = "/w <width>    /h <height>    in pixels, or auto: the picture's own\n"


@dataclass
class KontextOptions(PictureOptions):
    """What one picture is made from. width, height: None for the picture's own."""

    img_cond_path: str


SamplingOptions = KontextOptions


def parse_prompt(options: SamplingOptions) -> SamplingOptions | None:
    """Ask on the terminal for the next prompt or a setting; None to quit."""
    return ask_prompt(options, SETTINGS, SIZES_HELP)


def parse_img_cond_path(options: SamplingOptions) -> SamplingOptions | None:
    """Ask for the picture that the model looks at; None to quit. An empty line keeps the one there is."""
    return ask_picture(options, "kontext")


def main(
    name: str = "flux-dev-kontext",
    aspect_ratio: str | None = None,
    seed: int | None = None,
    prompt: str = "replace the logo with the text 'Black Forest Labs'",
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    num_steps: int = 30,
    loop: bool = False,
    guidance: float = 2.5,
    offload: Offload = False,
    output_dir: str = "output",
    add_sampling_metadata: bool = True,
    img_cond_path: str = "assets/cup.png",
    trt: bool = False,
    trt_transformer_precision: str = "bf16",
    track_usage: bool = False,
    *,
    dtype: str = "auto",
    weights: str | None = None,
    lora: str | Sequence[str] | None = None,
    lora_live: bool = False,
    precision: str | None = None,
) -> None:
    """Change a picture as a prompt says, by flux-dev-kontext.

    The picture is scaled to the size of nearest aspect ratio that the model was trained for, and what is made
    has that size too, unless an aspect ratio is given. Options as in `flux.cli_options.OPTIONS`.
    """
    given = dict(locals())
    looking = Looking("kontext", ("flux-dev-kontext",), SamplingOptions, (parse_prompt, parse_img_cond_path))
    make_pictures(looking, given, filtered)


def filtered(make: Make) -> Make:
    """What makes pictures, behind the filters of prompts and pictures, if they can be had."""
    content_filter = load_content_filter()
    return make if content_filter is None else partial(_filtered, make, content_filter)


def _filtered(
    make: Make,
    content_filter: PixtralContentFilter,
    models: Models,
    options: SamplingOptions,
    *,
    offload: Offload = False,
) -> Tensor | None:
    if content_filter.test_txt(options.prompt):
        print("the prompt was stopped by the content filter: try another one")
        return None
    if content_filter.test_image(options.img_cond_path):
        print("the picture to look at was stopped by the content filter: try another one")
        return None
    picture = make(models, options, offload=offload)
    if content_filter.test_image(picture):
        print("the picture was stopped by the content filter and not saved: try another prompt or seed")
        return None
    return picture
