"""How are the numbers of a weight file stored? As they are, or quantised, which has many schemes.

Scaled float8 can be applied exactly and is: the weight is the stored number times its scale. All other
schemes are refused by name, and so are integers that no scheme explains: as plain numbers they are noise.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from flux.formats.header import CheckpointError
from flux.formats.lazy import Lazy, Tensors

REFUSED = {
    "bitsandbytes nf4": r"\.quant_state\.bitsandbytes__nf4$",
    "bitsandbytes fp4": r"\.quant_state\.bitsandbytes__fp4$",
    "bitsandbytes 4 bit": r"\.(absmax|quant_map|nested_absmax|nested_quant_map)$",
    "bitsandbytes int8": r"\.(SCB|weight_format)$",
    "quanto": r"\.weight\._(data|scale|shift)$",
    "SVDQuant (nunchaku)": r"\.(wscales|ascales|wzeros|smooth_factor(_orig)?)$",
    "GPTQ or AWQ": r"\.(qweight|qzeros|g_idx)$",
    "torchao": r"[._:](qdata|weight_qdata|tensor_impl\.\w+|weight_zero_point)$",
    "HQQ": r"\.W_q$",
    "flux-fp8-api": r"\.float8_data$",
    "nvfp4": r"\.(weight_scale_2|weight_packed)$",
    "block-wise fp8": r"\.weight_scale_inv$",
}
"""Schemes that are not applied, by what their keys end with."""

SCALES = (".scale_weight", ".weight_scale")
"""What stands beside the weight of a linear layer in scaled float8: ComfyUI's name, and that of others."""

NO_WEIGHTS = re.compile(r"(^|\.)(scaled_fp8|scale_input|input_scale|comfy_quant)$")
"""Keys of scaled float8 that say how to multiply in eight bits, which nobody does here."""

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)

SCALE_LIKE = re.compile(r"scale|absmax|amax|zero_point", re.IGNORECASE)
OF_MODELS = re.compile(r"(^|\.)((query|key)_norm\.scale|logit_scale)$")
"""Keys that may be the scale of some weight, and those that models have without any."""

EMBEDDING = re.compile(r"(^|[._])(shared|embed_tokens|embedding|relative_attention_bias)\.weight$")


def scheme_of(keys: Iterable[str]) -> str | None:
    """The scheme that a file's keys speak of, None for plain numbers and scaled float8."""
    keys = list(keys)
    found = (name for name, pattern in REFUSED.items() if any(re.search(pattern, key) for key in keys))
    return next(found, None)


def refuse_quantised(keys: Iterable[str], where: object) -> None:
    """Raise CheckpointError, which names the scheme and the remedy, for weights quantised otherwise."""
    scheme = scheme_of(keys)
    if scheme:
        raise quantised(where, scheme)


def quantised(where: object, scheme: str) -> CheckpointError:
    return CheckpointError(
        f"{where} is quantised by {scheme}, which is not read: take the bfloat16 file of the same model"
    )


def plain(source: Tensors, where: object) -> Tensors:
    """The tensors as plain numbers: scales applied, and gone from the mapping with all that belongs to them.

    source: of one part of a model; may be on the meta device. where: for messages.
    Raises CheckpointError for another scheme, and for scales whose shape is not understood.
    """
    refuse_quantised(source, where)
    scales = scales_in(source)
    extra = {*scales.values(), *filter(NO_WEIGHTS.search, source)}
    if not extra:
        return source
    makers = {key: partial(source.__getitem__, key) for key in source if key not in extra}
    makers |= {key: partial(_scaled, source, key, scale, where) for key, scale in scales.items()}
    return Lazy(makers)


def scales_in(keys: Iterable[str]) -> dict[str, str]:
    """The keys of the scales that are understood, by the key of the weight that each stands beside."""
    keys = set(keys)
    scales = {key.removesuffix(end): key for end in SCALES for key in keys if key.endswith(end)}
    return {f"{layer}.weight": key for layer, key in scales.items() if f"{layer}.weight" in keys}


def refuse_unscaled(source: Tensors, where: object) -> None:
    """Raise CheckpointError where float8 would be loaded without its scale, which draws noise.

    There is a key that may be a scale, and nobody knows whose; or a weight has no scale where others of its
    kind have one, or where the file says that it is of scaled float8. source: on the meta device.
    """
    refuse_quantised(source, where)
    eight = {k: x for k, x in source.items() if x.dtype in FLOAT8 and not NO_WEIGHTS.search(k)}
    if not eight:
        return
    scales = scales_in(source)
    explained = {*scales, *scales.values()}
    for key in source:
        own = key in explained or NO_WEIGHTS.search(key) or OF_MODELS.search(key)
        if SCALE_LIKE.search(key) and not own:
            raise quantised(where, f"a scheme unknown here (float8 with {key})")
    scaled_kinds = {_kind(key, source[key]) for key in scales}
    if any(map(NO_WEIGHTS.search, source)):
        scaled_kinds.add("layer")
    bare = sorted(k for k, x in eight.items() if k not in scales and _kind(k, x) in scaled_kinds - {None})
    if bare:
        told = f"scaled float8, and {len(bare)} of its weights have no scale (such as {bare[0]})"
        raise quantised(where, told)


def _kind(key: str, weight: Tensor) -> str | None:
    """What programs scale alike: embeddings, and layers. None for biases and norms, which they leave."""
    if weight.ndim < 2:
        return None
    return "embedding" if EMBEDDING.search(key) else "layer"


def _scaled(source: Tensors, key: str, scale_key: str, where: object) -> Tensor:
    """A weight times its scale, in float32; the scale is one number, or one for each row."""
    weight, scale = source[key], source[scale_key]
    by_row = scale.numel() == weight.shape[0] and scale.ndim <= weight.ndim
    if not weight.is_floating_point() or not scale.is_floating_point() or not (scale.numel() == 1 or by_row):
        told = f"int8, or scales of shape {tuple(scale.shape)} for {tuple(weight.shape)} ({key})"
        raise quantised(where, told)
    _require_positive(scale, scale_key, where)
    scale = scale.float().reshape(-1, *(1,) * (weight.ndim - 1)) if by_row else scale.float().reshape(())
    return weight.float() * scale


def _require_positive(scale: Tensor, key: str, where: object) -> None:
    """Raise CheckpointError for a scale that is 0, negative, infinite or NaN; nothing is asked on meta."""
    if scale.is_meta:
        return
    wrong = scale.float()[~(scale.float().isfinite() & (scale.float() > 0))]
    if wrong.numel():
        raise CheckpointError(
            f"{where} has a scale of {wrong.flatten()[0].item():g} ({key}), where finite numbers above 0 are "
            "needed: take the bfloat16 file of the same model"
        )


def refuse_integers(source: Mapping[str, Tensor], wanted: Iterable[str], where: object) -> None:
    """Raise CheckpointError where a tensor that goes into a model is not of floating-point numbers.

    Or is float8 beside something that nobody understands, which may be a scale. source: on the meta device.
    """
    wanted = set(wanted)
    for key in wanted & source.keys():
        dtype = source[key].dtype
        if not dtype.is_floating_point:
            name = str(dtype).removeprefix("torch.")
            raise quantised(where, f"a scheme unknown here (numbers of type {name}, such as {key})")
    eight = {key.rpartition(".")[0] for key in wanted & source.keys() if source[key].dtype in FLOAT8}
    beside = sorted(key for key in source if key not in wanted and key.rpartition(".")[0] in eight)
    if beside:
        raise quantised(where, f"a scheme unknown here (float8 with {beside[0]})")
