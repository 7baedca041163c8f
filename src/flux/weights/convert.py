"""Weights of the `diffusers` library as ours, and ours as theirs.

Both hold the same numbers under other names. Three things differ beside the names: we stack what diffusers
keeps apart (queries, keys, values, MLP), we order the last modulation (shift, scale) where diffusers has
(scale, shift), and the autoencoder's attention is 1 x 1 convolutions here, linear layers there.

Functions take and return mappings from key to tensor. What they return is lazy: a tensor is made when its key
is asked for, so that a model of many shards is converted one tensor at a time. Keys no rule knows pass
unchanged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from flux.formats import prefixes
from flux.formats.diffusers_names import (
    DOUBLE_BLOCK,
    DOUBLE_BLOCK_NORMS,
    FLOW_ENDS,
    FLOW_SWAPPED,
    SINGLE_BLOCK,
    SINGLE_BLOCK_NORMS,
)
from flux.formats.lazy import Lazy, Tensors, renamed
from flux.formats.prefixes import behind
from flux.models import AutoEncoderParams, FluxParams

Form = Literal["same", "halves swapped", "1x1 convolution"]

# Ours, and diffusers'.
AE_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
AE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
AE_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}

# What diffusers called the autoencoder's attention before it had these names.
AE_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# Keys by which a file is of another model, though all that this one needs is there.
FLOW_FOREIGN = ("guidance_in.", "time_text_embed.guidance_embedder.")
AE_FOREIGN = ("quant_conv.", "post_quant_conv.")


@dataclass(frozen=True)
class Rule:
    """One tensor of ours and the tensors of diffusers' it is made of.

    theirs: keys of the parts, stacked along the first axis. rows: the length of each part along it, empty for
    one.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    form: Form = "same"

    def join(self, source: Tensors) -> Tensor:
        """Our tensor, from a mapping that has every key of `theirs`."""
        parts = [source[key] for key in self.theirs]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.form == "1x1 convolution":
            return tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        return _swap_halves(tensor) if self.form == "halves swapped" else tensor

    def part(self, source: Tensors, index: int) -> Tensor:
        """The tensor of diffusers' whose key is `theirs[index]`, from a mapping that has the key `ours`."""
        tensor = source[self.ours]
        if self.rows:
            return tensor.split(self.rows)[index].contiguous()
        if self.form == "1x1 convolution":
            return tensor.flatten(1) if tensor.ndim == 4 else tensor
        return _swap_halves(tensor) if self.form == "halves swapped" else tensor


def _swap_halves(tensor: Tensor) -> Tensor:
    first, second = tensor.chunk(2)
    return torch.cat((second, first))


def flow_rules(params: FluxParams) -> list[Rule]:
    """The rules of a flow model; among them some that a given model has no tensors for, such as guidance."""
    hidden = params.hidden_size
    rows = (hidden, hidden, hidden, int(hidden * params.mlp_ratio))
    rules = [*_linear(FLOW_ENDS), *_linear(FLOW_SWAPPED, form="halves swapped")]
    for i in range(params.depth):
        at = f"double_blocks.{i}.", f"transformer_blocks.{i}."
        rules += [*_linear(DOUBLE_BLOCK, *at, rows=rows), *_norm(DOUBLE_BLOCK_NORMS, *at)]
    for i in range(params.depth_single_blocks):
        at = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        rules += [*_linear(SINGLE_BLOCK, *at, rows=rows), *_norm(SINGLE_BLOCK_NORMS, *at)]
    return rules


def ae_rules(params: AutoEncoderParams) -> list[Rule]:
    """The rules of an autoencoder. The decoder's levels count from the coarsest in diffusers, here not."""
    levels = len(params.ch_mult)
    rules = []
    for half in ("encoder.", "decoder."):
        mid, theirs_mid = f"{half}mid.", f"{half}mid_block."
        rules += _linear(AE_ENDS, half, half)
        rules += _linear(AE_RESNET, f"{mid}block_1.", f"{theirs_mid}resnets.0.")
        rules += _linear(AE_RESNET, f"{mid}block_2.", f"{theirs_mid}resnets.1.")
        rules += _linear({"norm": "group_norm"}, f"{mid}attn_1.", f"{theirs_mid}attentions.0.")
        rules += _linear(AE_ATTENTION, f"{mid}attn_1.", f"{theirs_mid}attentions.0.", form="1x1 convolution")
    for i in range(levels):
        down, theirs_down = f"encoder.down.{i}.", f"encoder.down_blocks.{i}."
        up, theirs_up = f"decoder.up.{i}.", f"decoder.up_blocks.{levels - 1 - i}."
        rules += _linear({"downsample.conv": "downsamplers.0.conv"}, down, theirs_down)
        rules += _linear({"upsample.conv": "upsamplers.0.conv"}, up, theirs_up)
        for j in range(params.num_res_blocks):
            rules += _linear(AE_RESNET, f"{down}block.{j}.", f"{theirs_down}resnets.{j}.")
        for j in range(params.num_res_blocks + 1):
            rules += _linear(AE_RESNET, f"{up}block.{j}.", f"{theirs_up}resnets.{j}.")
    return rules


def _linear(
    table: Mapping[str, str],
    ours: str = "",
    theirs: str = "",
    rows: tuple[int, ...] = (),
    form: Form = "same",
) -> Iterator[Rule]:
    """Rules for weight and bias of every row of a table, behind the prefixes `ours` and `theirs`."""
    for name, parts in table.items():
        for leaf in ("weight", "bias"):
            keys = tuple(f"{theirs}{part}.{leaf}" for part in parts.split())
            yield Rule(f"{ours}{name}.{leaf}", keys, rows[: len(keys)] if len(keys) > 1 else (), form)


def _norm(table: Mapping[str, str], ours: str, theirs: str) -> Iterator[Rule]:
    for name, part in table.items():
        yield Rule(f"{ours}{name}.scale", (f"{theirs}{part}.weight",))


def to_ours(rules: Iterable[Rule], source: Tensors) -> Lazy:
    """Diffusers' tensors under our keys. A tensor of ours is left out unless all its parts are there."""
    makers, known = {}, set()
    for rule in rules:
        known.update(rule.theirs)
        if all(key in source for key in rule.theirs):
            makers[rule.ours] = partial(rule.join, source)
    return Lazy(makers | _passed_on(source, known))


def to_diffusers(rules: Iterable[Rule], source: Tensors) -> Lazy:
    """Our tensors under diffusers' keys."""
    makers, known = {}, set()
    for rule in rules:
        known.add(rule.ours)
        if rule.ours in source:
            makers |= {key: partial(rule.part, source, i) for i, key in enumerate(rule.theirs)}
    return Lazy(makers | _passed_on(source, known))


def _passed_on(source: Tensors, known: set[str]) -> dict[str, Callable[[], Tensor]]:
    return {key: partial(source.__getitem__, key) for key in source if key not in known}


def is_diffusers(rules: Iterable[Rule], source: Tensors) -> bool:
    """Whether any key of the source is one that only diffusers uses."""
    rules = list(rules)
    ours = {rule.ours for rule in rules}
    return any(key in source and key not in ours for rule in rules for key in rule.theirs)


def flow_to_ours(source: Tensors, params: FluxParams) -> Tensors:
    """A flow model's tensors under our keys, whether they are official, prefixed or diffusers'."""
    return _as_ours(flow_rules(params), behind(source, prefixes.FLOW))


def ae_to_ours(source: Tensors, params: AutoEncoderParams) -> Tensors:
    """An autoencoder's tensors under our keys, whether they are official, prefixed or diffusers'."""
    source = behind(source, prefixes.AE)
    new = {key: _new_name(key) for key in source}
    if any(key != name for key, name in new.items()):
        source = renamed(source, {name: key for key, name in new.items()})
    return _as_ours(ae_rules(params), source)


def _new_name(key: str) -> str:
    """A key of the autoencoder's attention as diffusers writes it now."""
    before, middle, rest = key.partition(".attentions.0.")
    name, dot, leaf = rest.rpartition(".")
    return f"{before}{middle}{AE_OLD.get(name, name)}{dot}{leaf}"


def _as_ours(rules: list[Rule], source: Tensors) -> Tensors:
    return to_ours(rules, source) if is_diffusers(rules, source) else source


def flow_params(shapes: Tensors, like: FluxParams) -> FluxParams:
    """The widths and depths that official tensors have. What shapes do not tell is as in `like`: RoPE's axes.

    shapes: tensors by key, on any device. Raises KeyError where the entrance or the first blocks are missing.
    """

    def depth(blocks: str) -> int:
        return len({key.split(".")[1] for key in shapes if key.startswith(f"{blocks}.")})

    hidden, in_channels = shapes["img_in.weight"].shape
    head = shapes["double_blocks.0.img_attn.norm.query_norm.scale"].shape[0]
    return replace(
        like,
        in_channels=in_channels,
        out_channels=shapes["final_layer.linear.weight"].shape[0],
        vec_in_dim=shapes["vector_in.in_layer.weight"].shape[1],
        context_in_dim=shapes["txt_in.weight"].shape[1],
        hidden_size=hidden,
        mlp_ratio=shapes["double_blocks.0.img_mlp.0.weight"].shape[0] / hidden,
        num_heads=hidden // head,
        depth=depth("double_blocks"),
        depth_single_blocks=depth("single_blocks"),
        qkv_bias="double_blocks.0.img_attn.qkv.bias" in shapes,
        guidance_embed="guidance_in.in_layer.weight" in shapes,
    )


def flow_config(params: FluxParams) -> dict:
    """The arguments of diffusers' FluxTransformer2DModel that make the same model."""
    return {
        "in_channels": params.in_channels,
        "out_channels": params.out_channels,
        "num_layers": params.depth,
        "num_single_layers": params.depth_single_blocks,
        "attention_head_dim": params.hidden_size // params.num_heads,
        "num_attention_heads": params.num_heads,
        "joint_attention_dim": params.context_in_dim,
        "pooled_projection_dim": params.vec_in_dim,
        "guidance_embeds": params.guidance_embed,
        "axes_dims_rope": list(params.axes_dim),
    }


def ae_config(params: AutoEncoderParams) -> dict:
    """The arguments of diffusers' AutoencoderKL that make the same model."""
    levels = len(params.ch_mult)
    return {
        "in_channels": params.in_channels,
        "out_channels": params.out_ch,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [params.ch * m for m in params.ch_mult],
        "layers_per_block": params.num_res_blocks,
        "latent_channels": params.z_channels,
        "scaling_factor": params.scale_factor,
        "shift_factor": params.shift_factor,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def config_mismatch(found: Mapping, needed: Mapping) -> str:
    """What a diffusers `config.json` says otherwise than `needed`, in words; empty if nothing.

    Entries that are absent or null are defaults, which the file leaves to the library: they are not compared.
    """
    differing = (
        f"{key} is {found[key]!r} where {value!r} is needed"
        for key, value in needed.items()
        if found.get(key) is not None and found[key] != value
    )
    return ", ".join(differing)
