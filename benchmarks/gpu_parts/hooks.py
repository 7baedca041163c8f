"""What hooks cost or save in one step: a layer skipped; the source's keys and values copied in nine layers.

These are the set `released`. The source stands in the batch, or is kept; then an edit is held against a plain
picture. Options: compiled. With it the blocks are compiled, each by itself; the first step of a case, which
may compile, is not measured.
"""

from typing import Any

import torch
from gpu_common.models import inputs_of, random_model
from gpu_common.record import Record
from gpu_common.scale import Setup
from gpu_common.turns import Case, keep, measure, require_one, table

from flux.hooks import CopySource, Hooks, KeptSource
from flux.hooks.kept import KeepingPlace, kept_copies
from flux.model import Flux
from flux.speed import compile_blocks

__all__ = ["run", "table"]


def pairs(model: Flux, setup: Setup) -> list[tuple[Case, Case]]:
    """Each plain case and the hooked one that is held against it. An injection needs a source and an edit."""
    scale, how = setup.scale, "compiled " if setup.options.get("compiled") else ""
    alone, both = Case(f"{how}plain, batch 1", 1), Case(f"{how}plain, batch 2", 2)
    skip, inject = Hooks(skip=[scale.skip]), Hooks(inject=dict.fromkeys(scale.inject, CopySource()))
    layers = f"{len(scale.inject)} layers"
    return [
        (alone, Case(f"{how}skip one layer, batch 1", 1, skip, against=alone.name)),
        (both, Case(f"{how}inject {layers}, batch 2", 2, inject, against=both.name)),
        *(
            (alone, Case(f"{how}kept on the {place}, {layers}", 1, of_kept(model, setup, place), alone.name))
            for place in ("device", "host")
        ),
    ]


def of_kept(model: Flux, setup: Setup, place: KeepingPlace) -> Hooks:
    """The injections of an edit, which is alone in its batch, from a source that was evaluated now."""
    kept = KeptSource(place)
    for layer in setup.scale.inject:
        kept.want(layer, CopySource())
    kept.begin()
    model(**inputs_of(setup, 1), hooks=Hooks(inject=kept.hooks()))
    return Hooks(inject=dict(kept_copies(kept, [(0, setup.scale.inject, CopySource())])))


@torch.no_grad()
def run(setup: Setup, record: Record) -> None:
    model = random_model(lambda: Flux(setup.scale.params), setup.device, setup.dtype)
    if setup.options.get("compiled"):
        compile_blocks(model)
    rows: list[dict[str, Any]] = []
    for plain, hooked in pairs(model, setup):
        for case in (plain, hooked, hooked, plain):
            rows.append(measure("ours", model, case, setup))
            keep(record, rows, setup)
    require_one(rows)
