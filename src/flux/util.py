"""Upstream's `flux.util`: names that live elsewhere, and the loaders as upstream's callers know them.

The loaders look up `configs`, `get_checkpoint_path` and `Flux` here when they are called, so that a client
that puts its own in their places is heard, and hand them down to `flux.weights.load`.
Importing this module makes no folder and sets no variable.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as load_sft

from flux.extras import lazy_names
from flux.lora.choice import Choices
from flux.model import Flux, FluxLoraWrapper, FluxParams
from flux.models import (
    PREFERED_KONTEXT_RESOLUTIONS,
    AutoEncoderParams,
    ModelSpec,
    aspect_ratio_to_height_width,
    configs,
    spec_of,
)
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.pictures.files import save_image
from flux.pictures.usage import BFL_API_KEY, track_usage_via_api
from flux.pictures.watermark import (
    WATERMARK_BITS,
    WATERMARK_MESSAGE,
    WatermarkEmbedder,
    WatermarkEncoder,
    embed_watermark,
)
from flux.placement.modes import Offload
from flux.placement.peaks import Demand
from flux.precision.choice import Choice as PrecisionChoice
from flux.weights import load
from flux.weights.find import CHECKPOINTS_DIR, CheckpointError, find_file
from flux.weights.hub import ensure_hf_auth, prompt_for_hf_auth
from flux.weights.load import Models, optionally_expand_state_dict, print_load_warning
from flux.weights.parts import LORA

__all__ = [
    "BFL_API_KEY",
    "CHECKPOINTS_DIR",
    "PREFERED_KONTEXT_RESOLUTIONS",
    "TINY_WEIGHTS",
    "WATERMARK_BITS",
    "WATERMARK_MESSAGE",
    "AutoEncoder",
    "AutoEncoderParams",
    "CheckpointError",
    "Flux",
    "FluxLoraWrapper",
    "FluxParams",
    "HFEmbedder",
    "ModelSpec",
    "Models",
    "WatermarkEmbedder",
    "WatermarkEncoder",
    "aspect_ratio_to_height_width",
    "check_onnx_access_for_trt",
    "configs",
    "download_onnx_models_for_trt",
    "embed_watermark",
    "ensure_hf_auth",
    "get_checkpoint_path",
    "hf_hub_download",
    "load_ae",
    "load_clip",
    "load_flow_model",
    "load_models",
    "load_sft",
    "load_t5",
    "optionally_expand_state_dict",
    "print_load_warning",
    "prompt_for_hf_auth",
    "save_image",
    "track_usage_via_api",
]

TINY_WEIGHTS = configs["flux-tiny"].home

__getattr__, __dir__ = lazy_names(__name__, {"login": "huggingface_hub:login", "requests": "requests"})


def hf_hub_download(*args: Any, **kwargs: Any) -> str:
    """The hub's own, imported when it is needed."""
    import huggingface_hub

    return huggingface_hub.hf_hub_download(*args, **kwargs)


_OF_THE_HUB = hf_hub_download


def get_checkpoint_path(repo_id: str, filename: str, env_var: str) -> Path:
    """A weight file: what `env_var` names, else the file in `checkpoints/`, downloaded if it is missing.

    See `flux.weights.find`: the path is a folder if the user names one in diffusers layout.
    """
    # None is the hub's own, which is asked first whether it is there.
    download = None if hf_hub_download is _OF_THE_HUB else hf_hub_download
    return find_file(repo_id, filename, env_var, checkpoints=CHECKPOINTS_DIR, download=download)


def _find(repo_id: str, filename: str, env_var: str, *, weights: str | Path | None = None) -> Path:
    if weights is not None:
        return find_file(repo_id, filename, env_var, weights=weights)
    return get_checkpoint_path(repo_id, filename, env_var)


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
) -> Models:
    """Load every part of a model, see `flux.weights.load.load_models`."""
    return load.load_models(
        name,
        device=device,
        dtype=dtype,
        weights=weights,
        offload=offload,
        demand=demand,
        prompts=prompts,
        lora=lora,
        lora_live=lora_live,
        precision=precision,
        records=configs,
        find=_find,
        flow_class=Flux,
    )


def load_flow_model(
    name: str,
    device: str | torch.device = "cuda",
    verbose: bool = True,
    *,
    dtype: torch.dtype | None = None,
    weights: str | Path | None = None,
) -> Flux:
    """The flow model `name`, see `flux.weights.load.load_flow_model`. dtype: None keeps the file's.

    As upstream's it looks at FLUX_LORA for models that are made of a LoRA alone; for others it says that the
    variable is set and not used. `load_models` and `flux.lora.applying.apply_loras` apply LoRAs to any.
    """
    if os.environ.get(LORA.env_var) and spec_of(name, configs).lora_filename is None:
        warnings.warn(
            f"{LORA.env_var} is set and not used: load_flow_model loads {name} as it is; "
            "flux.util.load_models applies it",
            stacklevel=2,
        )
    hub = {"records": configs, "find": _find, "flow_class": Flux}
    return load.load_flow_model(name, device, verbose, dtype=dtype, weights=weights, **hub)


def load_ae(
    name: str,
    device: str | torch.device = "cuda",
    *,
    dtype: torch.dtype | None = None,
    weights: str | Path | None = None,
) -> AutoEncoder:
    """The autoencoder of the model `name`, see `flux.weights.load`. weights: a folder, or the file."""
    return load.load_ae(name, device, dtype=dtype, weights=weights, records=configs, find=_find)


def load_t5(
    device: str | torch.device = "cuda",
    max_length: int = 512,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    weights: str | Path | None = None,
) -> HFEmbedder:
    """The T5 encoder of the model `name`, or whatever the variables name, see `flux.weights.load.load_t5`."""
    return load.load_t5(device, max_length, name=name, dtype=dtype, weights=weights, records=configs)


def load_clip(
    device: str | torch.device = "cuda",
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    weights: str | Path | None = None,
) -> HFEmbedder:
    """The CLIP text encoder of the model `name`, or whatever the variables name."""
    return load.load_clip(device, name=name, dtype=dtype, weights=weights, records=configs)


def download_onnx_models_for_trt(model_name: str, trt_transformer_precision: str = "bf16") -> str | None:
    """Not carried, as all of TensorRT; raises NotImplementedError."""
    raise NotImplementedError(f"this package carries no TensorRT engines: run {model_name} without trt=True")


def check_onnx_access_for_trt(model_name: str, trt_transformer_precision: str = "bf16") -> str | None:
    """Not carried, as all of TensorRT; raises NotImplementedError."""
    raise NotImplementedError(f"this package carries no TensorRT engines: run {model_name} without trt=True")
