"""Small LoRAs of random numbers, written in each layout."""

from dataclasses import replace

import torch
from helpers_models import SMALL_FLOW
from safetensors.torch import save_file

from flux.lora.places import linear_shapes
from flux.models import configs

TINY = configs["flux-tiny"]
SMALL = replace(configs["flux-dev"], params=SMALL_FLOW)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / shape[-1] ** 0.5


def updates(params, rank=2, seed=0, only=lambda name: True):
    """(down, up) for every linear layer of a model that `only` takes, by our names."""
    shapes = {name: shape for name, shape in linear_shapes(params).items() if only(name)}
    return {
        name: (noise(rank, inputs, seed=seed + 2 * i), noise(outputs, rank, seed=seed + 2 * i + 1))
        for i, (name, (outputs, inputs)) in enumerate(shapes.items())
    }


def in_blocks(name):
    """Layers that every layout has a name for."""
    return "blocks." in name and "mod" not in name


def official(each, prefix=""):
    halves = {"lora_A": 0, "lora_B": 1}
    return {f"{prefix}{n}.{half}.weight": pair[i] for n, pair in each.items() for half, i in halves.items()}


def kohya(each, alpha=None, prefix="lora_unet_"):
    state = {}
    for name, (down, up) in each.items():
        at = prefix + name.replace(".", "_")
        state |= {f"{at}.lora_down.weight": down, f"{at}.lora_up.weight": up}
        if alpha is not None:
            state[f"{at}.alpha"] = torch.tensor(float(alpha))
    return state


def xlabs(each, hidden):
    """Of attention alone: single blocks have the rows of queries, keys and values."""
    names = {"img_attn": "1", "txt_attn": "2"}
    state = {}
    for name, (down, up) in each.items():
        if "blocks" not in name:
            continue
        kind, block, *rest = name.split(".")
        if kind == "double_blocks" and rest[0] in names:
            at = f"{kind}.{block}.processor.{rest[1]}_lora{names[rest[0]]}"
        elif kind == "single_blocks" and rest[0] in ("linear1", "linear2"):
            at = f"{kind}.{block}.processor.{'qkv' if rest[0] == 'linear1' else 'proj'}_lora"
            up = up[: 3 * hidden] if rest[0] == "linear1" else up
        else:
            continue
        state |= {f"{at}.down.weight": down, f"{at}.up.weight": up}
    return state


def diffusers(model, rank=2, seed=0, prefix="transformer."):
    """For every linear layer of a model of diffusers, by its own names, each of another rank."""
    state = {}
    for i, (name, layer) in enumerate(model.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            own = rank + i % 2
            state[f"{prefix}{name}.lora_A.weight"] = noise(own, layer.in_features, seed=seed + 2 * i)
            state[f"{prefix}{name}.lora_B.weight"] = noise(layer.out_features, own, seed=seed + 2 * i + 1)
    return state


def save(file, state, metadata=None):
    save_file({key: x.contiguous() for key, x in state.items()}, file, metadata=metadata)
    return file


def tiny_lora(file, scale=0.3, seed=0):
    """A LoRA of flux-tiny that can be seen in its pictures."""
    each = updates(TINY.params, rank=4, seed=seed, only=in_blocks)
    return save(file, kohya({name: (down, scale * up) for name, (down, up) in each.items()}, alpha=4))


def small_clip():
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    widths = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    return CLIPTextModel(CLIPTextConfig(num_hidden_layers=2, vocab_size=99, **widths)).eval()
