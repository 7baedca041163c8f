"""What a run made of a task set, kept: more rows of it, or a table that was cut off, cost no velocities.

The table's folder holds:

    latents/<run>.safetensors   latents, the run's mask, evaluations, and how it gives pictures back
    costs/run-<run>.json        its seconds and memory, which no two runs share
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from editing_parts.cost import Cost
from editing_parts.making import Outcome
from editing_parts.rows import Run
from flux.files import write_atomically


def outcome_files(folder: Path, run: Run, pairs: int, steps: int) -> tuple[Path, Path]:
    """Where a run over so many pairs is kept, and its cost."""
    name = hashlib.sha256(f"{run.key} {pairs} {steps}".encode()).hexdigest()[:16]
    return folder / "latents" / f"{name}.safetensors", folder / "costs" / f"run-{name}.json"


def keep(files: tuple[Path, Path], outcome: Outcome, rebuilt: list[float]) -> None:
    """Write an outcome; rebuilt: dB for the first pairs, see `Bench`."""
    latents, costs = files
    tensors = {
        "latents": outcome.latents.cpu(),
        "evaluations": torch.tensor(outcome.evaluations),
        "rebuilt": torch.tensor(rebuilt, dtype=torch.float64),
        "spread": torch.tensor(outcome.spread, dtype=torch.float64),
    }
    if outcome.mask is not None:
        tensors["mask"] = outcome.mask.cpu()
    write_atomically(costs, json.dumps(asdict(outcome.cost)).encode())
    write_atomically(latents, save({name: each.contiguous() for name, each in tensors.items()}))


def kept(files: tuple[Path, Path], device: torch.device) -> tuple[Outcome, list[float]] | None:
    """What is kept of a run; None where there is nothing."""
    latents, costs = files
    if not (latents.is_file() and costs.is_file()):
        return None
    found = load_file(latents)
    mask = found["mask"].to(device) if "mask" in found else None
    outcome = Outcome(
        found["latents"].to(device),
        mask,
        tuple(found["evaluations"].tolist()),
        float(found["spread"]),
        Cost(**json.loads(costs.read_text(encoding="utf-8"))),
    )
    return outcome, found["rebuilt"].tolist()
