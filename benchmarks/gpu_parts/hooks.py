"""What hooks cost or save in one step: a layer skipped, and the source's keys and values copied in the nine
layers of the set `released`."""

from typing import Any

import torch
from gpu_common.models import random_model
from gpu_common.record import Record
from gpu_common.scale import Scale, Setup
from gpu_common.turns import Case, keep, measure, require_one, table

from flux.hooks import CopySource, Hooks
from flux.model import Flux

__all__ = ["run", "table"]


def pairs(scale: Scale) -> list[tuple[Case, Case]]:
    """Each plain case and the hooked one that is held against it. An injection needs a source and an edit."""
    alone, both = Case("plain, batch 1", 1), Case("plain, batch 2", 2)
    skip, inject = Hooks(skip=[scale.skip]), Hooks(inject=dict.fromkeys(scale.inject, CopySource()))
    layers = f"{len(scale.inject)} layers"
    return [
        (alone, Case("skip one layer, batch 1", 1, skip, against=alone.name)),
        (both, Case(f"inject {layers}, batch 2", 2, inject, against=both.name)),
    ]


@torch.no_grad()
def run(setup: Setup, record: Record) -> None:
    model = random_model(lambda: Flux(setup.scale.params), setup.device, setup.dtype)
    rows: list[dict[str, Any]] = []
    for plain, hooked in pairs(setup.scale):
        for case in (plain, hooked, hooked, plain):
            rows.append(measure("ours", model, case, setup))
            keep(record, rows, setup)
    require_one(rows)
