"""How fast weights come from a file onto the device: one file in the official format, written before.

It is read as `load_flow_model` reads a checkpoint, and by safetensors alone: A B B A. Before that, once more
from the disk itself, where the system lets us drop the file from its cache.
"""

import os
import statistics
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpu_common import clock
from gpu_common.models import random_model
from gpu_common.record import Record
from gpu_common.scale import Setup
from safetensors.torch import load_file, save_file

from flux.model import Flux, FluxParams
from flux.util import configs, load_flow_model

MODEL = "one-shard"
WAYS = ("load_flow_model", "safetensors alone", "safetensors alone", "load_flow_model")


def run(setup: Setup, record: Record) -> None:
    double, single = setup.scale.shard
    params = replace(setup.scale.params, depth=double, depth_single_blocks=single)
    # A model of a few blocks, so that a file of theirs is a whole checkpoint.
    configs[MODEL] = replace(configs["flux-dev"], params=params)
    with TemporaryDirectory(prefix="flux-shard-") as folder:
        file = Path(folder) / "shard.safetensors"
        record.put(gigabytes=write(file, params, setup) / 1e9, seconds={}, peak_gb={})
        if drop_from_cache(file):
            keep("load_flow_model, from the disk", *timed("load_flow_model", file, setup), record)
        timed("load_flow_model", file, setup)  # so that each way finds the file in the cache
        for way in WAYS:
            keep(way, *timed(way, file, setup), record)


def write(file: Path, params: FluxParams, setup: Setup) -> int:
    """Write random weights to the file; returns its size in bytes."""
    model = random_model(lambda: Flux(params), setup.device, setup.dtype)
    save_file({key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}, file)
    del model
    clock.free(setup.device)
    return file.stat().st_size


def drop_from_cache(file: Path) -> bool:
    """Have the system forget what it keeps of the file in memory; False where it cannot be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def timed(way: str, file: Path, setup: Setup) -> tuple[float, float | None]:
    """Seconds, and the peak of GPU memory."""

    def load() -> object:
        if way == "safetensors alone":
            return load_file(file, device=str(setup.device))
        return load_flow_model(MODEL, setup.device, dtype=setup.dtype, weights=file)

    clock.free(setup.device)
    clock.reset_peak(setup.device)
    return clock.seconds(load, setup.device), clock.peak_gb(setup.device)


def keep(way: str, taken: float, peak: float | None, record: Record) -> None:
    seconds, peaks = record.figures["seconds"], record.figures["peak_gb"]
    record.put(seconds={**seconds, way: [*seconds.get(way, []), taken]}, peak_gb={**peaks, way: peak})


def table(figures: dict[str, Any]) -> list[str]:
    size = figures.get("gigabytes", 0.0)
    lines = [f"| a file of {size:.2f} GB | seconds | GB/s |", "| --- | --- | --- |"]
    for way, taken in figures.get("seconds", {}).items():
        median = statistics.median(taken)
        lines.append(f"| {way} | {', '.join(f'{each:.2f}' for each in taken)} | {size / median:.1f} |")
    return lines
