"""Variations of a picture: `python -m flux redux --img_cond_path robot.png`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flux.cli_references import Looking, ask_picture, make_pictures
from flux.cli_run import PictureOptions, ask_prompt
from flux.placement.modes import Offload


@dataclass
class ReduxOptions(PictureOptions):
    """What one picture is made from."""

    img_cond_path: str


SamplingOptions = ReduxOptions


def parse_prompt(options: SamplingOptions) -> SamplingOptions | None:
    """Ask on the terminal for the next prompt or a setting; None to quit."""
    return ask_prompt(options)


def parse_img_cond_path(options: SamplingOptions) -> SamplingOptions | None:
    """Ask for the picture that the model looks at; None to quit. An empty line keeps the one there is."""
    return ask_picture(options, "redux")


def main(
    name: str = "flux-dev",
    width: int = 1360,
    height: int = 768,
    seed: int | None = None,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    num_steps: int | None = None,
    loop: bool = False,
    guidance: float = 2.5,
    offload: Offload = False,
    output_dir: str = "output",
    add_sampling_metadata: bool = True,
    img_cond_path: str = "assets/robot.webp",
    track_usage: bool = False,
    *,
    prompt: str = "",
    dtype: str = "auto",
    weights: str | None = None,
    lora: str | Sequence[str] | None = None,
    lora_live: bool = False,
    precision: str | None = None,
) -> None:
    """Make variations of a picture, which stands behind the prompt's tokens, by FLUX.1-Redux.

    name: flux-dev or flux-schnell, whose weights are used beside Redux's own. prompt: may be empty. Options
    as in `flux.cli_options.OPTIONS`.
    """
    given = dict(locals())
    names = ("flux-dev", "flux-schnell", "flux-dev-redux")
    looking = Looking("redux", names, SamplingOptions, (parse_prompt, parse_img_cond_path))
    # The record of FLUX.1 [dev] with Redux, which says that it starts from a picture.
    make_pictures(looking, given | {"name": "flux-dev-redux" if name == "flux-dev" else name})
