"""The names of diffusers and PEFT: `transformer.transformer_blocks.0.attn.to_q.lora_A.weight`.

Queries, keys and values are apart there, and rows of one layer here; the last modulation has its halves
the other way round.
"""

from flux.lora.places import CLIP, T5, Place, Places, behind_any, in_text

PREFIXES = ("transformer.", "base_model.model.", "base_model.model.transformer.", "diffusion_model.")
TEXTS = {"text_encoder.": CLIP, "text_encoder_2.": T5}


def find(name: str, places: Places) -> Place | None:
    return behind_any(name, PREFIXES, places.diffusers) or in_text(name, TEXTS)
