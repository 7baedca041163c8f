"""`--dry-run`: what a run would make, which files it needs, and about how long and how much memory it takes.

No weights are read. Time is counted in floating-point operations and divided by the speed of a matrix product
on this machine, so it is right within a factor of two or three.
"""

import time
from dataclasses import dataclass
from functools import singledispatch

import torch

from flux.device import pick_device, pick_dtype
from flux.methods.stable_flow import edit_passes
from flux.models import ModelSpec
from flux.studies.edit.groups import groups_of
from flux.studies.edit.spec import EditSpec
from flux.studies.folder import RunFolder
from flux.studies.needed import needed_files
from flux.studies.run import device_name, setting, size_in_words
from flux.studies.spec import Spec
from flux.studies.text.run import wanted
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.run import files_of
from flux.studies.timesteps.spec import LayerSpec

EFFICIENCY = 0.4
"""How much of a matrix product's speed a whole model reaches."""

IMPORT_SECONDS, BYTES_PER_SECOND, LAYER_SECONDS = 5.0, 1e9, 5e-4
"""Importing libraries; reading weights; and what a layer costs beside its operations."""


@dataclass(frozen=True)
class Work:
    """files: the pictures to make. batches: rows of each run of the sampler. prompts, decoded: how many."""

    files: list[str]
    batches: list[int]
    prompts: int
    decoded: int


@singledispatch
def work(spec: Spec) -> Work:
    """What a spec asks for."""
    raise TypeError(f"no estimate for {type(spec).__name__}")


@work.register
def _(spec: TestSpec) -> Work:
    files = [each.file for each in wanted(spec)]
    batches = [len(files[i : i + spec.batch]) for i in range(0, len(files), spec.batch)]
    return Work(files, batches, len(set(spec.prompts)), len(files))


@work.register
def _(spec: LayerSpec) -> Work:
    files = files_of(spec)
    return Work(files.all(), [1], 1, 2 * spec.steps + 1)


@work.register
def _(spec: EditSpec) -> Work:
    groups = list(groups_of(spec))
    passes = [(group, each) for group in groups for each in edit_passes(group.request)]
    files = list(dict.fromkeys(group.files[row] for group, each in passes for row in each.rows))
    batches = [len(each.rows) for _, each in passes]
    return Work(files, batches, 1 + len({edit.prompt for edit in spec.edits}), sum(batches))


def estimate(spec: Spec) -> str:
    """The whole answer, as lines of text."""
    asked = work(spec)
    run = RunFolder.find(spec.output, spec.recipe(), setting(spec))
    there = [file for file in asked.files if run.picture(file) is not None]
    device = pick_device(spec.model.device)
    dtype = pick_dtype(spec.model.dtype, device)
    seconds, size = cost(spec, asked, device, dtype)
    lines = [
        f"would make {len(asked.files)} pictures of {spec.width} x {spec.height}, {spec.steps} steps, "
        f"in {run.path}" + (f"; {len(there)} are there already" if there else ""),
        *(f"  {file}" for file in _shortened(asked.files)),
        *([f"because {run.note}"] if run.note else []),
        *(["finished already: nothing to do without --overwrite"] if run.finished else []),
        "needs",
        *(f"  {title:<21}{where}: {state}" for title, where, state in needed_files(spec)),
        f"on {device_name(device)} in {str(dtype).removeprefix('torch.')}: about {time_in_words(seconds)} "
        f"and {size_in_words(size)} of memory",
    ]
    return "\n".join(lines)


def _shortened(files: list[str], most: int = 12) -> list[str]:
    return files if len(files) <= most else [*files[: most - 1], f"... and {len(files) - most + 1} more"]


def time_in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def cost(spec: Spec, asked: Work, device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """About how many seconds a run takes, and the most bytes it holds at a time."""
    model = spec.model.record
    tokens = model.t5_length + (spec.width // 16) * (spec.height // 16)
    evaluations = len(asked.batches) * spec.steps
    operations = (
        sum(asked.batches) * spec.steps * flow_operations(model, tokens)
        + asked.prompts * 2 * model.t5_parameters * model.t5_length
        + asked.decoded * model.decoder_operations * spec.width * spec.height
    )
    parts = [
        model.flow_parameters * dtype.itemsize,
        (model.t5_parameters + model.clip_parameters) * dtype.itemsize,
        model.ae_parameters * 4,
    ]
    seconds = (
        IMPORT_SECONDS
        + sum(parts) / BYTES_PER_SECOND
        + evaluations * len(model.layers) * LAYER_SECONDS
        + operations / (EFFICIENCY * speed(device, dtype))
    )
    # Queries, keys, values, MLP and their results of one layer; the decoder's finest maps.
    sampling = max(asked.batches) * tokens * model.params.hidden_size * 24 * dtype.itemsize
    decoding = spec.width * spec.height * model.ae_params.ch * 4 * dtype.itemsize
    libraries = 4e8 if device.type == "cpu" else 0
    weights = max(parts) if spec.model.offload else sum(parts)
    return seconds, weights + max(sampling, decoding) + libraries


def flow_operations(model: ModelSpec, tokens: int) -> float:
    """Operations of one evaluation of one row: linear layers, and attention's two products."""
    hidden = model.params.hidden_size
    return len(model.layers) * (24 * hidden**2 * tokens + 4 * hidden * tokens**2)


def speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, measured now."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
