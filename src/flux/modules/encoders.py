"""T5 and CLIP from weight files: what each must hold, and the way through the gate of `flux.formats`.

Both are built by `transformers`, whose own reading throws away the scales of float8 and fills up with random
numbers what a file lacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flux.files import read_json_object
from flux.formats import prefixes
from flux.formats.fill import Filled, assign, fit, load_into, nothing
from flux.formats.folder import files_of
from flux.formats.header import CheckpointError
from flux.formats.lazy import Tensors, renamed
from flux.formats.prefixes import behind
from flux.formats.schemes import plain, quantised, refuse_unscaled
from flux.formats.weights import Weights

Config = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]

CLIP_L = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
"""The text model of openai/clip-vit-large-patch14, the only one whose heads its file need not tell."""

MOST, MOST_LAYERS = 1_000_000, 1_000
"""Larger sizes in a config are none."""

T5_BUCKETS = 32
"""Of relative positions, in all published T5 models, which then reach 128 tokens far."""

FIRST = "encoder.block.0.layer.0.SelfAttention"


@dataclass(frozen=True)
class TextEncoder:
    """One kind of text encoder.

    sizes: what its config must tell, whole numbers. shapes: of all weights that a config asks for.
    names: a file's keys as those of `shapes`. known: keys too many that mean nothing. foreign: keys by which
    a file is of another architecture.
    config_from: the config that a file's shapes tell; CheckpointError, from the path, where they do not.
    """

    title: str
    prefixes: tuple[str, ...]
    sizes: tuple[str, ...]
    shapes: Callable[[Config], Shapes]
    names: Callable[[Tensors], Tensors]
    known: Callable[[str], bool]
    foreign: Callable[[str], bool]
    config_from: Callable[[Tensors, Path], dict[str, Any]]

    def config(self, source: Path) -> dict[str, Any]:
        """The config of a folder, or of a file: the `config.json` beside it, else what its shapes tell."""
        beside = (source if source.is_dir() else source.parent) / "config.json"
        found = read_json_object(beside) if beside.is_file() else None
        if source.is_dir() and found is None:
            raise CheckpointError(f"{beside} is not a JSON object: download it again")
        told = found.get("text_config", found) if found else None
        if isinstance(told, dict) and (
            source.is_dir() or self is encoder_of(str(found.get("model_type", "")))
        ):
            scheme = found.get("quantization_config")
            if scheme:
                name = scheme.get("quant_method", "a scheme") if isinstance(scheme, dict) else "a scheme"
                raise quantised(source, f"{name} (config.json)")
            return told
        return self.config_from(self.found(source), source)

    def found(self, source: Path) -> Tensors:
        """The tensors of a file or folder under the names of `shapes`, on the meta device."""
        shapes = behind(Weights(files_of(source)).shapes(), self.prefixes, source)
        refuse_unscaled(shapes, source)
        return self.names(plain(shapes, source))

    def check(self, source: Path) -> None:
        """Raise CheckpointError unless a file or folder has every weight its config asks for."""
        fit(self.found(source), self.wanted(source), source, known=self.known, foreign=self.foreign)

    def wanted(self, source: Path) -> Shapes:
        """The weights that the config asks for; CheckpointError for one that describes no such encoder."""
        config = self.config(source)
        for name in self.sizes:
            size = config.get(name)
            most = MOST_LAYERS if name.endswith("layers") else MOST
            if type(size) is not int or not 0 < size < most:
                raise CheckpointError(
                    f"{source} has a config.json that describes no {self.title}, {name} is {size!r}: "
                    "download it again"
                )
        return self.shapes(config)


def _t5_shapes(config: Config) -> Shapes:
    width, heads, ff = config["d_model"], config["num_heads"], config["d_ff"]
    inner = heads * config["d_kv"]
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    shapes = {"shared.weight": (config["vocab_size"], width), "encoder.final_layer_norm.weight": (width,)}
    for i in range(config["num_layers"]):
        at = f"encoder.block.{i}.layer"
        shapes |= {f"{at}.0.SelfAttention.{name}.weight": (inner, width) for name in "qkv"}
        shapes |= {f"{at}.0.SelfAttention.o.weight": (width, inner)}
        shapes |= {f"{at}.{j}.layer_norm.weight": (width,) for j in (0, 1)}
        ways_in = ("wi_0", "wi_1") if gated else ("wi",)
        shapes |= {f"{at}.1.DenseReluDense.{name}.weight": (ff, width) for name in ways_in}
        shapes |= {f"{at}.1.DenseReluDense.wo.weight": (width, ff)}
    buckets = config.get("relative_attention_num_buckets", T5_BUCKETS)
    return shapes | {f"{FIRST}.relative_attention_bias.weight": (buckets, heads)}


LLAMA_CPP = {
    "attn_norm": "0.layer_norm",
    **{f"attn_{name}": f"0.SelfAttention.{name}" for name in "qkvo"},
    "attn_rel_b": "0.SelfAttention.relative_attention_bias",
    "ffn_norm": "1.layer_norm",
    "ffn_gate": "1.DenseReluDense.wi_0",
    "ffn_up": "1.DenseReluDense.wi_1",
    "ffn_down": "1.DenseReluDense.wo",
}
"""What llama.cpp calls the parts of a block of T5, and `transformers` does."""

LLAMA_CPP_ENDS = {
    "token_embd.weight": "shared.weight",
    "enc.output_norm.weight": "encoder.final_layer_norm.weight",
}


def _t5_name(key: str, gated: bool) -> str:
    """A key of a GGUF file, `enc.blk.3.attn_q.weight`, as the others have it."""
    words = key.split(".")
    if len(words) == 5 and words[:2] == ["enc", "blk"] and words[3] in LLAMA_CPP:
        part = "1.DenseReluDense.wi" if words[3] == "ffn_up" and not gated else LLAMA_CPP[words[3]]
        return f"encoder.block.{words[2]}.layer.{part}.{words[4]}"
    return LLAMA_CPP_ENDS.get(key, key)


def _t5_names(source: Tensors) -> Tensors:
    """The embedding is `shared.weight`, in some files under its other name; never the decoder's way out."""
    if any(key.startswith("enc.blk.") for key in source):
        gated = any(".ffn_gate." in key for key in source)
        source = renamed(source, {_t5_name(key, gated): key for key in source})
    twin = "encoder.embed_tokens.weight"
    if "shared.weight" in source or twin not in source:
        return source
    return renamed(source, {"shared.weight" if key == twin else key: key for key in source})


def _t5_known(key: str) -> bool:
    return key.startswith(("decoder.", "lm_head.")) or key in (
        "encoder.embed_tokens.weight",
        "spiece_model",
        "logit_scale",
    )


def _t5_foreign(key: str) -> bool:
    return key.endswith("relative_attention_bias.weight") or ".DenseReluDense." in key


def _t5_config(found: Tensors, source: Path) -> dict[str, Any]:
    try:
        (buckets, heads), (inner, width) = (
            found[f"{FIRST}.{name}.weight"].shape for name in ("relative_attention_bias", "q")
        )
        ff = found["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0]
        vocabulary = found["shared.weight"].shape[0]
        blocks = {key.split(".")[2] for key in found if key.startswith("encoder.block.")}
        if buckets != T5_BUCKETS or inner % heads:
            raise ValueError(f"{buckets} buckets")
    except (KeyError, ValueError) as error:
        raise _no_config(source, "T5 text encoder", error) from error
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": ff,
        "num_heads": heads,
        "num_layers": len(blocks),
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
    }


def _clip_shapes(config: Config) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.token_embedding.weight": (config["vocab_size"], width),
        "embeddings.position_embedding.weight": (config["max_position_embeddings"], width),
    }
    linear = {f"self_attn.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    linear |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layers.{i}."
        for name, shape in linear.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
        shapes |= {f"{at}layer_norm{j}.{leaf}": (width,) for j in (1, 2) for leaf in ("weight", "bias")}
    return shapes | {f"final_layer_norm.{leaf}": (width,) for leaf in ("weight", "bias")}


def _clip_name(key: str) -> str:
    # transformers 5.6 and later leave the prefix out.
    return key.removeprefix("text_model.")


def _clip_names(source: Tensors) -> Tensors:
    return renamed(source, {_clip_name(key): key for key in source})


def _clip_known(key: str) -> bool:
    return key.endswith("position_ids") or key.startswith(
        ("vision_model.", "visual_projection.", "text_projection", "logit_scale")
    )


def _clip_config(found: Tensors, source: Path) -> dict[str, Any]:
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    if any(shapes.get(key) != shape for key, shape in _clip_shapes(CLIP_L).items()):
        raise _no_config(source, "CLIP text encoder", "its weights are not those of CLIP-L")
    return dict(CLIP_L)


def _no_config(source: Path, title: str, reason: object) -> CheckpointError:
    return CheckpointError(
        f"{source} holds no {title} that its weights alone describe ({reason}): put the encoder's "
        "config.json beside it, or name the encoder's folder"
    )


T5 = TextEncoder(
    "T5 text encoder",
    prefixes.T5,
    ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers"),
    _t5_shapes,
    _t5_names,
    _t5_known,
    _t5_foreign,
    _t5_config,
)
CLIP = TextEncoder(
    "CLIP text encoder",
    prefixes.CLIP,
    tuple(name for name, value in CLIP_L.items() if type(value) is int and name != "projection_dim"),
    _clip_shapes,
    _clip_names,
    _clip_known,
    lambda key: False,
    _clip_config,
)


def encoder_of(model_type: str) -> TextEncoder | None:
    """The kind of text encoder that a config's `model_type` is, None for others."""
    if model_type.startswith("clip"):
        return CLIP
    return T5 if model_type.startswith(("t5", "mt5")) else None


def load_encoder(
    kind: type,
    encoder: TextEncoder,
    source: Path,
    dtype: torch.dtype,
    *,
    filled: Filled = nothing,
    packs: bool = False,
) -> nn.Module:
    """A text encoder of `transformers`, built without numbers and filled from a folder or a file.

    filled, packs: as `flux.formats.fill.load_into` takes them.

    Raises CheckpointError, in one line, for weights that are missing, damaged, quantised or another model's.
    """
    encoder.wanted(source)
    model = _built(kind, encoder.config(source), source)
    own = {_clip_name(key) if encoder is CLIP else key: key for key in model.state_dict()}

    def convert(tensors: Tensors) -> Tensors:
        tensors = encoder.names(tensors)
        return renamed(tensors, {own.get(key, key): key for key in tensors})

    def target(key: str) -> torch.dtype:
        # As transformers has it: T5's last linear layers run over in float16.
        return torch.float32 if dtype is torch.float16 and ".wo." in key else dtype

    load_into(
        model,
        source,
        "cpu",
        target,
        prefixes=encoder.prefixes,
        convert=convert,
        optional=lambda key: key == "encoder.embed_tokens.weight",
        known=encoder.known,
        foreign=encoder.foreign,
        filled=filled,
        packs=packs,
    )
    if encoder is T5:
        model.encoder.set_input_embeddings(model.shared)
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            assign(model, name, torch.arange(buffer.shape[-1]).expand(1, -1))
    return model


def _built(kind: type, config: Config, source: Path) -> nn.Module:
    """The model of a config, on the meta device."""
    settings = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
    try:
        with torch.device("meta"):
            return kind(kind.config_class.from_dict(settings))
    except Exception as error:  # of whatever kind transformers makes of a setting
        told = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{source} has a config.json that {kind.__name__} does not take ({told})"
        ) from error
