"""Train flux-tiny from nothing, or go on where an interrupted training stopped.

    python -m flux.tiny.training --work .train --out my-flux-tiny

Stages run in order and each is resumed from its checkpoint in `--work`; `--out` receives the parts as they
finish, in the layout of a FLUX repository, and the model card at the end. `--scale 0.01` takes fewer
steps in every stage, to try it; scenes and captions are still all made, which takes 3 GB and minutes.
`--seed` decides what is drawn. The autoencoder is wider than the shipped one, see
`flux.tiny.training.shapes`: until weights of this training ship, the card alone measures the result, and
other commands do not load it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flux.files import read_json_object
from flux.flags import HELP, Grammar, UsageError, typed
from flux.limits import MOST_SEED
from flux.outcome import mistake, outcome
from flux.tiny.scenes import WORLD
from flux.tiny.training import autoencoder, card, dino, flow, judge, text
from flux.tiny.training.data import paired_pictures
from flux.tiny.training.export import save_autoencoder, save_flow, save_judge
from flux.tiny.training.steps import STEPS

CLAIM = "training.json"
OPTIONS = ("work", "out", "seed", "scale")
RECIPE = 3
"""Counts up when a stage's shapes, data or steps change: no training goes on by another recipe."""


def main(work: str = ".train", out: str = "flux-tiny", seed: int = 0, scale: float = 1.0) -> None:
    """Run every stage. work: checkpoints and rendered pictures. out: the parts. scale: share of the steps."""
    stopped = "stopped; the same command goes on from the last checkpoint"
    sys.exit(outcome(lambda: run(Path(str(work)), Path(str(out)), seed, scale), stopped=stopped))


def run(folder: Path, repo: Path, seed: int, scale: float) -> None:
    if type(seed) is not int or not 0 <= seed <= MOST_SEED:
        raise ValueError(f"--seed is {seed}: give a whole number between 0 and {MOST_SEED}")
    if type(scale) not in (int, float) or not 0 < scale <= 1:
        raise ValueError(f"--scale is {scale}: give a share of the steps above 0, at most 1")
    claim(folder, {"world": WORLD, "recipe": RECIPE, "seed": seed, "scale": scale})
    steps = {name: max(2, round(count * scale)) for name, count in STEPS.items()}

    ae = autoencoder.train(folder, steps["autoencoder"], seed)
    text.train(folder, repo, steps["text"], seed)
    teacher = flow.train(folder, repo, ae, steps["flow"], steps["flow_small"], seed)
    student = flow.distil(folder, repo, ae, teacher, steps["distil"], seed)
    save_flow(student, repo)
    save_judge(judge.train(folder, ae, steps["judge"], seed), repo)
    dino.train(folder, repo, steps["dino"], seed)
    whole = flow.load_examples(flow.WHOLE, folder, ae, seed)
    images = paired_pictures(folder, seed, len(whole.scenes), whole.canvas.side)
    data = (images, whole.scenes, whole.latents)
    save_autoencoder(autoencoder.polish_decoder(folder, ae, *data, steps["decoder"], seed), repo)
    card.write(folder, repo)


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
        options[name] = value if name in ("work", "out") else typed(value)
    return options
