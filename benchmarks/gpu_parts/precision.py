"""A flow model in a precision: its peak of memory while it is filled, and one step, beside the plain one.

Options: precision, and cap_gib. Weights are random and come tensor by tensor, as from a file, so that no more
than one is there in full; quantising happens on the device. What does not fit is a result.
"""

from statistics import median
from typing import Any

import torch
from gpu_common import clock
from gpu_common.models import inputs_of, random_tensor, step_of
from gpu_common.record import Record
from gpu_common.scale import Setup
from gpu_common.turns import OUT_OF_MEMORY, number

from flux.formats.fill import assign
from flux.model import Flux
from flux.precision.choice import Precision
from flux.precision.quantising import Quantiser
from gpu_parts.edit import attempt, cap

BATCHES = (1, 4)


def run(setup: Setup, record: Record) -> None:
    if "cap_gib" in setup.options:
        cap(setup.options["cap_gib"], setup.device)
    name = setup.options["precision"]
    record.put(cap_gib=setup.options.get("cap_gib"), precision=name, size=setup.scale.size)
    phases = clock.Phases(setup.device)
    phases.enter("filling")
    model, failed = attempt(lambda: filled(setup, Precision(name)))
    phases.close()
    rows: list[dict[str, Any]] = []
    record.put(filling=phases.done, result=OUT_OF_MEMORY if failed else "made", steps=rows)
    for batch in () if failed else BATCHES:
        row, failed = attempt(lambda batch=batch: stepped(setup, model, batch))
        rows.append({"batch": batch, "result": OUT_OF_MEMORY} if failed else row)
        record.put(steps=rows)


def filled(setup: Setup, precision: Precision) -> Flux:
    """The flow model, each weight drawn on the device and quantised before the next."""
    with torch.device("meta"):
        model = Flux(setup.scale.params)
    quantiser = Quantiser(precision, "flow model", setup.scale.params.depth)
    for key, tensor in model.state_dict().items():
        assign(model, key, random_tensor(key, tensor.shape, setup.device, setup.dtype))
        quantiser(model, key)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def stepped(setup: Setup, model: Flux, batch: int) -> dict[str, Any]:
    """Steps of a batch: the median of their times, and the peak of memory."""
    step = step_of("ours", model, inputs_of(setup, batch))
    clock.reset_peak(setup.device)
    taken = clock.milliseconds(step, setup.device, setup.scale.warmup, setup.scale.repeats_of_batches)
    return {
        "batch": batch,
        "result": "made",
        "finite": bool(step().isfinite().all()),
        "median_ms": median(taken),
        "peak_gb": clock.peak_gb(setup.device),
    }


def table(figures: dict[str, Any]) -> list[str]:
    within = f" within {figures['cap_gib']} GiB" if figures.get("cap_gib") else ""
    lines = [f"Weights in {figures.get('precision')}{within}: {figures.get('result', '-')}", ""]
    lines += ["| what | ms | peak, GB |", "| --- | --- | --- |"]
    for phase in figures.get("filling", []):
        lines.append(f"| filling | {1000 * phase['seconds']:.0f} | {number(phase['peak_gb'])} |")
    for row in figures.get("steps", []):
        said = (
            f"{number(row['median_ms'])} | {number(row['peak_gb'])}" if "median_ms" in row else OUT_OF_MEMORY
        )
        lines.append(f"| a step, batch {row['batch']} | {said} |")
    return lines
