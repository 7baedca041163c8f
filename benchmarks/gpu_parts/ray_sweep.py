"""A sweep of a few cells of flux-tiny by the engine `ray`, with one GPU, against the engine `local` on it."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from gpu_common.machine import ROOT
from gpu_common.record import Record, Skip
from gpu_common.scale import Setup
from PIL import Image

DEMO = ROOT / "demos" / "demo_2_skip.py"
PROMPTS = ("a red car on the grass", "a blue boat under a night sky")
SWEEP = ("--layers", "[0, 5, 11]", "--batch", "2", "--noise_floor", "0")
CELLS = 8  # a reference and three pictures of each prompt


def run(setup: Setup, record: Record) -> None:
    if not DEMO.is_file():
        raise Skip("there is no folder demos/ here")
    with TemporaryDirectory(prefix="sweep-") as folder:
        prompts = Path(folder) / "prompts.json"
        prompts.write_text(json.dumps({"prompts": [{"prompt": text} for text in PROMPTS]}), encoding="utf-8")
        cells, seconds = {}, {}
        for engine in ("local", "ray"):
            output = Path(folder) / engine
            seconds[engine] = sweep(engine, prompts, output, setup)
            cells[engine] = digests(output)
            record.put(seconds=seconds, cells={name: len(found) for name, found in cells.items()})
        record.put(**compared(cells["local"], cells["ray"], Path(folder)))


def sweep(engine: str, prompts: Path, output: Path, setup: Setup) -> float:
    """Make the sweep; returns its seconds, start of the program included."""
    what = ["--prompts", str(prompts), *SWEEP]
    where = ["--engine", engine, "--model.device", setup.device.type, "--output", str(output)]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(DEMO), *what, *where], check=False)
    if done.returncode:
        raise RuntimeError(f"the sweep by the engine {engine} ended with {done.returncode}")
    return time.perf_counter() - start


def digests(output: Path) -> dict[str, str]:
    """The SHA-256 of each picture, by its file."""
    with open(output / "cells.csv", newline="", encoding="utf-8") as stream:
        return {row["file"]: row["sha256"] for row in csv.DictReader(stream) if row["file"]}


def compared(local: dict[str, str], ray: dict[str, str], folder: Path) -> dict[str, Any]:
    """How many cells are the same bytes, and the largest difference of a pixel, in levels of 255."""
    both = sorted(local.keys() & ray.keys())
    if not len(both) == len(local) == len(ray) == CELLS:
        raise RuntimeError(f"of {CELLS} cells the engine local made {len(local)}, ray {len(ray)}")
    apart = [difference(folder / "local" / file, folder / "ray" / file) for file in both]
    return {"same_bytes": sum(local[file] == ray[file] for file in both), "largest_difference": max(apart)}


def difference(a: Path, b: Path) -> int:
    first, second = (np.asarray(Image.open(file).convert("RGB"), dtype=np.int16) for file in (a, b))
    return int(np.abs(first - second).max())


def table(figures: dict[str, Any]) -> list[str]:
    lines = [f"- {engine}: {taken:.1f} s" for engine, taken in figures.get("seconds", {}).items()]
    if "same_bytes" in figures:
        same, worst = figures["same_bytes"], figures["largest_difference"]
        lines.append(f"- {same} of {figures['cells']['local']} cells are the same bytes")
        lines.append(f"- the largest difference of a pixel: {worst} of 255")
    return lines
