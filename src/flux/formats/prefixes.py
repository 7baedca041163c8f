"""Which keys of a file are those of a part? Programs put names before them, or keep all parts in one file."""

from collections.abc import Iterable

from flux.formats.header import CheckpointError
from flux.formats.lazy import Tensors, renamed

WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""What compilation and training put between the names of modules."""

FLOW = ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.")
AE = ("first_stage_model.", "vae.", "autoencoder.")
T5 = ("text_encoders.t5xxl.transformer.", "t5xxl.transformer.", "text_encoder_2.", "transformer.")
CLIP = (
    "text_encoders.clip_l.transformer.",
    "clip_l.transformer.",
    "cond_stage_model.transformer.",
    "text_encoder.",
    "transformer.",
)
"""What may stand before all keys of a part, the likeliest first."""

PARTS = ("model.diffusion_model.", *AE, "text_encoders.", "cond_stage_model.", "conditioner.")
PARTS += ("text_encoder.", "text_encoder_2.", "model_ema.")
"""What stands before the keys of parts in files of several."""


def behind(source: Tensors, prefixes: Iterable[str], where: object = "the file") -> Tensors:
    """The tensors of a part under its own keys: behind the first of `prefixes` that any key has, or all.

    Raises CheckpointError where two keys become one.
    """
    names: dict[str, str] = {}
    for key in source:
        name = ".".join(word for word in key.split(".") if word not in WRAPPERS).removeprefix("module.")
        if name in names:
            raise CheckpointError(f"{where} holds {name} twice: name a file of one model")
        names[name] = key
    for prefix in prefixes:
        inner = {name.removeprefix(prefix): key for name, key in names.items() if name.startswith(prefix)}
        if inner:
            # A scale whose name begins otherwise stays in sight, so that it is refused.
            before = {name: name.partition(f".{prefix}") for name in names}
            inner |= {n: names[n] for n, (word, at, _) in before.items() if at and "scale" in word}
            return renamed(source, inner)
    own = {name: key for name, key in names.items() if not name.startswith(PARTS)}
    return source if len(own) == len(source) and all(a == b for a, b in own.items()) else renamed(source, own)
