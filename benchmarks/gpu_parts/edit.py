"""A whole edit, from loading to decoding, with the peak of memory in each phase.

Four rows: a source, and three edits that look at it in the nine layers of the set `released`. Where parts of
the model are when, by each way to offload of `flux.placement.modes`. Few steps: each takes the same memory.

Options: cap_gib. With it this process may take no more GPU memory than a card of that size has. What does
not fit is a result: the phase in which memory ran out is recorded, and if it was the sampling, two rows are
tried.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from gpu_common import clock
from gpu_common.encoders import random_clip, random_t5
from gpu_common.models import random_model, waiting_flow
from gpu_common.record import Record
from gpu_common.scale import Setup
from gpu_common.turns import OUT_OF_MEMORY, number

from flux.generate import Sampling, decode, encode, sample_steps
from flux.hooks import CopySource, Hooks
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.placement.modes import OFFLOAD_KEYS, STREAM, Offload, offload_name
from flux.util import Models, configs

ROWS = (4, 2)
WAYS = OFFLOAD_KEYS[:4]
LOADING, SAMPLING = "loading (random weights)", "sampling"
PROMPTS = ("a red house by a lake", "a blue house by a lake", "a red house in snow", "a red boat on a lake")


def run(setup: Setup, record: Record) -> None:
    if "cap_gib" in setup.options:
        cap(setup.options["cap_gib"], setup.device)
    record.put(cap_gib=setup.options.get("cap_gib"), steps=setup.scale.edit_steps, size=setup.scale.size)
    edits: list[dict[str, Any]] = []
    for offload in WAYS:
        for edit in tries(setup, offload):
            edits.append(edit)
            record.put(edits=edits)
        clock.free(setup.device)


def cap(gib: float, device: torch.device) -> None:
    """Let this process' tensors have no more than `gib` GiB, as a smaller card would."""
    total = torch.cuda.get_device_properties(device).total_memory
    if gib * 2**30 < total:
        torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total, device)


def tries(setup: Setup, offload: Offload) -> Iterator[dict[str, Any]]:
    """Load once; edit with four rows, and with two if four do not fit. Yields what came of each."""
    phases = clock.Phases(setup.device)
    phases.enter(LOADING)
    models, failed = attempt(lambda: random_models(setup, offload))
    phases.close()
    loading = phases.done
    if failed:
        yield about(offload, ROWS[0], loading, failed=LOADING)
        return
    for rows in ROWS:
        phases = clock.Phases(setup.device)
        finite, failed = attempt(lambda rows=rows, phases=phases: edit(models, setup, rows, offload, phases))
        where = phases.now if failed else None
        phases.close()
        yield about(offload, rows, loading + phases.done, failed=where, finite=finite)
        if where != SAMPLING:
            return
        clock.free(setup.device)


def attempt(call: Callable[[], Any]) -> tuple[Any, bool]:
    """What a call returns, and whether it ran out of GPU memory. Other errors pass."""
    try:
        return call(), False
    except RuntimeError as error:
        if not clock.is_out_of_memory(error):
            raise
        print(f"  out of memory: {' '.join(str(error).split())[:160]}", flush=True)
    # Here the error is gone, and with it what its frames held.
    return None, True


def about(
    offload: Offload, rows: int, phases: list[dict], *, failed: str | None, finite: bool | None = None
) -> dict[str, Any]:
    result = "made" if failed is None else OUT_OF_MEMORY
    print(
        f"  {rows} rows, offload {offload_name(offload)}: {result}{f' in {failed}' if failed else ''}",
        flush=True,
    )
    return {
        "offload": offload,
        "rows": rows,
        "result": result,
        "ran_out_in": failed,
        "finite": finite,
        "phases": phases,
    }


def random_models(setup: Setup, offload: Offload) -> Models:
    """What `load_models` returns, in its order: with offload, flow model and autoencoder wait on the CPU.

    T5 too where it is streamed, but it is drawn on the device, which draws faster.
    """
    scale, device, dtype = setup.scale, setup.device, setup.dtype
    t5 = random_t5(scale, device, dtype)
    if offload == STREAM:
        t5.cpu()
        clock.free(device)
    clip = random_clip(scale, device, dtype)
    waiting = torch.device("cpu") if offload else device
    ae = random_model(lambda: AutoEncoder(scale.ae), waiting, torch.float32)
    if offload:
        flow = waiting_flow(scale.params, device, dtype)
        clock.free(device)
    else:
        flow = random_model(lambda: Flux(scale.params), device, dtype)
    spec = configs["flux-dev"]
    return Models("flux-dev", flow, ae, t5, clip, device=device, dtype=dtype, spec=spec)


def edit(models: Models, setup: Setup, rows: int, offload: Offload, phases: clock.Phases) -> bool:
    """One pass of an edit; returns whether the pictures hold numbers alone."""
    height, width = setup.scale.size
    sampling = Sampling(setup.scale.edit_steps, 3.5, width, height)
    prompts = list(PROMPTS[:rows])
    hooks = Hooks(inject=dict.fromkeys(setup.scale.inject, CopySource()))
    phases.enter("encoding")
    texts = encode(models, prompts, offload=offload)
    phases.enter("flow model to the device")
    begins = models.flow.register_forward_pre_hook(lambda *_: phases.enter(SAMPLING))
    try:
        steps = sample_steps(models, texts, prompts, [0] * rows, sampling, hooks=hooks, offload=offload)
        for step in steps:
            if step.index == step.steps - 1:
                phases.enter("flow model from the device")
    finally:
        begins.remove()
    phases.enter("decoding")
    pictures = decode(models, step.after, sampling, offload=offload)
    phases.close()
    return bool(pictures.isfinite().all())


def table(figures: dict[str, Any]) -> list[str]:
    steps, size = figures.get("steps"), figures.get("size")
    lines = [f"{steps} steps, height and width {size}, " + cap_in_words(figures.get("cap_gib")), ""]
    lines += ["| offload | rows | phase | seconds | peak GB | reserved GB |", "| --- " * 6 + "|"]
    for each in figures.get("edits", []):
        start = f"| {offload_name(each['offload'])} | {each['rows']} |"
        for phase in each["phases"]:
            peaks = f"{number(phase['peak_gb'])} | {number(phase['reserved_gb'])} |"
            lines.append(f"{start} {phase['phase']} | {phase['seconds']:.2f} | {peaks}")
        if each["ran_out_in"]:
            lines.append(f"{start} **{each['result']} in {each['ran_out_in']}** | | | |")
    return lines


def cap_in_words(gib: float | None) -> str:
    return "no cap on memory" if gib is None else f"{gib} GiB of GPU memory at most"
