"""`--dry-run`: what a run would make, which files it needs, and about how long and how much memory it takes.

No weights are read. Time is counted in floating-point operations and divided by the speed of a matrix product
on this machine, so it is right within a factor of two or three.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from flux.device import pick_device, pick_dtype
from flux.models import ModelSpec
from flux.placement.modes import AUTO, MODULATION, is_stream
from flux.placement.peaks import peaks_of, predict_peaks
from flux.placement.picking import best_fit, free_bytes
from flux.precision.sizes import flow_bytes, t5_bytes
from flux.speed import require_attention, require_compiler
from flux.studies.folder import RunFolder
from flux.studies.machine import device_name, size_in_words
from flux.studies.needed import needed_files
from flux.studies.run import demand_of, setting
from flux.studies.spec import Spec

EFFICIENCY = 0.4
"""How much of a matrix product's speed a whole model reaches."""

IMPORT_SECONDS, BYTES_PER_SECOND, LAYER_SECONDS = 5.0, 1e9, 5e-4
"""Importing libraries; reading weights; and what a layer costs beside its operations."""


@dataclass(frozen=True)
class Work:
    """What a spec asks for.

    files: the pictures to make. batches: rows of each run of the sampler. prompts: each once.
    decoded: how many latents.
    models: those that are needed beside the spec's own, folder or hub name by title.
    kept: files that are made with the pictures and are none, such as latents. held: bytes that stay on the
    device, with 2 a number, such as a source's keys and values.
    evaluations: of one row, all together; None where every row is sampled plainly. notes: further lines.
    size: of the pictures, in words; empty where it is the spec's.
    """

    files: Sequence[str]
    batches: Sequence[int]
    prompts: Sequence[str]
    decoded: int
    models: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[str] = ()
    held: float = 0.0
    evaluations: float | None = None
    notes: Sequence[str] = ()
    size: str = ""

    @property
    def every(self) -> list[str]:
        """All files that are made."""
        return [*self.files, *self.kept]


def estimate(spec: Spec, work: Work) -> str:
    """The whole answer for pictures that are made in one go, as lines of text."""
    run = RunFolder.find(spec.output, spec.recipe(), setting(spec))
    there = [file for file in work.files if run.is_whole(file)]
    damaged = run.damaged(work.every) if run.finished else []
    seconds, size = cost(spec, work)
    count = len(work.files)
    lines = [
        f"would make {count} picture{'s' * (count != 1)} of {work.size or f'{spec.width} x {spec.height}'}, "
        f"{spec.steps} steps, in {run.path}" + (f"; {len(there)} are there already" if there else ""),
        *(f"  {file}" for file in _shortened(work.files)),
        *work.notes,
        *([f"because {run.note}"] if run.note else []),
        *(["finished already: nothing to do without --overwrite"] if run.finished and not damaged else []),
        *([f"gone or damaged, to be made again: {', '.join(_shortened(damaged, 4))}"] if damaged else []),
        *needs(needed_files(spec, work.models)),
        weights_in_words(spec),
        f"{on_what(spec)}: about {time_in_words(seconds)} and {size_in_words(size)} of memory",
        *refusals_here(spec),
    ]
    return "\n".join(lines)


def needs(files: Iterable[tuple[str, str, str]]) -> list[str]:
    """Lines that say which files are needed: title, place and state of each."""
    return ["needs", *(f"  {title:<21}{where}: {state}" for title, where, state in files)]


def refusals_here(spec: Spec) -> Iterator[str]:
    """A line, where this machine lacks what the model is to be faster by: a kernel, or a compiler."""
    device = pick_device(spec.model.device)
    try:
        require_attention(spec.model.attention, device)
        if spec.model.compile:
            require_compiler(device)
    except ValueError as error:
        yield f"would be refused here: {error}"


def on_what(spec: Spec) -> str:
    """`on cpu (2 threads) in float32`."""
    device = pick_device(spec.model.device)
    dtype = pick_dtype(spec.model.computes_in, device)
    return f"on {device_name(device)} in {str(dtype).removeprefix('torch.')}"


def weights_in_words(spec: Spec) -> str:
    """`weights in int8: flow model 14.2 GB, T5 4.9 GB`, by the precision that is asked for."""
    model, precision = spec.model.record, spec.model.kept_in()
    dtype = pick_dtype(spec.model.computes_in, pick_device(spec.model.device))
    kept = precision if precision is not None else str(dtype).removeprefix("torch.")
    flow, t5 = (count(model, precision, dtype.itemsize) for count in (flow_bytes, t5_bytes))
    return f"weights in {kept}: flow model {size_in_words(flow)}, T5 {size_in_words(t5)}"


def _shortened(files: Sequence[str], most: int = 12) -> Sequence[str]:
    return files if len(files) <= most else [*files[: most - 1], f"... and {len(files) - most + 1} more"]


def time_in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def cost(spec: Spec, work: Work) -> tuple[float, float]:
    """About how many seconds a run takes, and the most bytes it holds at a time."""
    model, device = spec.model.record, pick_device(spec.model.device)
    dtype, precision = pick_dtype(spec.model.computes_in, device), spec.model.kept_in()
    tokens = model.t5_length + (spec.width // 16) * (spec.height // 16) + model.reference_tokens
    sampled = spec.integrator.record.evaluations_in(spec.steps)
    evaluations = len(work.batches) * sampled
    rows = sum(work.batches) * sampled if work.evaluations is None else work.evaluations
    operations = (
        rows * flow_operations(model, tokens)
        + len(work.prompts) * 2 * model.t5_parameters * model.t5_length
        + work.decoded * model.decoder_operations * spec.width * spec.height
    )
    parts = [
        flow_bytes(model, precision, dtype.itemsize),
        t5_bytes(model, precision, dtype.itemsize) + model.clip_parameters * dtype.itemsize,
        model.ae_parameters * 4,
    ]
    seconds = (
        IMPORT_SECONDS
        + sum(parts) / BYTES_PER_SECOND
        + evaluations * len(model.layers) * LAYER_SECONDS
        + operations / (EFFICIENCY * speed(device, dtype))
    )
    # Queries, keys, values, MLP and their results of one layer; the decoder's finest maps.
    sampling = max(work.batches) * tokens * model.params.hidden_size * 24 * dtype.itemsize
    decoding = spec.width * spec.height * model.ae_params.ch * 4 * dtype.itemsize
    libraries = 4e8 if device.type == "cpu" else 0
    encoders = parts.pop(1)  # which have read all prompts before the others come
    offload = spec.model.offload
    if device.type == "cuda" and (offload in (MODULATION, AUTO) or is_stream(offload)):
        peaks = predict_peaks(model, dtype, demand_of(spec, max(work.batches), work.held), precision)
        picked = best_fit(peaks, free_bytes(device))[0] if offload == AUTO else offload
        return seconds, peaks_of(picked, peaks).most
    weights = max(encoders, max(parts) if spec.model.offload else sum(parts))
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
