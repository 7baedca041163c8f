"""What was a LoRA made for that fits no layer? Told by its names, its widths, or what its trainer wrote."""

import re
from collections.abc import Iterable, Mapping

NAMES = {
    "SDXL": r"^lora_unet_(input_blocks|output_blocks|middle_block|label_emb)_|^lora_te2_text_model",
    "Stable Diffusion 3": r"joint_blocks[._]|context_block[._]",
    "Qwen-Image": r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)[._]",
    "FLUX.2": r"to_qkv_mlp_proj|double_stream_modulation|single_stream_modulation",
    "Chroma": r"distilled_guidance_layer",
    "HunyuanVideo": r"(^|\.)double_blocks\.\d+\.img_attn_qkv\.|(img|txt)_mlp[._]fc[12]|token_refiner",
    "Wan": r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn)[._][qkvo](\.|$)|(^|\.)blocks\.\d+\.attn[12]\.",
    "Z-Image or Lumina": r"(^|[._])(layers[._]\d+[._]attention|noise_refiner|context_refiner)[._]",
    "HiDream": r"double_stream_blocks[._]|single_stream_blocks[._]",
    "AuraFlow": r"(^|[._])joint_transformer_blocks[._]",
    "PixArt, LTX-Video or CogVideoX": r"(^|[._])transformer_blocks[._]\d+[._]attn1[._]",
}
"""Models by what only their files call a layer. Of some, other layers have FLUX.1's names and widths."""

UNET = re.compile(r"(down|up)_blocks[._]|mid_block[._]")
CONTEXT = re.compile(r"attn2[._]to_k\b|attn2[._]processor[._]to_k|attn2_to_k")
CONTEXTS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
"""Models of a U-Net, by the width of what attention to the text reads."""

WIDTHS = {192: "flux-tiny", 1536: "Stable Diffusion 3", 2432: "Stable Diffusion 3.5", 3072: "FLUX.1"}
WIDTHS |= {4096: "FLUX.2", 6144: "FLUX.2"}
"""Models with names as FLUX.1 has them, by their width."""

TRAINERS = {"sd_v1": "Stable Diffusion 1", "sd_v2": "Stable Diffusion 2", "sd3": "Stable Diffusion 3"}
TRAINERS |= {"sdxl": "SDXL", "flux2": "FLUX.2", "flux": "FLUX.1", "hunyuan": "HunyuanVideo"}
"""What kohya's scripts write as `ss_base_model_version`, by how it begins."""

Shapes = Mapping[str, tuple[int, ...]]


def made_for(shapes: Shapes, metadata: Mapping[str, str]) -> str | None:
    """The model that a LoRA file was made for, in words; None where it cannot be told.

    shapes: of all tensors of the file. metadata: of its header.
    """
    if (named := _by_trainer(metadata)) is not None:
        return named
    if any(UNET.search(key) for key in shapes):
        widths = (shape[1] for key, shape in shapes.items() if CONTEXT.search(key) and len(shape) > 1)
        return next((CONTEXTS[width] for width in widths if width in CONTEXTS), named_for(shapes))
    return named_for(shapes) or _by_width(shapes)


def named_for(keys: Iterable[str]) -> str | None:
    """The model that alone has layers by names that are among the keys."""
    return _first(NAMES, keys)


def _first(names: Mapping[str, str], keys: Iterable[str]) -> str | None:
    keys = list(keys)
    return next((title for title, p in names.items() if any(re.search(p, key) for key in keys)), None)


def _by_trainer(metadata: Mapping[str, str]) -> str | None:
    if architecture := metadata.get("modelspec.architecture", ""):
        return architecture.partition("/")[0]
    version = metadata.get("ss_base_model_version", "").lower()
    return next((title for start, title in TRAINERS.items() if version.startswith(start)), None)


STREAM = re.compile(r"(to_q|add_q_proj|attn[._]qkv|qkv_lora1?|linear1)\.(lora_A|lora_down|down)\b.*weight")


def _by_width(shapes: Shapes) -> str | None:
    """By what the layers read that every layout has: queries."""
    widths = {shape[1] for key, shape in shapes.items() if STREAM.search(key) and len(shape) == 2}
    return WIDTHS.get(widths.pop()) if len(widths) == 1 else None
