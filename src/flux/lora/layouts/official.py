"""The names of the official checkpoints: `double_blocks.0.img_attn.qkv.lora_A.weight`.

So are FLUX.1-Canny-dev-lora and FLUX.1-Depth-dev-lora, and, behind a prefix, what ComfyUI, ai-toolkit and
fal's trainers write.
"""

from flux.lora.places import CLIP, T5, Place, Places, behind_any, in_text

PREFIXES = ("diffusion_model.", "model.diffusion_model.", "transformer.", "base_model.model.")
TEXTS = {"text_encoders.clip_l.transformer.": CLIP, "text_encoders.t5xxl.transformer.": T5}


def find(name: str, places: Places) -> Place | None:
    return behind_any(name, PREFIXES, places.ours) or in_text(name, TEXTS)
