"""Load the parts of a model, each from the file that `flux.weights.find` finds.

`records`, `find` and the classes are arguments, so that `flux.util` can hand down what a client of upstream's
package has put in their places.
"""

import os
import re
import warnings
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from flux.device import out_of_memory_hint, pick_device, pick_dtype
from flux.finite import require_finite_weights
from flux.formats import prefixes
from flux.formats.fill import Filled, assign, check_fit, load_into, nothing, shortened
from flux.formats.gguf_file import is_gguf
from flux.formats.packed import number_type
from flux.formats.prefixes import behind
from flux.formats.weights import Weights
from flux.lora.applying import MergesFirst, apply_loras
from flux.lora.choice import Choices, LoraChoice, as_choices, choices_of_environment
from flux.lora.filling import fill_linear_loras
from flux.lora.places import CLIP as CLIP_PART
from flux.lora.places import FLOW as FLOW_PART
from flux.lora.places import T5 as T5_PART
from flux.lora.plan import lora_file, plan_lora
from flux.lora.reading import Lora, LoraRecord, read_lora
from flux.model import Flux, FluxLoraWrapper
from flux.models import FluxParams, ModelSpec, configs, spec_of
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.modules.known_texts import KnownTexts
from flux.placement.modes import Offload, is_stream
from flux.placement.peaks import Demand
from flux.placement.picking import pick_offload
from flux.placement.work import at_work, remember
from flux.precision.choice import Choice as PrecisionChoice
from flux.precision.choice import Precision, as_precision, dtype_of
from flux.precision.quantising import Quantiser, torchao
from flux.weights import convert
from flux.weights.check import CheckpointError, check_encoder, files_of, read_json, tokens_read
from flux.weights.find import find_file, find_text_encoder, find_tokenizer, stand_in
from flux.weights.hub import cached_file, require_hub
from flux.weights.parts import AE, CLIP, FLOW, LORA, PARTS, REDUX, T5, Part

UNNAMED = "flux-dev"
"""The model whose text encoders are meant where none is named, as upstream's loaders name none."""

Records = Mapping[str, ModelSpec]


class Find(Protocol):
    """Finds a part's file, see `flux.weights.find.find_file`."""

    def __call__(
        self, repo_id: str, filename: str, env_var: str, *, weights: str | Path | None = None
    ) -> Path: ...


@dataclass(frozen=True)
class Models:
    """All parts of a model, loaded. `device` is where to compute, even of parts that wait on the CPU.

    t5, clip: the encoders, or what they made of the prompts that the model was loaded for.
    loras: those that are in the flow model and the encoders.
    """

    name: str
    flow: Flux
    ae: AutoEncoder
    t5: HFEmbedder | KnownTexts
    clip: HFEmbedder | KnownTexts
    device: torch.device
    dtype: torch.dtype
    spec: ModelSpec
    loras: tuple[LoraRecord, ...] = ()
    precision: Precision | None = None


def load_models(
    name: str,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    weights: str | Path | None = None,
    offload: Offload = False,
    demand: Demand | None = None,
    prompts: Sequence[str] | None = None,
    lora: Choices | None = None,
    lora_live: bool = False,
    precision: PrecisionChoice | None = None,
    records: Records = configs,
    find: Find = find_file,
    flow_class: type[Flux] = Flux,
) -> Models:
    """Load every part of a model. All files are found and checked before the first is read.

    dtype: of the flow model and the text encoders; the autoencoder's weights are float32.
    weights: one folder for all parts, laid out as a clone of the FLUX.1-dev repository.
    offload: see `flux.placement.modes`. With any of its ways but `none`, flow model and autoencoder wait on
    the CPU, and with `stream` T5 too; the caller moves them to `device` in their turn.
    demand: what will be made at a time, by which `auto` picks; None: one row of the model's usual size.
    prompts: all that will be asked for, where that is known. Each encoder then reads them and is let go
    before the next part is loaded, so that no more is held at a time than flow model and autoencoder.
    lora: LoRA files, each alone or with its scale, see `flux.lora.choice`; None: what FLUX_LORA names, which
    for flux-dev-canny-lora and flux-dev-depth-lora is the LoRA that they are made of. lora_live: beside the
    weights and not merged into them, see `flux.lora.applying`.
    precision: of the weights of flow model and T5, see `flux.precision`: a dtype, or int8, fp8 or nf4, which
    compute in `dtype`; None: as the files have them, so that GGUF stays packed.
    All parts are frozen: `requires_grad` is False.
    Raises ValueError for an unknown name, device or dtype, and for weights beyond float16's range;
    CheckpointError (a ValueError) for files.
    """
    spec, device = spec_of(name, records), pick_device(device)
    precision = as_precision(precision, spec, name)
    dtype = pick_dtype(dtype_of(precision, dtype), device)
    if precision is not None and precision.is_quantised:
        torchao(precision.others)  # before anything is read, if it is missing
    _refuse_stand_ins(name, spec, weights)
    loras = _read_loras(name, spec, lora)
    _say_what_is_unused(name, spec, weights, None if lora is None else loras)
    if weights is not None and not Path(weights).expanduser().is_dir():
        raise CheckpointError(
            f"weights names {weights}, which is not a folder: name a clone of {spec.repo_id}, or give single "
            "files by FLUX_MODEL and FLUX_AE"
        )
    flow, own_lora = find_flow(spec, weights, records, find), find_lora(spec, weights, find)
    if precision is None and not lora_live:
        _refuse_to_merge(loras, flow)
    if own_lora is None:
        check_flow(spec, flow, flow_class)
    else:
        check_own_lora(own_lora, spec, name)
    check_ae(spec, find_ae(spec, weights, records, find))
    usual = Demand(1, spec.size, spec.size, spec.num_steps)
    offload = pick_offload(offload, spec, dtype, device, demand or usual, precision)
    waiting = "cpu" if offload else device
    text = {"name": name, "dtype": dtype, "weights": weights, "records": records}
    applied = {"live": lora_live, "keep": False, "at": device}
    first = {part: MergesFirst(() if lora_live else loras, part, device) for part in (FLOW_PART, T5_PART)}
    kept = _kept_in(precision, "T5 text encoder", device, first[T5_PART])
    t5 = load_t5("cpu" if is_stream(offload) else device, spec.t5_length, **text, **kept)
    apply_loras(t5, loras, part=T5_PART, merged=first[T5_PART].merged, **applied)
    with at_work(device, is_stream(offload) and offload, t5):
        t5 = _read(t5, "T5 encoder", prompts)
    clip = load_clip(device, **text)
    apply_loras(clip, loras, part=CLIP_PART, **applied)
    clip = _read(clip, "CLIP encoder", prompts)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    hub = {"weights": weights, "records": records, "find": find}
    models = Models(
        name=name,
        t5=t5,
        clip=clip,
        ae=load_ae(name, waiting, dtype=torch.float32, **hub),
        flow=load_flow_model(
            name,
            waiting,
            dtype=dtype,
            flow_class=flow_class,
            **hub,
            **_kept_in(precision, "flow model", device, first[FLOW_PART], depth=spec.params.depth),
        ),
        device=device,
        dtype=dtype,
        spec=spec,
        loras=tuple(each.record() for each in loras),
        precision=precision,
    )
    apply_loras(models.flow, loras, merged=first[FLOW_PART].merged, **applied)
    _require_range(models.flow, "flow model")
    remember(offload, models.t5, models.clip, models.flow, models.ae)
    # To make pictures with: no graph is built. What `load_flow_model` and `load_ae` give can be trained.
    for part in (models.flow, models.ae):
        part.requires_grad_(False)
    return models


def _refuse_to_merge(loras: Sequence[Lora], flow: Path) -> None:
    """Raise CheckpointError for LoRAs that would be merged into a GGUF file, whose weights stay packed."""
    merged = [each.plan.file for each in loras if each.of(FLOW_PART)]
    if merged and any(map(is_gguf, files_of(flow))):
        raise CheckpointError(
            f"{merged[0]} cannot be merged into {flow}, whose weights are packed: keep it beside them "
            "(lora_live)"
        )


def _kept_in(
    precision: Precision | None, title: str, at: torch.device, before: MergesFirst, depth: int = 0
) -> dict[str, Any]:
    """What the loader of a part is told of its precision. at: where to quantise."""
    if precision is None or not precision.is_quantised:
        return {"packs": precision is None}
    # What a GGUF file has packed is unpacked, and quantised anew.
    return {"filled": Quantiser(precision, title, depth, before, at), "packs": False}


def _read_loras(name: str, spec: ModelSpec, given: Choices | None) -> tuple[Lora, ...]:
    """The LoRAs to apply, read; says what of them is not used.

    What FLUX_LORA names for other models stops none that comes with the package: it is left out there.
    """
    if given is not None:
        loras = tuple(read_lora(choice, spec, name) for choice in as_choices(given))
    elif spec.lora_filename:  # for which the variable names the one that it is made of
        loras = ()
    else:
        try:
            loras = tuple(read_lora(choice, spec, name) for choice in choices_of_environment())
        except ValueError as error:
            if not spec.embedded:
                raise
            why = str(error).removeprefix(f"{LORA.env_var} names ")
            warnings.warn(f"{LORA.env_var} is left out: {why}", stacklevel=5)
            loras = ()
    for each in loras:
        if (said := each.left_out()) is not None:
            warnings.warn(said, stacklevel=5)
    return loras


def _read(encoder: HFEmbedder, title: str, prompts: Sequence[str] | None) -> HFEmbedder | KnownTexts:
    """The encoder, or what it makes of all prompts, where they are known."""
    _require_range(encoder, title)
    return encoder if prompts is None else KnownTexts(encoder, prompts)


def _require_range(part: nn.Module, title: str) -> None:
    """Raise ValueError for a weight beyond float16: clipped between layers, it would draw a wrong picture."""
    if any(parameter.dtype == torch.float16 for parameter in part.parameters()):
        require_finite_weights(part, title)


# The flow model


def load_flow_model(
    name: str,
    device: str | torch.device,
    verbose: bool = True,
    *,
    dtype: torch.dtype | None = None,
    weights: str | Path | None = None,
    records: Records = configs,
    find: Find = find_file,
    flow_class: type[Flux] = Flux,
    filled: Filled = nothing,
    packs: bool = True,
) -> Flux:
    """The flow model `name`; see `flux.weights.find` for where its file is looked for.

    verbose: print which layers a LoRA file leaves as they are. weights: a folder, or the file itself.
    dtype: None keeps the file's. Where FLUX_REPO names a model of the package, that one is loaded in the
    place of `name`, in the shapes of its file, with a warning.
    filled, packs: what is done with each weight, and whether GGUF stays packed, see `flux.formats.fill`.
    """
    spec, device = spec_of(name, records), pick_device(device)
    if other := _stand_in(spec, FLOW, weights):
        path = find_flow(other, None, records, find)
        spec = replace(other, params=_params_of(path, other))
        warnings.warn(_stand_in_message(name, other), stacklevel=3)
    else:
        path = find_flow(spec, weights, records, find)
    lora = find_lora(spec, weights, find)
    _require_flow_config(path, _base(spec, records))
    how = {"filled": filled, "packs": packs}
    with out_of_memory_hint():
        if lora is not None:
            return _load_with_lora(spec, path, _own_lora(lora, spec, name), device, dtype, verbose, **how)
        with torch.device("meta"):
            model = flow_class(spec.params)
        load_into(model, path, device, dtype, **_flow_files(spec), **how)
    return model


def check_flow(spec: ModelSpec, path: Path, flow_class: type[Flux] = Flux) -> None:
    """Raise CheckpointError where loading the flow model from `path` would, as far as headers tell."""
    _require_flow_config(path, spec)
    with torch.device("meta"):
        model = flow_class(spec.params)
    check_fit(model, path, **_flow_files(spec))


def _flow_files(spec: ModelSpec) -> dict[str, Any]:
    """How files of flow models are read, see `flux.formats.fill.load_into`."""
    return {
        "prefixes": prefixes.FLOW,
        "convert": lambda tensors: convert.flow_to_ours(tensors, spec.params),
        "foreign": lambda key: key.startswith(convert.FLOW_FOREIGN),
    }


def _require_flow_config(path: Path, spec: ModelSpec) -> None:
    _require_config(path, "FluxTransformer2DModel", convert.flow_config(spec.params))


def _load_with_lora(
    spec: ModelSpec,
    path: Path,
    lora: Path | Lora,
    device: torch.device,
    dtype: torch.dtype | None,
    verbose: bool,
    **how: Any,
) -> FluxLoraWrapper:
    """The flow model of `path` with the LoRA beside it, its input as wide as the LoRA was trained for.

    lora: a file with the official names, or what was read from one with others.
    """
    with torch.device("meta"):
        model = FluxLoraWrapper(lora_rank=spec.lora_rank, params=spec.params)
    as_read = _flow_files(spec)

    def widened(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        ours = as_read["convert"](tensors)
        entrance = {key: ours[key] for key in ("img_in.weight",) if key in ours}
        return ChainMap(optionally_expand_state_dict(model, entrance), ours)

    load_into(model, path, device, dtype, optional=_is_lora, **as_read | {"convert": widened}, **how)

    def of_base(key: str) -> torch.dtype:
        layer, is_lora, _ = key.partition(".lora_")
        return number_type(model.get_submodule(layer))[0] if is_lora else model.get_parameter(key).dtype

    if isinstance(lora, Lora):
        plain = fill_linear_loras(model, lora, device, lambda key: dtype or of_base(key))
        if verbose and plain:
            print_load_warning(plain, [])
        return model
    missing, _ = load_into(
        model, lora, device, dtype or of_base, prefixes=prefixes.FLOW, optional=lambda key: True, extra=False
    )
    plain = [key for key in missing if _is_lora(key)]
    for key in plain:  # A layer the LoRA leaves out stays the base model's.
        assign(model, key, torch.zeros_like(model.get_parameter(key), dtype=of_base(key), device=device))
    if verbose and plain:
        print_load_warning(plain, [])
    return model


def _is_lora(key: str) -> bool:
    return ".lora_" in key


OTHER_LORAS = re.compile(
    r"^lora_(unet|transformer|te\d?)_|(^|\.)(single_)?transformer_blocks\.|\.processor\.|\.lora_(down|up)\."
)
"""What keys of LoRA files with other names than the official ones look like."""


def _own_lora(file: Path, spec: ModelSpec, name: str) -> Path | Lora:
    """The LoRA that a model is made of: its file, or what is in a file with other names."""
    check_own_lora(file, spec, name)
    if _is_official(file):
        return file
    lora = read_lora(LoraChoice(file), spec, name)
    if (said := lora.left_out()) is not None:
        warnings.warn(said, stacklevel=4)
    return lora


def check_own_lora(file: Path, spec: ModelSpec, name: str) -> None:
    """Raise CheckpointError where loading the LoRA that a model is made of would, as far as headers tell."""
    if not _is_official(file):
        plan_lora(file, spec, name)
        return
    _check_lora(file, spec)
    with torch.device("meta"):
        model = FluxLoraWrapper(lora_rank=spec.lora_rank, params=spec.params)
    as_read = {"prefixes": prefixes.FLOW, "convert": lambda tensors: tensors}
    check_fit(model, file, **as_read, optional=lambda key: True, extra=False)


def _is_official(file: Path) -> bool:
    keys = behind(Weights(files_of(file)).shapes(), prefixes.FLOW, file)
    return not any(map(OTHER_LORAS.search, keys))


def _check_lora(file: Path, spec: ModelSpec) -> None:
    """Raise CheckpointError for a file without LoRAs, or with halves of them alone."""
    remedy = f"name {spec.lora_filename} by FLUX_LORA"
    keys = list(behind(Weights(files_of(file)).shapes(), prefixes.FLOW, file))
    factors = [key for key in keys if not key.endswith(".bias")]
    halves = [
        {key.partition(f".lora_{half}.")[0] for key in factors if f".lora_{half}." in key} for half in "AB"
    ]
    if not halves[0] and not halves[1]:
        told = "" if any(map(_is_lora, keys)) or not keys else f" (unexpected: {shortened(keys, 2)})"
        raise CheckpointError(f"{file} holds no LoRA of {spec.repo_flow}{told}: {remedy}")
    if not halves[0] & halves[1]:
        there, gone = ("lora_A", "lora_B") if halves[0] else ("lora_B", "lora_A")
        raise CheckpointError(f"{file} has {there} and no {gone}, which does nothing: {remedy}")
    torn = sorted(halves[0] ^ halves[1])
    if torn:
        gone = f"{shortened(torn[:1])} has no lora_{'A' if torn[0] in halves[1] else 'B'}"
        raise CheckpointError(f"{file} has half a LoRA in {len(torn)} of its layers, {gone}: {remedy}")


def optionally_expand_state_dict(model: nn.Module, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fill tensors smaller than the model's up with zeros at the ends of their axes, in the dict itself."""
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    for key, tensor in list(state_dict.items()):
        state_dict[key] = _expanded(tensor, shapes.get(key, tensor.shape))
    return state_dict


def _expanded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    fits = tensor.ndim == len(shape) and all(a <= b for a, b in zip(tensor.shape, shape, strict=True))
    if not fits or tensor.shape == torch.Size(shape):
        return tensor
    padding = [zeros for a, b in zip(tensor.shape, shape, strict=True) for zeros in (b - a, 0)]
    return F.pad(tensor, padding[::-1])


def print_load_warning(missing: list[str], unexpected: list[str]) -> None:
    """Say which keys a file lacks and which the model does not know, a line each."""
    for title, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            print(f"{len(keys)} {title} keys: {shortened(keys)}")


def _params_of(path: Path, like: ModelSpec) -> FluxParams:
    try:
        shapes = behind(Weights(files_of(path)).shapes(), prefixes.FLOW, path)
        return convert.flow_params(shapes, like.params)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} is no flow model ({error} is missing): download it again") from error


# The autoencoder


def load_ae(
    name: str,
    device: str | torch.device,
    *,
    dtype: torch.dtype | None = None,
    weights: str | Path | None = None,
    records: Records = configs,
    find: Find = find_file,
) -> AutoEncoder:
    """The autoencoder of the model `name`. weights: a folder, or the file itself.

    dtype: None keeps the file's; of a model of the package, whose file is small for its size, float32.
    """
    spec, device = spec_of(name, records), pick_device(device)
    spec = _stand_in(spec, AE, weights) or spec
    if dtype is None and spec.embedded:
        dtype = torch.float32
    path = find_ae(spec, weights, records, find)
    ae = _empty_ae(spec, path)
    with out_of_memory_hint():
        load_into(ae, path, device, dtype, **_ae_files(spec))
    return ae


def check_ae(spec: ModelSpec, path: Path) -> None:
    """Raise CheckpointError where loading the autoencoder from `path` would, as far as headers tell."""
    check_fit(_empty_ae(spec, path), path, **_ae_files(spec))


def _empty_ae(spec: ModelSpec, path: Path) -> AutoEncoder:
    _require_config(path, "AutoencoderKL", convert.ae_config(spec.ae_params))
    with torch.device("meta"):
        return AutoEncoder(spec.ae_params)


def _ae_files(spec: ModelSpec) -> dict[str, Any]:
    """How files of autoencoders are read, see `flux.formats.fill.load_into`."""
    return {
        "prefixes": prefixes.AE,
        "convert": lambda tensors: convert.ae_to_ours(tensors, spec.ae_params),
        "known": lambda key: key.startswith("loss."),  # of its training
        "foreign": lambda key: key.startswith(convert.AE_FOREIGN),
    }


# The text encoders


def load_t5(
    device: str | torch.device,
    max_length: int = 512,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    weights: str | Path | None = None,
    records: Records = configs,
    filled: Filled = nothing,
    packs: bool = True,
) -> HFEmbedder:
    """The T5 encoder of the model `name`; None: whatever FLUX_T5 or FLUX_REPO hold, else the hub's.

    max_length: tokens it reads, cut to what the model or, without a name, the encoder takes.
    filled, packs: as `load_flow_model` takes them.
    """
    how = {"filled": filled, "packs": packs}
    return _load_text_encoder(T5, name, max_length, device, dtype, weights, records, **how)


def load_clip(
    device: str | torch.device,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    weights: str | Path | None = None,
    records: Records = configs,
) -> HFEmbedder:
    """The CLIP encoder of the model `name`; None: whatever FLUX_CLIP or FLUX_REPO hold, else the hub's."""
    return _load_text_encoder(CLIP, name, None, device, dtype, weights, records)


def _load_text_encoder(
    part: Part,
    name: str | None,
    length: int | None,
    device: str | torch.device,
    dtype: torch.dtype,
    weights: str | Path | None,
    records: Records,
    **how: Any,
) -> HFEmbedder:
    """length: None for the model's own."""
    spec, device = spec_of(name or UNNAMED, records), pick_device(device)
    params, is_t5 = spec.params, part is T5
    hub_name, own, width = (
        (spec.t5, spec.t5_length, params.context_in_dim)
        if is_t5
        else (spec.clip, spec.clip_length, params.vec_in_dim)
    )
    length = own if length is None else length
    version = find_text_encoder(
        part, hub_name, width=width if name else None, weights=weights_folder(spec, weights)
    )
    of_hub = version == hub_name
    tokenizer = hub_name if of_hub else find_tokenizer(part, Path(version), hub_name)
    most = own if name or of_hub else tokens_read(Path(version), part, Path(tokenizer)) or length
    length = min(length, most)
    options = {"max_length": length, "torch_dtype": dtype, "clip": part is CLIP, "tokenizer": tokenizer}
    options |= how
    try:
        with out_of_memory_hint():
            if of_hub:
                return _from_hub(part, hub_name, options).to(device)
            return HFEmbedder(version, **options).to(device)
    except CheckpointError:
        raise
    except (OSError, ValueError, SafetensorError) as error:  # transformers' messages run over many lines
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"the {part.title} {version} cannot be loaded ({reason}): check the network or HF_ENDPOINT, or "
            f"set {part.env_var} to its folder or FLUX_REPO to a clone of FLUX.1-dev"
        ) from error


def _from_hub(part: Part, hub_name: str, options: dict) -> HFEmbedder:
    """From the hub's cache, as from any folder; else from the hub, which must answer."""
    cached = cached_file(hub_name, "config.json")
    if cached is not None:
        try:
            folder = str(check_encoder(cached.parent, part, None))
            return HFEmbedder(folder, **options | {"tokenizer": folder})
        except CheckpointError as error:  # half a download, which the hub's client completes
            if "is missing" not in str(error) and "has no" not in str(error):
                raise
    require_hub()
    return HFEmbedder(hub_name, **options)


# Models of the package in the place of others


def _stand_in(spec: ModelSpec, part: Part, weights: str | Path | None) -> ModelSpec | None:
    return stand_in(spec, part) if weights is None else None


def _stand_in_message(name: str, other: ModelSpec) -> str:
    return (
        f"FLUX_REPO names {other.repo_id}, which is loaded in the place of {name}: it draws {other.size} x "
        f"{other.size} pixels, larger sizes run and show nothing of use"
    )


def _refuse_stand_ins(name: str, spec: ModelSpec, weights: str | Path | None) -> None:
    """For the loaders of upstream's scripts alone: ours take the model's own name."""
    for part in (FLOW, AE):
        if other := _stand_in(spec, part, weights):
            raise CheckpointError(
                f"FLUX_REPO names {other.repo_id}, not {name}: ask for the model {other.repo_id}, or name a "
                f"clone of {spec.repo_id} by FLUX_REPO"
            )


def _say_what_is_unused(
    name: str, spec: ModelSpec, weights: str | Path | None, loras: Sequence[Lora] | None
) -> None:
    """Warn, in one line, of FLUX_ variables that are set and name nothing that is loaded.

    loras: None where FLUX_LORA was to say.
    """
    anywhere = weights is None and not spec.embedded
    used = {*PARTS, "FLUX_REPO"} - {LORA.env_var, REDUX.env_var} if anywhere else set()
    is_heard = not _has_lora(spec, weights) if spec.lora_filename else loras is None
    if is_heard or _is_of_environment(loras or ()):
        used.add(LORA.env_var)
    if anywhere and spec.reference in (None, "redux"):  # Redux stands beside any that starts from text
        used.add(REDUX.env_var)
    unused = sorted(key for key, value in os.environ.items() if key.startswith("FLUX_") and value)
    unused = [key for key in unused if key not in used]
    if unused:
        if unused == [LORA.env_var] and loras:
            why = f"other LoRAs are asked for, {', '.join(each.plan.file.name for each in loras)}"
        elif unused == [LORA.env_var]:
            why = "no LoRA is asked for"
        elif not anywhere:
            why = f"{name} is loaded from {weights or 'the package'}"
        else:
            why = f"{name} looks at {', '.join(sorted(used))}"
        verb = "is" if len(unused) == 1 else "are"
        warnings.warn(f"{', '.join(unused)} {verb} set and not used: {why}", stacklevel=4)


def _is_of_environment(loras: Sequence[Lora]) -> bool:
    """Whether what is applied is what FLUX_LORA names, if a spec has read it before."""
    try:
        named = {lora_file(choice.path).absolute() for choice in choices_of_environment()}
    except ValueError:
        return True  # which has been said
    return bool(named) and named == {each.plan.file.absolute() for each in loras}


# Where the files of a record are


def weights_folder(spec: ModelSpec, weights: str | Path | None) -> str | Path | None:
    """The folder to look in: what the user says, or the package's own for an embedded model."""
    if weights is not None or spec.home is None:
        return weights
    if not spec.home.is_dir():
        raise CheckpointError(f"the weights of {spec.repo_id} are not at {spec.home}: reinstall the package")
    return spec.home


def _base(spec: ModelSpec, records: Records) -> ModelSpec:
    return records[spec.flow_name] if spec.flow_name else spec


def find_flow(spec: ModelSpec, weights: str | Path | None, records: Records, find: Find) -> Path:
    base = _base(spec, records)
    return find(base.repo_id, base.repo_flow, FLOW.env_var, weights=weights_folder(spec, weights))


def find_ae(spec: ModelSpec, weights: str | Path | None, records: Records, find: Find) -> Path:
    base = _base(spec, records)
    return find(base.repo_id, base.repo_ae, AE.env_var, weights=weights_folder(spec, weights))


def find_lora(spec: ModelSpec, weights: str | Path | None, find: Find) -> Path | None:
    """The LoRA's file, None for a model without: in `weights` if it is there, else where all look."""
    if spec.lora_repo_id is None or spec.lora_filename is None:
        return None
    inside = weights if _has_lora(spec, weights) else None
    return find(spec.lora_repo_id, spec.lora_filename, LORA.env_var, weights=inside)


def _has_lora(spec: ModelSpec, weights: str | Path | None) -> bool:
    return weights is not None and (Path(weights).expanduser() / str(spec.lora_filename)).is_file()


def _require_config(path: Path, class_name: str, needed: dict) -> None:
    """Refuse a diffusers folder whose `config.json` describes another model than the one asked for."""
    file = path / "config.json"
    if not file.is_file():
        return
    wrong = convert.config_mismatch(read_json(file), {"_class_name": class_name, **needed})
    if wrong:
        raise CheckpointError(
            f"{path} holds another model, name the folder of this one: in config.json {wrong}"
        )
