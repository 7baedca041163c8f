"""Loading models: upstream's `flux.util`, and `load_models` for all parts at once.

Importing this module makes no folder and sets no variable. `flux.checkpoints` says where weights are looked
for, `flux.configs` which models there are.
"""

import getpass
import json
import math
import os
import urllib.request
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from flux import checkpoints, convert
from flux.checkpoints import CheckpointError
from flux.configs import ModelSpec, configs, spec_of
from flux.device import out_of_memory_hint, pick_device, pick_dtype
from flux.image_io import save_image
from flux.model import Flux, FluxLoraWrapper
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.watermark import WATERMARK_BITS, WATERMARK_MESSAGE, WatermarkEmbedder, embed_watermark
from flux.weights import assign, load_into, shortened

__all__ = [
    "BFL_API_KEY",
    "CHECKPOINTS_DIR",
    "PREFERED_KONTEXT_RESOLUTIONS",
    "WATERMARK_BITS",
    "WATERMARK_MESSAGE",
    "CheckpointError",
    "ModelSpec",
    "Models",
    "WatermarkEmbedder",
    "aspect_ratio_to_height_width",
    "check_onnx_access_for_trt",
    "configs",
    "download_onnx_models_for_trt",
    "embed_watermark",
    "ensure_hf_auth",
    "get_checkpoint_path",
    "load_ae",
    "load_clip",
    "load_flow_model",
    "load_models",
    "load_t5",
    "optionally_expand_state_dict",
    "print_load_warning",
    "prompt_for_hf_auth",
    "save_image",
    "track_usage_via_api",
]

Convert = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

CHECKPOINTS_DIR = checkpoints.CHECKPOINTS_DIR
BFL_API_KEY = os.getenv("BFL_API_KEY")
USAGE_URL = "https://api.bfl.ai/v1/licenses/models/{slug}/usage"
TINY_WEIGHTS = Path(__file__).parent / "tiny" / "weights"

_TALL = {672: 1568, 688: 1504, 720: 1456, 752: 1392, 800: 1328, 832: 1248, 880: 1184, 944: 1104}
# (width, height)
PREFERED_KONTEXT_RESOLUTIONS = [*_TALL.items(), (1024, 1024), *((b, a) for a, b in reversed(_TALL.items()))]


@dataclass(frozen=True)
class Models:
    """All parts of a model, loaded. `device` is where to compute, even of parts that wait on the CPU."""

    name: str
    flow: Flux
    ae: AutoEncoder
    t5: HFEmbedder
    clip: HFEmbedder
    device: torch.device
    dtype: torch.dtype
    spec: ModelSpec


def load_models(
    name: str,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    weights: str | Path | None = None,
    offload: bool = False,
) -> Models:
    """Load every part of a model. All files are found and checked before the first is read.

    dtype: of the flow model and the text encoders; the autoencoder's weights are float32.
    weights: one folder for all parts, laid out as a clone of the FLUX.1-dev repository.
    offload: flow model and autoencoder wait on the CPU; the caller moves them to `device` in their turn.
    Raises ValueError for an unknown name, device or dtype, CheckpointError (a ValueError) for files.
    """
    spec, device = spec_of(name), pick_device(device)
    dtype = pick_dtype(dtype, device)
    if weights is not None and not Path(weights).expanduser().is_dir():
        raise CheckpointError(
            f"weights names {weights}, which is not a folder: name a clone of {spec.repo_id}, or give single "
            "files by FLUX_MODEL and FLUX_AE"
        )
    _flow_path(spec, weights), _lora_path(spec, weights), _ae_path(spec, weights)
    waiting = "cpu" if offload else device
    return Models(
        name=name,
        t5=load_t5(device, spec.t5_length, name=name, dtype=dtype, weights=weights),
        clip=load_clip(device, name=name, dtype=dtype, weights=weights),
        ae=load_ae(name, waiting, weights=weights),
        flow=load_flow_model(name, waiting, dtype=dtype, weights=weights),
        device=device,
        dtype=dtype,
        spec=spec,
    )


def load_flow_model(
    name: str,
    device: str | torch.device = "cuda",
    verbose: bool = True,
    *,
    dtype: torch.dtype = torch.bfloat16,
    weights: str | Path | None = None,
) -> Flux:
    """The flow model `name`; see `flux.checkpoints` for where its file is looked for.

    verbose: print which layers a LoRA file leaves as they are. weights: a folder, or the file itself.
    """
    spec, device = spec_of(name), pick_device(device)
    path, lora = _flow_path(spec, weights), _lora_path(spec, weights)
    _require_config(path, "FluxTransformer2DModel", convert.flow_config(_base(spec).params))

    def as_ours(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return convert.flow_to_ours(tensors, spec.params)

    with out_of_memory_hint():
        if lora is not None:
            return _load_with_lora(spec, path, lora, device, dtype, as_ours, verbose)
        with torch.device("meta"):
            model = Flux(spec.params)
        load_into(model, path, device, dtype, convert=as_ours)
    return model


def _load_with_lora(
    spec: ModelSpec,
    path: Path,
    lora: Path,
    device: torch.device,
    dtype: torch.dtype,
    as_ours: Convert,
    verbose: bool,
) -> FluxLoraWrapper:
    """The flow model of `path` with the LoRA beside it, its input as wide as the LoRA was trained for."""
    with torch.device("meta"):
        model = FluxLoraWrapper(lora_rank=spec.lora_rank, params=spec.params)

    def widened(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        ours = as_ours(tensors)
        entrance = {key: ours[key] for key in ("img_in.weight",) if key in ours}
        return ChainMap(dict(optionally_expand_state_dict(model, entrance)), ours)

    load_into(model, path, device, dtype, optional=_is_lora, convert=widened)
    missing, _ = load_into(model, lora, device, dtype, optional=lambda key: True)
    plain = [key for key in missing if _is_lora(key)]
    if len(plain) == sum(map(_is_lora, model.state_dict())):
        raise CheckpointError(f"{lora} holds no LoRA of {spec.repo_flow}: name the LoRA's file by FLUX_LORA")
    for key in plain:  # A layer the LoRA leaves out stays the base model's.
        assign(model, key, torch.zeros_like(model.get_parameter(key), dtype=dtype, device=device))
    if verbose and plain:
        print_load_warning(plain, [])
    return model


def _is_lora(key: str) -> bool:
    return ".lora_" in key


def load_ae(
    name: str,
    device: str | torch.device = "cuda",
    *,
    dtype: torch.dtype = torch.float32,
    weights: str | Path | None = None,
) -> AutoEncoder:
    """The autoencoder of the model `name`. weights: a folder, or the file itself."""
    spec, device = spec_of(name), pick_device(device)
    path = _ae_path(spec, weights)
    _require_config(path, "AutoencoderKL", convert.ae_config(spec.ae_params))
    with torch.device("meta"):
        ae = AutoEncoder(spec.ae_params)
    with out_of_memory_hint():
        load_into(
            ae, path, device, dtype, convert=lambda tensors: convert.ae_to_ours(tensors, spec.ae_params)
        )
    return ae


def load_t5(
    device: str | torch.device = "cuda",
    max_length: int = 512,
    *,
    name: str = "flux-dev",
    dtype: torch.dtype = torch.bfloat16,
    weights: str | Path | None = None,
) -> HFEmbedder:
    """The T5 encoder of the model `name`. max_length: tokens it reads, cut to what that model takes."""
    spec = spec_of(name)
    length = min(max_length, spec.t5_length)
    return _load_text_encoder(checkpoints.T5, spec, spec.t5, length, device, dtype, weights)


def load_clip(
    device: str | torch.device = "cuda",
    *,
    name: str = "flux-dev",
    dtype: torch.dtype = torch.bfloat16,
    weights: str | Path | None = None,
) -> HFEmbedder:
    """The CLIP text encoder of the model `name`."""
    spec = spec_of(name)
    return _load_text_encoder(checkpoints.CLIP, spec, spec.clip, spec.clip_length, device, dtype, weights)


def _load_text_encoder(
    part: checkpoints.Part,
    spec: ModelSpec,
    hub_name: str,
    length: int,
    device: str | torch.device,
    dtype: torch.dtype,
    weights: str | Path | None,
) -> HFEmbedder:
    device = pick_device(device)
    width = spec.params.context_in_dim if part is checkpoints.T5 else spec.params.vec_in_dim
    version = checkpoints.find_text_encoder(part, hub_name, width=width, weights=_place(spec, weights))
    try:
        with out_of_memory_hint():
            return HFEmbedder(version, max_length=length, torch_dtype=dtype).to(device)
    except (OSError, ValueError, SafetensorError) as error:  # transformers' messages run over many lines
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"the {part.title} {version} cannot be loaded ({reason}): check the network or HF_ENDPOINT, or "
            f"set {part.env_var} to its folder or FLUX_REPO to a clone of FLUX.1-dev"
        ) from error


def _place(spec: ModelSpec, weights: str | Path | None) -> str | Path | None:
    """The folder to look in: what the user says, or the package's own for an embedded model."""
    if weights is not None or not spec.embedded:
        return weights
    if not TINY_WEIGHTS.is_dir():
        raise CheckpointError(
            f"the weights of {spec.repo_id} are not at {TINY_WEIGHTS}: reinstall the package"
        )
    return TINY_WEIGHTS


def _base(spec: ModelSpec) -> ModelSpec:
    return configs[spec.flow_name] if spec.flow_name else spec


def _flow_path(spec: ModelSpec, weights: str | Path | None) -> Path:
    base = _base(spec)
    return checkpoints.find(
        base.repo_id,
        base.repo_flow,
        "FLUX_MODEL",
        weights=_place(spec, weights),
        checkpoints=CHECKPOINTS_DIR,
    )


def _ae_path(spec: ModelSpec, weights: str | Path | None) -> Path:
    base = _base(spec)
    return checkpoints.find(
        base.repo_id,
        base.repo_ae,
        "FLUX_AE",
        weights=_place(spec, weights),
        checkpoints=CHECKPOINTS_DIR,
    )


def _lora_path(spec: ModelSpec, weights: str | Path | None) -> Path | None:
    """The LoRA's file, None for a model without: in `weights` if it is there, else where all look."""
    if spec.lora_repo_id is None or spec.lora_filename is None:
        return None
    inside = weights is not None and (Path(weights).expanduser() / spec.lora_filename).is_file()
    return checkpoints.find(
        spec.lora_repo_id,
        spec.lora_filename,
        "FLUX_LORA",
        weights=weights if inside else None,
        checkpoints=CHECKPOINTS_DIR,
    )


def _require_config(path: Path, class_name: str, needed: dict) -> None:
    """Refuse a diffusers folder whose `config.json` describes another model than the one asked for."""
    file = path / "config.json"
    if not file.is_file():
        return
    wrong = convert.config_mismatch(checkpoints.read_json(file), {"_class_name": class_name, **needed})
    if wrong:
        raise CheckpointError(
            f"{path} holds another model, name the folder of this one: in config.json {wrong}"
        )


def optionally_expand_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors smaller than the model's are filled up with zeros at the ends of their axes."""
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    return {key: _expanded(tensor, shapes.get(key, tensor.shape)) for key, tensor in state_dict.items()}


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


# Hub and usage reports


def get_checkpoint_path(repo_id: str, filename: str, env_var: str) -> Path:
    """A weight file: what `env_var` names, else the file in `checkpoints/`, downloaded if it is missing.

    See `flux.checkpoints`: the path is a folder if the user names one in diffusers layout.
    """
    return checkpoints.find(repo_id, filename, env_var, checkpoints=CHECKPOINTS_DIR)


def ensure_hf_auth() -> bool:
    """Whether there is a token for the hub: HF_TOKEN, or one that `hf auth login` has stored."""
    from huggingface_hub import get_token

    return get_token() is not None


def prompt_for_hf_auth() -> bool:
    """Ask for a token on the terminal and log in with it; whether that worked."""
    from huggingface_hub import login

    try:
        token = getpass.getpass("Hugging Face token (from huggingface.co/settings/tokens): ").strip()
    except (EOFError, KeyboardInterrupt):
        return False
    if not token:
        return False
    try:
        login(token=token)
    except Exception as error:  # The hub's client raises whatever its HTTP library of the day does.
        print(f"the login failed: {next(iter(str(error).splitlines()), type(error).__name__)}")
        return False
    return True


def track_usage_via_api(name: str, n: int = 1) -> None:
    """Report `n` pictures to Black Forest Labs, as its commercial licence asks; to fail is a warning."""
    key, slug = BFL_API_KEY or os.getenv("BFL_API_KEY"), spec_of(name).usage_slug
    if slug is None or not key:
        why = "the model needs no report" if slug is None else "set BFL_API_KEY"
        print(f"the use of {name} is not reported: {why}")
        return
    request = urllib.request.Request(
        USAGE_URL.format(slug=slug),
        data=json.dumps({"number_of_generations": n}).encode(),
        headers={"x-key": key, "Content-Type": "application/json"},
        method="POST",
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except OSError as error:
        warnings.warn(f"the use of {name} could not be reported: {error}", stacklevel=2)


def download_onnx_models_for_trt(model_name: str, trt_transformer_precision: str = "bf16") -> str | None:
    """Not carried, as all of TensorRT; raises NotImplementedError."""
    raise NotImplementedError(f"this package carries no TensorRT engines: run {model_name} without trt=True")


def check_onnx_access_for_trt(model_name: str, trt_transformer_precision: str = "bf16") -> str | None:
    """Not carried, as all of TensorRT; raises NotImplementedError."""
    raise NotImplementedError(f"this package carries no TensorRT engines: run {model_name} without trt=True")


def aspect_ratio_to_height_width(aspect_ratio: str, area: int = 1024**2) -> tuple[int, int]:
    """(width, height), in this order despite the name, of about `area` pixels: `16:9` gives (1360, 768).

    Both are rounded down to multiples of 16. Raises ValueError for anything but two positive numbers around a
    colon.
    """
    try:
        width, height = (float(side) for side in aspect_ratio.split(":"))
        ratio = width / height
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"aspect ratio {aspect_ratio!r} is not two positive numbers like 16:9") from None
    sides = (round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio)))
    return 16 * (sides[0] // 16), 16 * (sides[1] // 16)
