"""Where an update goes: which linear layer, and which of its rows. Imports no torch.

A file names layers as its program does. Each layout (`flux.lora.layouts`) turns a name into a `Place` by the
tables that are made here from a model's shapes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from flux.formats.diffusers_names import DOUBLE_BLOCK, FLOW_ENDS, FLOW_SWAPPED, SINGLE_BLOCK
from flux.models import FluxParams

FLOW, CLIP, T5 = "flow model", "CLIP", "T5"


@dataclass(frozen=True)
class Place:
    """A linear layer of ours, or rows of it.

    part: FLOW, CLIP or T5. layer: the module's name; of a text encoder, its end, for releases of transformers
    put `text_model.` before it or not. outputs, inputs: what the layer has; 0 where its part has to tell.
    spans: (start, stop) of the rows that the update's own rows are, in their order; empty for all.
    """

    layer: str
    outputs: int = 0
    inputs: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    part: str = FLOW

    @property
    def rows(self) -> int:
        """How many rows an update has that goes here."""
        return sum(stop - start for start, stop in self.spans) if self.spans else self.outputs


def linear_shapes(params: FluxParams) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every linear layer of a flow model, by its name."""
    hidden, mlp = params.hidden_size, int(params.hidden_size * params.mlp_ratio)
    shapes = {
        "img_in": (hidden, params.in_channels),
        "txt_in": (hidden, params.context_in_dim),
        "final_layer.linear": (params.out_channels, hidden),
        "final_layer.adaLN_modulation.1": (2 * hidden, hidden),
    }
    embedders = {"time_in": 256, "vector_in": params.vec_in_dim}
    for name, width in (embedders | ({"guidance_in": 256} if params.guidance_embed else {})).items():
        shapes |= {f"{name}.in_layer": (hidden, width), f"{name}.out_layer": (hidden, hidden)}
    for i in range(params.depth):
        for stream in ("img", "txt"):
            at = f"double_blocks.{i}.{stream}"
            shapes |= {
                f"{at}_mod.lin": (6 * hidden, hidden),
                f"{at}_attn.qkv": (3 * hidden, hidden),
                f"{at}_attn.proj": (hidden, hidden),
                f"{at}_mlp.0": (mlp, hidden),
                f"{at}_mlp.2": (hidden, mlp),
            }
    for i in range(params.depth_single_blocks):
        at = f"single_blocks.{i}"
        shapes |= {
            f"{at}.modulation.lin": (3 * hidden, hidden),
            f"{at}.linear1": (3 * hidden + mlp, hidden),
            f"{at}.linear2": (hidden, hidden + mlp),
        }
    return shapes


@dataclass(frozen=True)
class Places:
    """The layers of a flow model by the names that files have for them."""

    params: FluxParams

    @cached_property
    def ours(self) -> Mapping[str, Place]:
        return {name: Place(name, *shape) for name, shape in linear_shapes(self.params).items()}

    @cached_property
    def diffusers(self) -> Mapping[str, Place]:
        """By the names of diffusers, which keeps apart what is stacked here, and swaps two halves."""
        found: dict[str, Place] = {}
        for ours, theirs in self._pairs():
            place = self.ours.get(ours)
            if place is None:
                continue
            if ours in FLOW_SWAPPED:
                half = place.outputs // 2
                spans = ((half, 2 * half), (0, half))
                found[theirs] = Place(ours, place.outputs, place.inputs, spans)
                continue
            start = 0
            parts = theirs.split()
            for i, part in enumerate(parts):
                # All but the last, the MLP of a single block, are as wide as the model.
                stop = place.outputs if i == len(parts) - 1 else start + self.params.hidden_size
                spans = ((start, stop),) if len(parts) > 1 else ()
                found[part] = Place(ours, place.outputs, place.inputs, spans)
                start = stop
        return found

    @cached_property
    def underscored(self) -> Mapping[str, Place]:
        """By both kinds of names, with _ for the dots."""
        return {name.replace(".", "_"): p for name, p in (self.ours | self.diffusers).items()}

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Our name of a layer, and diffusers' names of its parts, with spaces between."""
        yield from (FLOW_ENDS | FLOW_SWAPPED).items()
        for count, table, ours, theirs in (
            (self.params.depth, DOUBLE_BLOCK, "double_blocks", "transformer_blocks"),
            (self.params.depth_single_blocks, SINGLE_BLOCK, "single_blocks", "single_transformer_blocks"),
        ):
            for i in range(count):
                for name, parts in table.items():
                    yield f"{ours}.{i}.{name}", " ".join(f"{theirs}.{i}.{part}" for part in parts.split())


CLIP_LAYER = re.compile(
    r"(?:text_model_)?encoder_layers_(\d+)_(?:(self_attn)_([qkv]|out)_proj|(mlp)_(fc[12]))"
)
T5_LAYER = re.compile(
    r"encoder_block_(\d+)_layer_(\d)_(?:(SelfAttention)_([qkvo])|(DenseReluDense)_(w[io](?:_\d)?))"
)


def in_clip(name: str) -> Place | None:
    """The layer of CLIP's text model that a name with dots or with _ for them means."""
    if (found := CLIP_LAYER.fullmatch(name.replace(".", "_"))) is None:
        return None
    leaf = f"{found[2]}.{found[3]}_proj" if found[2] else f"{found[4]}.{found[5]}"
    return Place(f"encoder.layers.{found[1]}.{leaf}", part=CLIP)


def in_t5(name: str) -> Place | None:
    """The layer of T5's encoder that a name with dots or with _ for them means."""
    if (found := T5_LAYER.fullmatch(name.replace(".", "_"))) is None:
        return None
    kind, leaf = (found[3], found[4]) if found[3] else (found[5], found[6])
    return Place(f"encoder.block.{found[1]}.layer.{found[2]}.{kind}.{leaf}", part=T5)


TEXT_PARTS = {CLIP: in_clip, T5: in_t5}


def in_text(name: str, prefixes: Mapping[str, str]) -> Place | None:
    """The place in a text encoder of a name behind one of `prefixes`, each with its part."""
    for prefix, part in prefixes.items():
        if name.startswith(prefix) and (place := TEXT_PARTS[part](name.removeprefix(prefix))) is not None:
            return place
    return None


def behind_any(name: str, prefixes: tuple[str, ...], places: Mapping[str, Place]) -> Place | None:
    """The place of a name, bare or behind one of `prefixes`."""
    return next((places[rest] for p in ("", *prefixes) if (rest := name.removeprefix(p)) in places), None)
