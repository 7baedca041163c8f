"""Hooks: what happens inside the layers of a FLUX model.

A plan is made per call and handed to `Flux.forward(..., hooks=plan)` or `denoise(..., hooks=plan)`; nothing
is kept on the model, so two calls with different plans do not disturb each other. It has four rows, each
absent by default, and with none of them results are bit-identical to the plain path:

    Hooks(skip=[17, "single.9"])                                  # leave two layers out
    Hooks(skip={3: "mlp", 7: "attention"})                        # leave halves of layers out
    Hooks(inject=dict.fromkeys([0, 1, 17, 18], CopySource()))     # rows 1, 2, ... look at row 0
    Hooks(attend={5: my_attention})                               # masks, longer keys, the maps themselves
    Hooks(after={18: my_residual})                                # see and change what a layer returns

Layers are numbered as in Stable Flow (arXiv 2411.14430): double blocks first, then single blocks, 0-56 for
FLUX.1.

The plan stands in `plan.py`. What an edit copies, and how far, is decided in `copying.py`; which tokens are
copied in `selection.py`; `recording.py` keeps keys and values of one run for another.
"""

from flux.hooks.attention import (
    AttentionMaps,
    WatchAttention,
    Watched,
    attention_from,
    attention_to,
    received_attention,
)
from flux.hooks.copying import CopySource
from flux.hooks.kept import CopyKept, KeepSource, KeptSource
from flux.hooks.looking import LookAtSource
from flux.hooks.plan import Attention, BoundHooks, Hook, Hooks, Injection, Residual, Select, Site
from flux.hooks.recording import Recall, Recording
from flux.hooks.selection import AboveThreshold, Mask, TopRatio
from flux.models import VITAL_LAYERS, LayerName, Layers

__all__ = [
    "VITAL_LAYERS",
    "AboveThreshold",
    "Attention",
    "AttentionMaps",
    "BoundHooks",
    "CopyKept",
    "CopySource",
    "Hook",
    "Hooks",
    "Injection",
    "KeepSource",
    "KeptSource",
    "LayerName",
    "Layers",
    "LookAtSource",
    "Mask",
    "Recall",
    "Recording",
    "Residual",
    "Select",
    "Site",
    "TopRatio",
    "WatchAttention",
    "Watched",
    "attention_from",
    "attention_to",
    "received_attention",
]
