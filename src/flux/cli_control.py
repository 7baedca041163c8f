"""Pictures that follow the edges or depths of another one: `python -m flux control --name flux-dev-canny`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flux.cli_references import Looking, ask_picture, ask_scale, make_pictures
from flux.cli_run import PictureOptions, ask_prompt
from flux.placement.modes import Offload
from flux.util import configs


@dataclass
class ControlOptions(PictureOptions):
    """What one picture is made from; lora_scale: None for models without a LoRA."""

    img_cond_path: str
    lora_scale: float | None


SamplingOptions = ControlOptions


def parse_prompt(options: SamplingOptions) -> SamplingOptions | None:
    """Ask on the terminal for the next prompt or a setting; None to quit."""
    return ask_prompt(options)


def parse_img_cond_path(options: SamplingOptions) -> SamplingOptions | None:
    """Ask for the picture that the model looks at; None to quit. An empty line keeps the one there is."""
    return ask_picture(options, "canny")


def parse_lora_scale(options: SamplingOptions) -> SamplingOptions | None:
    """Ask for the scale of the LoRA, for models with one; None to quit. An empty line keeps it."""
    return ask_scale(options)


def main(
    name: str,
    width: int = 1024,
    height: int = 1024,
    seed: int | None = None,
    prompt: str = "a robot made out of gold",
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    num_steps: int = 50,
    loop: bool = False,
    guidance: float | None = None,
    offload: Offload = False,
    output_dir: str = "output",
    add_sampling_metadata: bool = True,
    img_cond_path: str = "assets/robot.webp",
    lora_scale: float | None = 0.85,
    trt: bool = False,
    trt_transformer_precision: str = "bf16",
    track_usage: bool = False,
    *,
    dtype: str = "auto",
    weights: str | None = None,
    lora: str | Sequence[str] | None = None,
    lora_live: bool = False,
    precision: str | None = None,
    **kwargs,
) -> None:
    """Make pictures that follow the edges (Canny) or the depths of another one.

    name: flux-dev-canny, flux-dev-depth, flux-dev-canny-lora or flux-dev-depth-lora. guidance: by default the
    model's own, 30 by edges and 10 by depths. Options otherwise as in `flux.cli_options.OPTIONS`; others are
    left out, which is said.
    """
    given = dict(locals())
    if kwargs:
        print(f"not used: {', '.join(kwargs)}")
    names = tuple(name for name, record in configs.items() if record.reference in ("canny", "depth"))
    questions = (parse_prompt, parse_img_cond_path, parse_lora_scale)
    make_pictures(Looking("control", names, SamplingOptions, questions), given)
