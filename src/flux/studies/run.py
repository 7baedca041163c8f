"""What every run needs: its folder, its models, and progress bars."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

import flux
from flux.device import pick_device, pick_dtype
from flux.files import sha256_of
from flux.generate import Sampling
from flux.lora.choice import LoraChoice
from flux.lora.plan import lora_file
from flux.model import FluxLoraWrapper
from flux.models import configs
from flux.pictures.referencing import encoder_source
from flux.placement.peaks import Demand
from flux.precision.choice import Precision
from flux.speed import choose_attention, compile_blocks, require_compiler
from flux.studies.folder import RunFolder
from flux.studies.machine import device_name
from flux.studies.spec import Section, Spec
from flux.weights.identity import encoder_digest, file_digests, packed_files
from flux.weights.load import Models, load_models
from flux.weights.parts import LORA

PAGE, SHEET = "index.html", "sheet.png"
HUB_DINO = "facebook/dinov2-base"

P = TypeVar("P", bound=Section)


def changed(part: P, **values: Any) -> P:
    """A spec, or a part of one, with other values."""
    return part.model_copy(update=values)


def open_run(spec: Spec) -> RunFolder:
    """The folder of the spec's run; says so if it is not the one asked for."""
    run = RunFolder.open(spec.output, spec.recipe(), setting(spec), overwrite=spec.overwrite)
    say_where(run)
    return run


def say_where(run: RunFolder) -> None:
    """Say why a run is not in the folder asked for, where it is not."""
    if run.note:
        print(f"{run.note}; this run goes to {run.path}")


def say_damage(run: RunFolder, wanted: Iterable[str] = ()) -> bool:
    """Say what of a finished run is gone or damaged, in a line; whether anything is."""
    names = run.damaged(wanted)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"gone or damaged, to be made again: {', '.join(names[:3])}{more}")
    return bool(names)


def say_made_already(run: RunFolder) -> None:
    print(f"made already: {run.path / PAGE} (--overwrite makes it again)")


def setting(spec: Spec) -> dict[str, Any]:
    """What decides the pictures beside the spec: version, device, dtype, local weights, and LoRAs."""
    device = pick_device(spec.model.device)
    return {
        "flux": flux.__version__,
        "device": str(device),
        "dtype": str(pick_dtype(spec.model.computes_in, device)).removeprefix("torch."),
        "weights": file_digests(weights_folder(spec)),
        **lora_digests(spec),
        **({"encoders": found} if (found := encoders_id(spec)) else {}),
        **precision_record(spec),
        **({"speed": faster} if (faster := spec.model.faster()) else {}),
    }


def precision_record(spec: Spec) -> dict[str, Any]:
    """Under `precision`, what weights are quantised to and which layers are not; {} where none are.

    Of GGUF files that the variables name, what they are and their digests.
    """
    precision = spec.model.kept_in()
    if precision is not None and precision.is_quantised:
        return precision.record()
    packed = {} if spec.model.weights or spec.model.record.embedded else packed_files()
    return {"packed": packed} if packed else {}


def lora_digests(spec: Spec) -> dict[str, Any]:
    """Under `lora`, the file's name, SHA-256 and scale of each LoRA; {} where there is none."""
    found = [
        {"file": file.name, "sha256": sha256_of(file), "scale": each.scale}
        for each in spec.model.lora or ()
        for file in [lora_file(each.file)]
    ]
    return {"lora": found} if found else {}


def encoders_of(spec: Spec) -> dict[str, str]:
    """The models that look at the picture for a spec's, folder or hub name by title; {} where none does."""
    found = encoder_source(spec.model.record.reference or "") if spec.looks else None
    return {} if found is None else dict([found])


def encoders_id(spec: Spec) -> dict[str, str]:
    """A digest of each of these in a folder, beside what `weights_id` says; of others the hub's name."""
    return {title: encoder_digest(source) for title, source in encoders_of(spec).items()}


def weights_folder(spec: Spec) -> Path | None:
    """The folder that holds all of the model's weights, where there is one."""
    if spec.model.weights is not None:
        return spec.model.weights
    return configs[spec.model.name].home


def lora_id(spec: Spec) -> dict[str, str]:
    """Beside what `weights_id` says: digest and scale of each LoRA; {} where there is none."""
    found = lora_digests(spec).get("lora", [])
    said = ", ".join(f"{each['sha256'][:16]} × {each['scale']:g}" for each in found)
    return {LORA.title: said} if said else {}


def dino_source(spec: Spec, wanted: str) -> str:
    """The folder or the hub's name of a DINO model; `auto` is the model's own where it has one."""
    if wanted != "auto":
        return wanted
    folder = weights_folder(spec)
    return str(folder / "dino") if folder and (folder / "dino").is_dir() else HUB_DINO


def demand_of(spec: Spec, rows: int, held: float = 0.0) -> Demand:
    """What a run of the sampler asks for: `rows` side by side, those of a negative prompt beside them.

    held: bytes that stay on the device beside.
    """
    beside = getattr(spec, "true_cfg", None) is not None and not getattr(spec, "two_passes", False)
    return Demand(rows * (1 + beside), spec.width, spec.height, spec.steps, held=held)


def load(spec: Spec, prompts: Sequence[str], rows: int = 1) -> Models:
    """The models of a spec for these prompts; says what was loaded where, and how long it took.

    rows: that will be sampled side by side, at most, by which offload `auto` picks.
    """
    start = time.perf_counter()
    model = spec.model
    if configs[model.name].embedded:
        _compute_in_one_thread()
    device = pick_device(model.device)
    choose_attention(model.attention, device)
    if model.compile:
        require_compiler(device)
    models = load_models(
        model.name,
        device=model.device,
        dtype=model.dtype,
        precision=model.kept_in(),
        weights=model.weights,
        offload=model.offload,
        demand=demand_of(spec, rows),
        prompts=prompts,
        lora=None if model.lora is None else [LoraChoice(each.file, each.scale) for each in model.lora],
        lora_live=model.lora_live,
    )
    dtype = str(models.dtype).removeprefix("torch.")
    seconds = time.perf_counter() - start
    quantised = models.precision is not None and models.precision.is_quantised
    kept = f", weights in {models.precision}" if quantised else ""
    print(f"{model.name} on {device_name(models.device)}, {dtype}{kept}, loaded in {seconds:.1f} s")
    if model.compile:
        compile_blocks(models.flow)
    if isinstance(models.flow, FluxLoraWrapper):
        models.flow.set_lora_scale(models.spec.lora_scale)
    for each in models.loras:
        print(f"LoRA {each}")
    return models


def _compute_in_one_thread() -> None:
    """Unless the user has said how many: for a model this small, more threads gain nothing.

    And beside other busy processes they wait for each other: two took 19 s of processor time, one takes 6 s.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def sampling_of(spec: Spec) -> Sampling:
    return Sampling(spec.steps, spec.guidance, spec.width, spec.height, spec.integrator.choice)


def about(spec: Spec, run: RunFolder) -> dict[str, Any]:
    """What the page of every run says at its top."""
    return {
        "model": spec.model.name,
        "size": f"{spec.width} × {spec.height}",
        "steps": spec.steps,
        **({} if spec.integrator.choice == "euler" else {"integrator": spec.integrator.in_words}),
        "guidance": "none" if spec.guidance is None else f"{spec.guidance:g}",
        "on": f"{run.setting['device']}, {run.setting['dtype']}",
        **({"precision": precision_in_words(run.setting)} if "precision" in run.setting else {}),
        **({"LoRA": loras_in_words(run.setting)} if "lora" in run.setting else {}),
    }


def loras_in_words(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{each['file']} × {each['scale']:g}" for each in setting["lora"])


def kept_as(setting: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's setting says of `precision_record`."""
    return {key: setting[key] for key in ("precision", "packed") if key in setting}


def precision_in_words(setting: Mapping[str, Any]) -> str:
    found = setting.get("precision")
    if found is None:
        return "full"
    return found if isinstance(found, str) else str(Precision(found["others"], tuple(found["keep"])))


class Bars:
    """Two progress bars: pictures of the run, and steps of the pictures that are being made."""

    def __init__(self, pictures: int, done: int, steps: int):
        self._pictures = tqdm(total=pictures, initial=done, desc="pictures", disable=None, position=0)
        self._steps = tqdm(total=steps, desc="steps", disable=None, position=1, leave=False)

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *error: object) -> None:
        self._steps.close()
        self._pictures.close()

    def step(self, index: int) -> None:
        """Step `index`, from 0, of the pictures at work is done."""
        if index == 0:
            self._steps.reset()
        self._steps.update()

    def made(self, pictures: int) -> None:
        self._pictures.update(pictures)

    @staticmethod
    def say(line: str) -> None:
        """Say a line, above the bars."""
        tqdm.write(line)
