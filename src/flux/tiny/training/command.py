"""Train flux-tiny from nothing, or go on where an interrupted training stopped.

    python -m flux.tiny.training --work .train --out my-flux-tiny

Stages run in order and each is resumed from its checkpoint in `--work`; `--out` receives the parts as they
finish, in the layout of a FLUX repository, and the model card at the end. `--scale 0.01` takes fewer
steps in every stage, to try it; scenes and captions are still all made, which takes 3 GB and minutes.
`--seed` decides what is drawn.

It runs on the GPU where there is one (`--device auto|cpu|cuda`): minutes there, most of a day on two cores.
On a GPU, stages that do not wait for each other can run side by side, as commands with the same `--work` and
some of the `--stages` each: pictures, autoencoder, text, flow, distil, judge, dino, decoder, card.

The autoencoder is wider than the shipped one, see `flux.tiny.training.shapes`: until weights of this training
ship, the card alone measures the result, and other commands do not load it.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from flux.files import read_json_object
from flux.flags import HELP, Grammar, UsageError, typed
from flux.limits import MOST_SEED
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.outcome import mistake, outcome
from flux.tiny.scenes import WORLD
from flux.tiny.training import autoencoder, card, dino, flow, judge, text
from flux.tiny.training.data import paired_pictures, pictures
from flux.tiny.training.device import device_named
from flux.tiny.training.export import save_autoencoder, save_flow, save_judge
from flux.tiny.training.steps import STEPS

CLAIM = "training.json"
OPTIONS = ("work", "out", "seed", "scale", "device", "stages")
RECIPE = 4
"""Counts up when a stage's shapes, data or steps change: no training goes on by another recipe."""


@dataclass(frozen=True)
class Training:
    """What each stage makes and needs; one that is finished is read back from its checkpoint."""

    folder: Path
    repo: Path
    steps: dict[str, int]
    seed: int
    device: torch.device

    def pictures(self) -> None:
        pictures(self.folder, self.seed, autoencoder.PICTURES, 128, 128)
        for canvas in (flow.SMALL, flow.WHOLE):
            paired_pictures(self.folder, self.seed, canvas.count, canvas.side)
            flow.load_labels(canvas, self.folder, self.seed)

    @cached_property
    def ae(self) -> AutoEncoder:
        return autoencoder.train(self.folder, self.steps["autoencoder"], self.seed, device=self.device)

    def text(self) -> None:
        text.train(self.folder, self.repo, self.steps["text"], self.seed, device=self.device)

    @cached_property
    def teacher(self) -> Flux:
        steps, small = self.steps["flow"], self.steps["flow_small"]
        return flow.train(self.folder, self.repo, self.ae, steps, small, self.seed)

    def distil(self) -> None:
        steps = self.steps["distil"]
        save_flow(flow.distil(self.folder, self.repo, self.ae, self.teacher, steps, self.seed), self.repo)

    def judge(self) -> None:
        save_judge(judge.train(self.folder, self.ae, self.steps["judge"], self.seed), self.repo)

    def dino(self) -> None:
        dino.train(self.folder, self.repo, self.steps["dino"], self.seed, device=self.device)

    def decoder(self) -> None:
        whole = flow.load_examples(flow.WHOLE, self.folder, self.ae, self.seed)
        images = paired_pictures(self.folder, self.seed, len(whole.scenes), whole.canvas.side)
        data = (images, whole.scenes, whole.latents)
        polished = autoencoder.polish_decoder(self.folder, self.ae, *data, self.steps["decoder"], self.seed)
        save_autoencoder(polished, self.repo)

    def card(self) -> None:
        card.write(self.folder, self.repo)


STAGES: dict[str, Callable[[Training], object]] = {
    "pictures": Training.pictures,
    "autoencoder": lambda training: training.ae,
    "text": Training.text,
    "flow": lambda training: training.teacher,
    "distil": Training.distil,
    "judge": Training.judge,
    "dino": Training.dino,
    "decoder": Training.decoder,
    "card": Training.card,
}
"""In the order in which they run; the decoder's comes after all that wants the autoencoder as it was."""


def main(
    work: str = ".train",
    out: str = "flux-tiny",
    seed: int = 0,
    scale: float = 1.0,
    device: str = "auto",
    stages: str = ",".join(STAGES),
) -> None:
    """Run stages. work: checkpoints and rendered pictures. out: the parts. scale: share of the steps."""
    stopped = "stopped; the same command goes on from the last checkpoint"
    asked = (Path(str(work)), Path(str(out)), seed, scale, str(device), str(stages))
    sys.exit(outcome(lambda: run(*asked), stopped=stopped))


def run(folder: Path, repo: Path, seed: int, scale: float, device: str, stages: str) -> None:
    if type(seed) is not int or not 0 <= seed <= MOST_SEED:
        raise ValueError(f"--seed is {seed}: give a whole number between 0 and {MOST_SEED}")
    if type(scale) not in (int, float) or not 0 < scale <= 1:
        raise ValueError(f"--scale is {scale}: give a share of the steps above 0, at most 1")
    chosen = stages.split(",")
    for name in chosen:
        if name not in STAGES:
            raise ValueError(f"--stages: there is no stage {name!r}; the stages are {', '.join(STAGES)}")
    where = device_named(device)
    claim(folder, {"world": WORLD, "recipe": RECIPE, "seed": seed, "scale": scale})
    steps = {name: max(2, round(count * scale)) for name, count in STEPS.items()}
    training = Training(folder, repo, steps, seed, where)
    for name in STAGES:
        if name in chosen:
            STAGES[name](training)


def claim(folder: Path, options: dict[str, int | float]) -> None:
    """Mark the folder as this training's. Raises ValueError if it holds what another one left: its pictures
    and checkpoints would be taken for this one's."""
    mark = folder / CLAIM
    if mark.is_file():
        found = read_json_object(mark) or {}
        unlike = [name for name in options if found.get(name) != options[name]]
        if unlike:
            was = ", ".join(f"{name} {found.get(name)}, not {options[name]}" for name in unlike)
            raise ValueError(f"{folder} holds another training ({was}): name another folder with --work")
    elif any(folder.glob("*.ckpt")):
        raise ValueError(f"{folder} holds a training of an earlier version: name another folder with --work")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(options) + "\n")


def app(argv: Sequence[str] = ()) -> None:
    """What was typed behind the program's name; ends the process with its exit code."""
    if any(word in HELP for word in argv):
        print(__doc__.strip())
        return
    try:
        options = options_in(argv)
    except ValueError as error:
        sys.exit(mistake(error))
    main(**options)


def options_in(argv: Sequence[str]) -> dict[str, Any]:
    """The parameters of `main` that the words name. Raises UsageError for those that name none."""
    options: dict[str, Any] = {}
    for name, value in Grammar(options=OPTIONS).read(argv).pairs:
        if name in options:
            raise UsageError(f"--{name}: given twice")
        options[name] = value if name in ("work", "out", "device", "stages") else typed(value)
    return options
