"""Which models are there? One record each: shapes, files, layers, and the usual settings.

Imports no torch, so that a spec is checked before it loads. `flux.model`, `flux.modules.autoencoder` and
`flux.util` hand these names on where upstream has them.
"""

import math
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Literal

LayerName = int | str
"""0-56, or `double.i` / `single.i`; checkpoints' and diffusers' names of the blocks are read too."""

BLOCKS = {
    "double_blocks": "double",
    "single_blocks": "single",
    "transformer_blocks": "double",
    "single_transformer_blocks": "single",
}
"""What checkpoints, ComfyUI and diffusers call the blocks, and what we do."""

RANGE = re.compile(r"([a-z_]+\.)?([0-9]+)-([0-9]+)")

MOST_GUIDANCE = 100
"""The most that a picture is made with. Canny's usual one is 30; far beyond, latents are no numbers."""


@dataclass
class FluxParams:
    """Widths and depths of a flow model. `sum(axes_dim)` is the width of one head."""

    in_channels: int
    out_channels: int
    vec_in_dim: int
    context_in_dim: int
    hidden_size: int
    mlp_ratio: float
    num_heads: int
    depth: int
    depth_single_blocks: int
    axes_dim: list[int]
    theta: int
    qkv_bias: bool
    guidance_embed: bool


@dataclass
class AutoEncoderParams:
    """`ch_mult` has one entry per level; each level but the last halves the size."""

    resolution: int
    in_channels: int
    ch: int
    out_ch: int
    ch_mult: list[int]
    num_res_blocks: int
    z_channels: int
    scale_factor: float
    shift_factor: float


# Layers


@dataclass(frozen=True)
class Layers:
    """The layers a model has: `depth` double blocks, then `depth_single` single blocks.

    Numbered as in Stable Flow (arXiv 2411.14430): double blocks first, then single blocks, 0-56 for FLUX.1.
    """

    depth: int
    depth_single: int

    def __len__(self) -> int:
        return self.depth + self.depth_single

    def index(self, name: LayerName) -> int:
        """The number of a layer; raises ValueError, stating the range, for a layer that is not there."""
        if isinstance(name, Integral) and not isinstance(name, bool):  # NumPy's numbers too
            if 0 <= name < len(self):
                return int(name)
        elif isinstance(name, str):
            kind, _, number = name.partition(".")
            kind = BLOCKS.get(kind, kind)
            count = {"double": self.depth, "single": self.depth_single}.get(kind, 0)
            if _is_number(number) and int(number) < count:
                return int(number) + (self.depth if kind == "single" else 0)
            if _is_number(name) and int(name) < len(self):
                return int(name)
        raise ValueError(f"layer {name!r} does not exist: the model has {self.range()}")

    def expand(self, name: LayerName) -> tuple[int, ...]:
        """The numbers `all`, `double.*`, `0-3`, `double.1-3` or one layer's name stands for.

        ValueError as `index`, and for a range that goes down.
        """
        groups = {
            "all": range(len(self)),
            "double.*": range(self.depth),
            "single.*": range(self.depth, len(self)),
        }
        if not isinstance(name, str):
            return (self.index(name),)
        kind, dot, rest = name.partition(".")
        name = BLOCKS.get(kind, kind) + dot + rest
        if name in groups:
            return tuple(groups[name])
        if (ends := RANGE.fullmatch(name)) is None:
            return (self.index(name),)
        first, last = (self.index(f"{ends[1] or ''}{end}") for end in ends.groups()[1:])
        if first > last:
            raise ValueError("a range goes from its lower layer to its higher one")
        return tuple(range(first, last + 1))

    def indices(self, names: Iterable[LayerName]) -> tuple[int, ...]:
        """The numbers of several names, ascending, each once; ValueError as `index`."""
        return tuple(sorted({index for name in names for index in self.expand(name)}))

    def name(self, index: int) -> str:
        """`double.i` or `single.i` of a layer's number."""
        index = self.index(index)
        return f"double.{index}" if index < self.depth else f"single.{index - self.depth}"

    def range(self) -> str:
        """The valid names, in words, for error messages."""
        parts = [
            f"{kind}.0 to {kind}.{count - 1}"
            for kind, count in (("double", self.depth), ("single", self.depth_single))
            if count
        ]
        return f"layers 0 to {len(self) - 1} ({', '.join(parts)})"


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


# Records


@dataclass
class ModelSpec:
    """A model: shapes, files on the hub, and the settings it is meant to be run with.

    lora_*: a LoRA over the flow model, its rank and usual scale.
    flow_name: the model whose flow file and autoencoder this one takes, if not its own.
    t5, clip, t5_length, clip_length: the text encoders on the hub, and the tokens they read.
    shift: whether the schedule depends on the size of the picture.
    guidance: the usual one, None for a model without guidance embedding. size: usual width and height.
    task: what it starts from, as EXIF fields have it.
    home: the folder in this package that holds its weights, laid out as a clone of FLUX.1-dev; None: the hub.
    layer_sets: layers by the name of a set; `default` is what an edit takes when its spec names no layers.
    *_parameters, decoder_operations: for estimates of cost; the latter are needed to decode a pixel.
    t5_linear_parameters: those of its parameters that are weights of linear layers.
    reference: how the picture that it looks at gets in, None for a model that looks at none: `canny` and
    `depth` draw it and `fill` masks it, all joined to the channels, `kontext` puts tokens behind the
    picture's own, `redux` behind T5's.
    largest: the side in pixels above which its pictures are of no use; None where none is known.
    latent_spread: the standard deviation of its pictures' latents; thresholds of masks are shares of it.
    word_layers: where image tokens look at the words that name them, for masks by words; empty: not known.
    unknown_words: the dotted name of a function that finds the words of a prompt it never learned, if any.
    edit_judge: the dotted name of what judges edits by their prompts, made from the weights' folder, if any.
    judged_pairs: the same of what has pairs of prompts with a right answer, and scores edits of them.
    """

    params: FluxParams
    ae_params: AutoEncoderParams
    repo_id: str
    repo_flow: str
    repo_ae: str
    lora_repo_id: str | None = None
    lora_filename: str | None = None
    lora_rank: int = 128
    lora_scale: float = 0.85
    flow_name: str | None = None
    t5: str = "google/t5-v1_1-xxl"
    clip: str = "openai/clip-vit-large-patch14"
    t5_length: int = 512
    clip_length: int = 77
    shift: bool = True
    num_steps: int = 50
    guidance: float | None = 3.5
    size: int = 1024
    task: Literal["txt2img", "img2img"] = "txt2img"
    home: Path | None = None
    layer_sets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    t5_parameters: int = 4_762_310_656
    t5_linear_parameters: int = 4_630_511_616
    clip_parameters: int = 123_060_480
    ae_parameters: int = 83_819_683
    decoder_operations: int = 9_496_000
    unknown_words: str | None = None
    edit_judge: str | None = None
    reference: Literal["canny", "depth", "fill", "kontext", "redux"] | None = None
    judged_pairs: str | None = None
    largest: int | None = None
    latent_spread: float = 1.0
    word_layers: tuple[int, ...] = ()

    def size_note(self, width: int, height: int) -> str | None:
        """What is to be said of a size that the model draws nothing of use at; None for any other."""
        if self.largest is None or max(width, height) <= self.largest:
            return None
        return f"draws {self.largest} x {self.largest}: of {width} x {height} stripes come out"

    @property
    def embedded(self) -> bool:
        """Whether its weights come with the package."""
        return self.home is not None

    @property
    def from_text(self) -> bool:
        """Whether a prompt is enough to make a picture."""
        return self.reference in (None, "kontext")

    @property
    def reference_tokens(self) -> int:
        """About how many tokens the picture that it looks at adds to those of text and picture."""
        return {"kontext": 4096, "redux": 729}.get(self.reference or "", 0)

    @property
    def layers(self) -> Layers:
        return Layers(self.params.depth, self.params.depth_single_blocks)

    @property
    def flow_parameters(self) -> int:
        """How many numbers the flow model has."""
        p, hidden = self.params, self.params.hidden_size
        mlp, norms = int(hidden * p.mlp_ratio), 2 * (hidden // p.num_heads)

        def embedder(width: int) -> int:
            return (width + 1) * hidden + (hidden + 1) * hidden

        stream = 6 * hidden * (hidden + 1) + 3 * hidden * (hidden + p.qkv_bias) + norms
        stream += hidden * (hidden + 1) + (hidden + 1) * mlp + (mlp + 1) * hidden
        single = 3 * hidden * (hidden + 1) + norms + (hidden + 1) * (3 * hidden + mlp)
        single += (hidden + mlp + 1) * hidden
        ends = (p.in_channels + 1) * hidden + (p.context_in_dim + 1) * hidden
        ends += embedder(256) * (1 + p.guidance_embed) + embedder(p.vec_in_dim)
        ends += (hidden + 1) * 2 * hidden + (hidden + 1) * p.out_channels
        return ends + p.depth * 2 * stream + p.depth_single_blocks * single


_FLUX_DEV = ModelSpec(
    params=FluxParams(
        in_channels=64,
        out_channels=64,
        vec_in_dim=768,
        context_in_dim=4096,
        hidden_size=3072,
        mlp_ratio=4.0,
        num_heads=24,
        depth=19,
        depth_single_blocks=38,
        axes_dim=[16, 56, 56],
        theta=10_000,
        qkv_bias=True,
        guidance_embed=True,
    ),
    ae_params=AutoEncoderParams(
        resolution=256,
        in_channels=3,
        ch=128,
        out_ch=3,
        ch_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        z_channels=16,
        scale_factor=0.3611,
        shift_factor=0.1159,
    ),
    repo_id="black-forest-labs/FLUX.1-dev",
    repo_flow="flux1-dev.safetensors",
    repo_ae="ae.safetensors",
    # double.14, 17 and 18 and single.4: LayerVerse (ECCV 2026), which measured FLUX.1-dev.
    word_layers=(14, 17, 18, 23),
)

_FLUX_TINY = ModelSpec(
    params=replace(
        _FLUX_DEV.params,
        vec_in_dim=128,
        context_in_dim=128,
        hidden_size=192,
        num_heads=6,
        depth=4,
        depth_single_blocks=8,
        # One head has 32 channels; the low theta suits a grid of 8 x 8 tokens.
        axes_dim=[4, 14, 14],
        theta=100,
    ),
    ae_params=replace(
        _FLUX_DEV.ae_params,
        resolution=128,
        ch=32,
        ch_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        scale_factor=1.0,
        shift_factor=0.0,
    ),
    repo_id="flux-tiny",
    repo_flow="flux1-tiny.safetensors",
    repo_ae="ae.safetensors",
    t5="flux-tiny",
    clip="flux-tiny",
    t5_length=48,
    clip_length=48,
    num_steps=16,
    size=128,
    home=Path(__file__).parent / "tiny" / "weights",
    # default: found by trying sets on pairs with a known answer. vital: by the sweep of demos 2 and 3.
    # The model card has the figures of both.
    layer_sets={"default": (1, 11), "vital": (0, 3)},
    t5_parameters=508_608,
    t5_linear_parameters=491_520,
    clip_parameters=439_424,
    ae_parameters=1_049_603,
    decoder_operations=170_500,
    unknown_words="flux.tiny.captions.unknown_words",
    edit_judge="flux.tiny.edit_judge.EditJudge",
    judged_pairs="flux.tiny.edit_pairs.JudgedPairs",
    largest=128,
    # Measured over 320 rendered scenes, 1.003 to 1.011 on 40 each.
    latent_spread=1.008,
)

_FLUX_DEV_SETS = {
    # Stable Flow, section 3; its released code leaves out layer 2, which frees the edit a little.
    "paper": (0, 1, 2, 17, 18, 25, 28, 53, 54, 56),
    "released": (0, 1, 17, 18, 25, 28, 53, 54, 56),
    # Found again by an independent implementation on this package, similarity below 0.95.
    "reimplementation": (0, 1, 2, 17, 18, 53, 56),
    "default": (0, 1, 17, 18, 25, 28, 53, 54, 56),
}


def _on_hub(title: str, **changes) -> ModelSpec:
    """FLUX.1 [dev] with the files of another repository, such as `Fill-dev`."""
    repo_id, repo_flow = f"black-forest-labs/FLUX.1-{title}", f"flux1-{title.lower()}.safetensors"
    return replace(_FLUX_DEV, repo_id=repo_id, repo_flow=repo_flow, **changes)


def _tool(title: str, **changes) -> ModelSpec:
    """A model of FLUX.1 Tools, which starts from a picture."""
    return _on_hub(title, task="img2img", **changes)


def _by_lora(model: ModelSpec, title: str) -> ModelSpec:
    """FLUX.1 [dev] with the LoRA that turns it into `model`."""
    return replace(
        model,
        flow_name="flux-dev",
        repo_id=_FLUX_DEV.repo_id,
        repo_flow=_FLUX_DEV.repo_flow,
        lora_repo_id=f"black-forest-labs/FLUX.1-{title}-lora",
        lora_filename=f"flux1-{title.lower()}-lora.safetensors",
    )


_CONTROL = replace(_FLUX_DEV.params, in_channels=128)
_CANNY = _tool("Canny-dev", reference="canny", params=_CONTROL, guidance=30.0)
_DEPTH = _tool("Depth-dev", reference="depth", params=_CONTROL, guidance=10.0)

_RECORDS = {
    "flux-tiny": _FLUX_TINY,
    "flux-dev": replace(_FLUX_DEV, layer_sets=_FLUX_DEV_SETS),
    "flux-dev-krea": _on_hub("Krea-dev"),
    "flux-dev-kontext": _tool("Kontext-dev", reference="kontext", num_steps=30, guidance=2.5),
    "flux-schnell": _on_hub(
        "schnell",
        params=replace(_FLUX_DEV.params, guidance_embed=False),
        t5_length=256,
        shift=False,
        num_steps=4,
        guidance=None,
    ),
    "flux-dev-canny": _CANNY,
    "flux-dev-canny-lora": _by_lora(_CANNY, "Canny-dev"),
    "flux-dev-depth": _DEPTH,
    "flux-dev-depth-lora": _by_lora(_DEPTH, "Depth-dev"),
    # The repository's file is an image projector; see flux.modules.image_embedders.
    "flux-dev-redux": _tool("Redux-dev", reference="redux", flow_name="flux-dev", guidance=2.5),
    "flux-dev-fill": _tool(
        "Fill-dev",
        reference="fill",
        params=replace(_FLUX_DEV.params, in_channels=384),
        t5_length=128,
        guidance=30.0,
    ),
}

configs: dict[str, ModelSpec] = {name: deepcopy(record) for name, record in _RECORDS.items()}
"""The models by name. No two share a part: clients change depths in place."""

FROM_TEXT: tuple[str, ...] = tuple(name for name, record in configs.items() if record.from_text)
"""The models that make a picture from a prompt alone."""

VITAL_LAYERS: Mapping[str, Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {name: MappingProxyType(dict(record.layer_sets)) for name, record in configs.items() if record.layer_sets}
)
"""Layer sets by model and name."""


class UnknownModel(KeyError, ValueError):
    """A name that no model has: upstream's callers catch KeyError, ours ValueError."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError's own is the text in quotes.


def spec_of(name: str, records: Mapping[str, ModelSpec] | None = None) -> ModelSpec:
    """The record of a model; UnknownModel, with the choices, for a name that is not there."""
    records = configs if records is None else records
    if name not in records:
        raise UnknownModel(f"model {name!r} is unknown: the models are {', '.join(records)}")
    return records[name]


# Sizes

_TALL = {672: 1568, 688: 1504, 720: 1456, 752: 1392, 800: 1328, 832: 1248, 880: 1184, 944: 1104}
PREFERED_KONTEXT_RESOLUTIONS = [*_TALL.items(), (1024, 1024), *((b, a) for a, b in reversed(_TALL.items()))]
"""(width, height), ascending by width."""


def kontext_size(width: int, height: int) -> tuple[int, int]:
    """Of the sizes that Kontext was trained for, the one of the nearest aspect ratio: (width, height)."""
    ratio = width / height
    sizes = sorted(map(tuple, PREFERED_KONTEXT_RESOLUTIONS))
    return min(sizes, key=lambda size: abs(ratio - size[0] / size[1]))


def aspect_ratio_to_height_width(aspect_ratio: str, area: int = 1024**2) -> tuple[int, int]:
    """(width, height), in this order despite the name, of about `area` pixels: `16:9` gives (1360, 768).

    Both are rounded down to multiples of 16. Raises ValueError for anything but two positive numbers around a
    colon.
    """
    try:
        width, height = (float(side) for side in aspect_ratio.split(":"))
        ratio = width / height
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"aspect ratio {aspect_ratio!r} is not two positive numbers like 16:9") from None
    sides = (round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio)))
    return 16 * (sides[0] // 16), 16 * (sides[1] // 16)
