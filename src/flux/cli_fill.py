"""Pictures with a part filled anew: `python -m flux fill --img_cond_path a.png --img_mask_path b.png`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flux.cli_references import Looking, ask_mask, ask_picture, make_pictures
from flux.cli_run import LOOP_SETTINGS, PictureOptions, ask_prompt
from flux.placement.modes import Offload

WITHOUT_SIZES = {key: setting for key, setting in LOOP_SETTINGS.items() if key not in ("w", "h")}


@dataclass
class FillOptions(PictureOptions):
    """What one picture is made from. width, height: None for the picture's own."""

    img_cond_path: str
    img_mask_path: str


SamplingOptions = FillOptions


def parse_prompt(options: SamplingOptions) -> SamplingOptions | None:
    """Ask on the terminal for the next prompt or a setting; None to quit."""
    return ask_prompt(options, WITHOUT_SIZES)


def parse_img_cond_path(options: SamplingOptions) -> SamplingOptions | None:
    """Ask for the picture that the model looks at; None to quit. An empty line keeps the one there is."""
    return ask_picture(options, "fill")


def parse_img_mask_path(options: SamplingOptions) -> SamplingOptions | None:
    """Ask for the mask of the picture; None to quit. An empty line keeps the one there is."""
    return ask_mask(options)


def main(
    seed: int | None = None,
    prompt: str = "a white paper cup",
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    num_steps: int = 50,
    loop: bool = False,
    guidance: float = 30.0,
    offload: Offload = False,
    output_dir: str = "output",
    add_sampling_metadata: bool = True,
    img_cond_path: str = "assets/cup.png",
    img_mask_path: str = "assets/cup_mask.png",
    track_usage: bool = False,
    *,
    dtype: str = "auto",
    weights: str | None = None,
    lora: str | Sequence[str] | None = None,
    lora_live: bool = False,
    precision: str | None = None,
) -> None:
    """Fill a part of a picture anew, where a mask is white, by flux-dev-fill.

    What is made has the picture's size, which must be a multiple of 16 both ways, and the mask's too. Options
    as in `flux.cli_options.OPTIONS`.
    """
    given = dict(locals())
    questions = (parse_prompt, parse_img_cond_path, parse_img_mask_path)
    name = "flux-dev-fill"
    make_pictures(Looking("fill", (name,), SamplingOptions, questions), given | {"name": name})
