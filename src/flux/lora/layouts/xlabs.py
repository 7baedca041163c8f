"""The names of XLabs: `double_blocks.0.processor.qkv_lora1.down.weight`.

In a double block 1 is the picture's stream and 2 the text's. In a single block `qkv_lora` is the rows of
queries, keys and values of `linear1`, and `proj_lora` is `linear2`.
"""

import re
from dataclasses import replace

from flux.lora.places import Place, Places

DOUBLE = re.compile(r"(?:diffusion_model\.)?(double_blocks\.\d+)\.processor\.(qkv|proj)_lora([12])")
SINGLE = re.compile(r"(?:diffusion_model\.)?(single_blocks\.\d+)\.processor\.(qkv|proj)_lora")
STREAMS = {"1": "img_attn", "2": "txt_attn"}


def find(name: str, places: Places) -> Place | None:
    if (found := DOUBLE.fullmatch(name)) is not None:
        return places.ours.get(f"{found[1]}.{STREAMS[found[3]]}.{found[2]}")
    if (found := SINGLE.fullmatch(name)) is None:
        return None
    place = places.ours.get(f"{found[1]}.{'linear1' if found[2] == 'qkv' else 'linear2'}")
    if place is None or found[2] == "proj":
        return place
    return replace(place, spans=((0, 3 * places.params.hidden_size),))
