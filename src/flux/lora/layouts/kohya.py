"""The names of kohya's scripts: `lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight`, with `.alpha`.

OneTrainer writes `lora_transformer_` and the names of diffusers. The text encoders are `lora_te1_` (CLIP) and
`lora_te3_` or `lora_te2_` (T5).
"""

from flux.lora.places import CLIP, T5, Place, Places, in_text

PREFIXES = ("lora_unet_", "lora_transformer_")
TEXTS = {"lora_te1_": CLIP, "lora_te_": CLIP, "lora_te2_": T5, "lora_te3_": T5}


def find(name: str, places: Places) -> Place | None:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return places.underscored.get(name.removeprefix(prefix).replace(".", "_"))
    return in_text(name, TEXTS)
