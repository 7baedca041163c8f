"""What looking for numbers that are none costs an edit, and what writing pictures beside the work gains.

    python benchmarks/checks_and_writes.py
    python benchmarks/checks_and_writes.py --seconds 2 --batch 4

Both sides run in turns, A B B A, in this process. Edits and checks are counted in seconds of the processor,
in one thread, so that a busy machine does not show; what is written beside the work, by the clock.

- edit: a shipped-size edit of flux-tiny with the checks of `flux.finite`, and without them.
- check: the two checks alone at the size of FLUX.1, five rows of 1024 x 1024: on this machine's CPU.
- writer: tasks of a sweep whose device is a sleep, and whose pictures, 1024 x 1024, are written by the local
  engine beside the next task, or one after the other, as `Maker.make` does. A sleep holds nothing that the
  writer wants, as a GPU at work does not, and so shows the most that there is to gain.

Figures go to `benchmarks/results/checks_and_writes.json`.
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from flux import finite, generate
from flux.methods.stable_flow import Edit, EditRequest, edit
from flux.studies.sweep.cells import Prompt, Task
from flux.studies.sweep.engines import attempt
from flux.studies.sweep.engines.local import in_turn
from flux.studies.sweep.make import Job, Maker
from flux.weights.load import load_models

RESULTS = Path(__file__).parent / "results" / "checks_and_writes.json"
PROMPTS = ["a big red house under a blue day sky", "a big blue house under a blue day sky"]


Clock = Callable[[], float]


def timed(work: Callable[[], object], clock: Clock = time.process_time) -> float:
    start = clock()
    work()
    return clock() - start


def in_turns(
    sides: dict[str, Callable[[], object]], rounds: int, clock: Clock = time.process_time
) -> dict[str, list[float]]:
    """Seconds of both sides, A B B A in each round."""
    first, second = sides
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for name in (first, second, second, first) * rounds:
        seconds[name].append(timed(sides[name], clock))
    return seconds


def edits(rounds: int) -> dict[str, list[float]]:
    """Seconds of an edit of three rows, eight steps, 128 x 128, on flux-tiny."""
    torch.set_num_threads(1)
    models = load_models("flux-tiny", device="cpu", dtype="float32", prompts=PROMPTS)
    layers = (Edit(PROMPTS[1], (0, 1)), Edit(PROMPTS[1], (2, 3)))
    request = EditRequest(PROMPTS[0], layers, generate.Sampling(8, 3.5, 128, 128), compare=False)
    checks = {"is_finite": generate.is_finite, "require_finite_pictures": generate.require_finite_pictures}
    number = torch.ones((), dtype=torch.bool)
    none = {"is_finite": lambda x: number, "require_finite_pictures": lambda *of: None}

    def with_(functions: dict[str, Callable]) -> Callable[[], object]:
        def work() -> None:
            vars(generate).update(functions)
            edit(models, request)

        return work

    with_(checks)()
    try:
        return in_turns({"checked": with_(checks), "unchecked": with_(none)}, rounds)
    finally:
        vars(generate).update(checks)


def checks_alone() -> dict[str, float]:
    """Milliseconds: a step's flag, and pictures, of five rows at the size of FLUX.1."""
    latents, pictures = torch.randn(5, 4096, 64).bfloat16(), torch.randn(5, 3, 1024, 1024)
    flags = [timed(lambda: finite.is_finite(latents)) for _ in range(20)]
    looks = [timed(lambda: finite.is_finite(pictures)) for _ in range(20)]
    return {"step_ms": 1000 * median(flags), "pictures_ms": 1000 * median(looks)}


def picture(seed: int) -> Image.Image:
    """1024 x 1024 of slow colours and a little grain: a PNG of 2 MB, as a photograph's."""
    x, rng = np.linspace(0, 1, 1024), np.random.default_rng(seed)
    waves = np.sin(9 * x + seed)[:, None] * np.cos(7 * x)[None] * 60 + 128
    return Image.fromarray(
        (waves[..., None] + rng.normal(0, 6, (1024, 1024, 3))).clip(0, 255).astype(np.uint8)
    )


class Sleeper(Maker):
    """A maker whose device takes so many seconds for a task, and nothing of this process."""

    def __init__(self, folder: Path, batch: int, seconds: float):
        self.models = replace(load_models("flux-tiny", device="cpu", prompts=[]), flow=None, ae=None)
        prompts = tuple(Prompt(f"prompt {index}", index) for index in range(batch))
        self.job = Job(folder, prompts, (), generate.Sampling(1, None, 1024, 1024), lambda: self.models)
        self._parts = {}
        self.made, self.seconds = [picture(seed) for seed in range(batch)], seconds

    def pictures(self, task: Task, on_step=lambda index: None) -> list[Image.Image]:
        time.sleep(self.seconds)
        return self.made


def writes(batch: int, seconds: float, tasks: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of so many tasks of `batch` pictures."""
    asked = [Task(tuple(range(batch)), (layer,)) for layer in range(tasks)]

    def side(run: Callable[[Sleeper], object]) -> Callable[[], object]:
        def work() -> None:
            with TemporaryDirectory() as folder:
                run(replace_folder(sleeper, Path(folder)))

        return work

    with TemporaryDirectory() as folder:
        sleeper = Sleeper(Path(folder), batch, seconds)
        beside = side(lambda maker: list(in_turn(maker, asked)))
        after = side(lambda maker: [attempt(maker.make, task) for task in asked])
        return in_turns({"beside": beside, "after": after}, rounds, time.perf_counter)


def replace_folder(maker: Sleeper, folder: Path) -> Sleeper:
    maker.job = replace(maker.job, folder=folder)
    return maker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of four runs each")
    parser.add_argument("--batch", type=int, default=2, help="pictures of a task")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="that a task takes the stand-in for a device"
    )
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    drawn = picture(0)
    png = timed(lambda: drawn.save(io.BytesIO(), format="PNG"))
    wall = timed(lambda: drawn.save(io.BytesIO(), format="PNG"), time.perf_counter)
    found = {
        "edit_seconds": edits(given.rounds),
        "check": checks_alone(),
        "writer": {
            "batch": given.batch,
            "device_seconds": given.seconds,
            "tasks": given.tasks,
            "png_processor_seconds": png,
            "png_seconds": wall,
            "seconds": writes(given.batch, given.seconds, given.tasks, given.rounds),
        },
    }
    for title, seconds in (("edit", found["edit_seconds"]), ("writer", found["writer"]["seconds"])):
        (a, ours), (b, theirs) = ((name, median(values)) for name, values in seconds.items())
        print(f"{title}: {a} {ours:.3f} s, {b} {theirs:.3f} s, {ours / theirs:.3f} times")
    print("check: a step's flag {step_ms:.2f} ms, pictures {pictures_ms:.1f} ms".format(**found["check"]))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"figures in {given.output}")


if __name__ == "__main__":
    main()
