"""Where a sweep is made, and what decides the bytes of its cells beside the spec."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from flux.device import pick_device, pick_dtype
from flux.models import configs
from flux.studies.folder import RunFolder
from flux.studies.run import (
    encoders_id,
    lora_digests,
    lora_id,
    precision_record,
    say_where,
    weights_folder,
)
from flux.studies.sweep.cells import Plan, plan, shard
from flux.studies.sweep.folder import CellTable
from flux.studies.sweep.spec import SkipSpec
from flux.weights.identity import weights_id


def open_sweep(spec: SkipSpec, folder: Path, setting: dict[str, Any]) -> RunFolder:
    """The run in a folder, of the whole sweep or of a shard; says so if it has to go elsewhere."""
    run = RunFolder.open(
        folder,
        spec.recipe(),
        setting,
        overwrite=spec.overwrite,
        apart=True,
        listed=lambda path: CellTable(path).files(),
    )
    CellTable(run.path).check()
    say_where(run)
    return run


def find_sweep(spec: SkipSpec, folder: Path, setting: dict[str, Any]) -> RunFolder:
    """The run that `open_sweep` would take, with nothing made or deleted."""
    return RunFolder.find(folder, spec.recipe(), setting, apart=True)


def folder_of(spec: SkipSpec) -> Path:
    """Where the spec wants its cells: `<output>`, or for a shard `<output>.shards/i-of-n`."""
    numbers = spec.shard_numbers()
    return spec.output if numbers is None else shards_folder(spec) / "{}-of-{}".format(*numbers)


def shards_folder(spec: SkipSpec) -> Path:
    return spec.output.with_name(f"{spec.output.name}.shards")


def setting_of(spec: SkipSpec) -> dict[str, Any]:
    """What decides the bytes of cells beside the recipe. It is the same on every machine that may share."""
    device = pick_device(spec.model.device)
    dtype = str(pick_dtype(spec.model.computes_in, device)).removeprefix("torch.")
    weights = weights_id(configs[spec.model.name], weights_folder(spec)) | lora_id(spec) | encoders_id(spec)
    more = lora_digests(spec) | precision_record(spec)
    more |= {"speed": faster} if (faster := spec.model.faster()) else {}
    return {"device": device.type, "dtype": dtype, "weights": weights, **more}


def plan_of(spec: SkipSpec, run: RunFolder) -> Plan:
    """What is to be made, of the whole sweep or of the spec's shard of it."""
    whole, numbers = plan(run.recipe, run.setting), spec.shard_numbers()
    return whole if numbers is None else replace(whole, tasks=tuple(shard(whole.tasks, *numbers)))
