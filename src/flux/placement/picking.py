"""What `auto` picks: the first way whose predicted peak fits into the memory that is free."""

from collections.abc import Sequence

import torch

from flux.models import ModelSpec
from flux.placement.modes import AUTO, NONE, Offload, is_stream, offload_key, staying_blocks
from flux.placement.peaks import Demand, PeakBytes, predict_peaks
from flux.precision.choice import Precision

SLACK = 0.6e9
"""Bytes that are left for what is not predicted: kernels' own memory, and gaps between tensors."""

CONTEXT = 0.5e9
"""Bytes that the driver takes of a card before the first tensor."""


def pick_offload(
    offload: Offload,
    model: ModelSpec,
    dtype: torch.dtype,
    device: torch.device,
    demand: Demand,
    precision: Precision | None = None,
) -> Offload:
    """The way itself; of `auto` the one that fits, which is said in a line.

    precision: of weights that are quantised. Raises ValueError for a way that does not exist.
    """
    key = offload_key(offload)
    if key != AUTO:
        return key
    if device.type != "cuda":
        print(f"offload auto: {NONE}, since on {device.type} all parts share one memory")
        return False
    free = free_bytes(device)
    way, why = best_fit(predict_peaks(model, dtype, demand, precision), free)
    print(f"offload auto: {way}, {why}")
    return offload_key(way)


def best_fit(peaks: Sequence[PeakBytes], free: float) -> tuple[str, str]:
    """The first way that fits into so many bytes, or the last, and why, in words.

    peaks: in the order in which they need less, so that of streaming as many blocks stay as fit.
    """
    fitting = [each for each in peaks if each.most + SLACK <= free]
    picked = fitting[0] if fitting else peaks[-1]
    told = (each for each in peaks[: peaks.index(picked) + 1] if each is picked or not has_number(each.way))
    needs = ", ".join(f"{each.way} {each.most / 1e9:.1f}" for each in told)
    why = f"as {free / 1e9:.1f} GB are free, and predicted to be needed are: {needs}"
    return picked.way, why if fitting else f"{why}, so that it may run out"


def has_number(way: str) -> bool:
    """Whether it is of streaming with some blocks that stay."""
    return is_stream(way) and staying_blocks(way) > 0


def free_bytes(device: torch.device) -> float:
    """What a GPU has free, with what torch holds of it and does not use."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def card_bytes(gib: float) -> float:
    """What a card sold with so many GB, which are GiB, leaves for tensors."""
    return gib * 2**30 - CONTEXT
