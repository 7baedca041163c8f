"""Sweeps by every probe over the same prompts, made as by demo 2, and what demo 3 measures of them."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flux.studies.reading import load_spec
from flux.studies.run import changed
from flux.studies.similarity.findings import ComparedCell
from flux.studies.similarity.inputs import find_inputs
from flux.studies.similarity.measures import REFERENCES
from flux.studies.similarity.measuring import Store, measure
from flux.studies.similarity.probed import files_of, probed
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.run import sweep
from flux.studies.sweep.spec import SkipSpec
from flux.tiny.captions import plain_caption
from flux.tiny.scenes import sample_scene
from flux.util import TINY_WEIGHTS

PROBES: Mapping[str, Any] = {
    "skip": "skip",
    "attention": "attention",
    "mlp": "mlp",
    "carry": "carry",
    "carry, keys": {"name": "carry", "values": False},
    "carry, values": {"name": "carry", "keys": False},
    "text": "text",
    "text-scale 0": {"name": "text-scale", "scale": 0.0},
    "mean": "mean",
    "position": "probes_parts.own:position",
}
"""By row of the table, the key `probe` of demo 2's spec."""

CLAIMED = ("skip", "carry", "text", "position")
"""Those that sets and claims need."""

METRICS = ("dino", "dino-patches", "dino-whitened", "ssim")

LAYERS = tuple(range(12))
TOGETHER = ((4, 5, 6), (7, 8, 9), (9, 10, 11), (4, 7, 10), (5, 8, 11), (4, 8, 11))
"""Single blocks skipped together: three runs of neighbours, then three of blocks apart."""


@dataclass(frozen=True)
class Sweeps:
    """What each sweep moved: by probe and metric, (prompts, layers); and the same of `TOGETHER` skipped."""

    moved: Mapping[str, Mapping[str, np.ndarray]]
    together: Mapping[str, np.ndarray]


def draw_prompts(count: int, seed: int) -> list[dict[str, Any]]:
    """Captions of scenes, each once, with the seed of its noise."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        found.setdefault(plain_caption(sample_scene(rng)))
    return [{"prompt": text, "seed": i} for i, text in enumerate(found)]


def make_sweeps(folder: Path, prompts: int, steps: int, seed: int, without: Container[str] = ()) -> Sweeps:
    """Make, or finish, the sweeps in a folder, but for those by some probes, and measure them."""
    shared = {"prompts": draw_prompts(prompts, seed), "steps": steps, "noise_floor": 0}
    moved: dict[str, dict[str, np.ndarray]] = {}
    together: dict[str, np.ndarray] = {}
    for name, probe in PROBES.items():
        if name in without:
            continue
        joint = [list(each) for each in TOGETHER] if name == "skip" else []
        output = str(folder / "sweeps" / name.replace(", ", "-").replace(" ", "-"))
        values = {**shared, "layers": ["all", *joint], "probe": probe, "output": output}
        spec = load_spec(SkipSpec, None, values)
        if sweep(spec) != 0:
            raise RuntimeError(f"{output}: cells are missing; the same command goes on")
        rows = _measured(Path(output))
        moved[name] = {metric: _table(rows, metric, [(layer,) for layer in LAYERS]) for metric in METRICS}
        if joint:
            together = {metric: _table(rows, metric, list(TOGETHER)) for metric in METRICS}
    return Sweeps(moved, together)


def _measured(folder: Path) -> list[ComparedCell]:
    values = {"sweep": str(folder), "metrics": list(METRICS), "model": str(TINY_WEIGHTS / "dino")}
    spec = load_spec(DinoSpec, None, values)
    spec = changed(spec, device="cpu")
    found = find_inputs(spec)
    references = [found.reference(prompt) for prompt in range(len(found.prompts))][:REFERENCES]
    measured = measure(spec, files_of(found), str(TINY_WEIGHTS / "dino"), Store(folder), references)
    return list(probed(spec, found, measured.figures).rows)


def _table(rows: list[ComparedCell], metric: str, parts: list[tuple[int, ...]]) -> np.ndarray:
    prompts = sorted({row.cell.prompt for row in rows})
    values = np.full((len(prompts), len(parts)), np.nan)
    for row in rows:
        if row.cell.part.layers in parts:
            values[row.cell.prompt, parts.index(row.cell.part.layers)] = row.figures[metric]
    return values
