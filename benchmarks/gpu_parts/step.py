"""One denoising step, ours against diffusers: one evaluation of the model and the Euler update.

Options: compiled. Without it steps run eagerly, at batch 1, 2 and 4; with it at batch 1, first eagerly and
then with each block compiled by itself (one graph for each of the two kinds of block).
"""

import time
from typing import Any

import torch
from gpu_common import clock
from gpu_common.machine import missing
from gpu_common.models import BUILD, blocks_of, inputs_of, random_model, step_of
from gpu_common.record import Record, one_line
from gpu_common.scale import Setup
from gpu_common.turns import Case, keep, measure, require_one
from gpu_common.turns import table as cases_table
from torch import nn

ORDER = ("ours", "diffusers", "diffusers", "ours")
EAGER = [Case(f"eager, batch {batch}", batch) for batch in (1, 2, 4)]
COMPILED = Case("compiled, batch 1", 1, against=EAGER[0].name)


@torch.no_grad()
def run(setup: Setup, record: Record) -> None:
    order = ORDER
    if missing(("diffusers",)):
        order = ("ours", "ours")
        record.put(note="diffusers is not installed: ours alone")
    rows: list[dict[str, Any]] = []
    record.put(order=order, compile_s={})
    for name in order:
        # The model is alone in memory while it is measured.
        model = random_model(lambda name=name: BUILD[name](setup.scale.params), setup.device, setup.dtype)
        if setup.options.get("compiled"):
            rows.append(measure(name, model, EAGER[0], setup))
            keep(record, rows, setup)
            rows.append(measure_compiled(name, model, setup, record))
            keep(record, rows, setup)
        else:
            for case in EAGER:
                rows.append(measure(name, model, case, setup))
                keep(record, rows, setup)
        del model
        clock.free(setup.device)
    require_one(rows)


def measure_compiled(name: str, model: nn.Module, setup: Setup, record: Record) -> dict[str, Any]:
    """The row of a turn. The first step, which compiles, is timed apart: the first turn of a model finds
    nothing compiled, the second what is kept on the disk."""
    torch.compiler.reset()
    try:
        for block in blocks_of(name, model):
            block.compile()
        step = step_of(name, model, inputs_of(setup, COMPILED.batch))
        start = time.perf_counter()
        step()
        clock.synchronize(setup.device)
    except Exception as error:
        return _failed(name, error)
    compile_s = record.figures["compile_s"]
    record.put(compile_s={**compile_s, name: [*compile_s.get(name, []), time.perf_counter() - start]})
    return measure(name, model, COMPILED, setup)


def _failed(name: str, error: Exception) -> dict[str, Any]:
    about = {"model": name, "case": COMPILED.name, "batch": COMPILED.batch, "against": COMPILED.against}
    return about | {"error": one_line(error)}


def table(figures: dict[str, Any]) -> list[str]:
    lines = [figures["note"], ""] if "note" in figures else []
    lines += cases_table(figures)
    for name, taken in figures.get("compile_s", {}).items():
        lines.append(f"- compiling {name}: {', '.join(f'{each:.0f}' for each in taken)} s")
    return lines
