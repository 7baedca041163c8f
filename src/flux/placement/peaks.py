"""How much a device holds in each way, before anything is loaded.

What layers take while they are at work is counted, operation by operation, on tensors without numbers;
weights are added up. Not predicted: what the driver and a device's own kernels take for themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from flux.hooks import CopySource, Hooks
from flux.model import Flux
from flux.models import ModelSpec
from flux.modules.autoencoder import AutoEncoder
from flux.placement.counting import LiveBytes
from flux.placement.masters import bytes_of
from flux.placement.modes import ENCODERS, MODULATION, NONE, STREAM, stream_key
from flux.placement.shares import AHEAD, Shares, modulations_of, shares_of, staying_of
from flux.placement.tables import MOST_TIMES
from flux.precision.choice import Precision
from flux.precision.sizes import saved_in, t5_bytes

T5_BLOCKS, T5_WORDS = 24, 32128
"""Of T5 v1.1 XXL, the one that is large."""

READING = 0.3e9 / 512**2
"""Bytes that T5 takes for a prompt, for each pair of its tokens; measured on an H100."""

WAYS = (NONE, ENCODERS, MODULATION, STREAM)


@dataclass(frozen=True)
class Demand:
    """What is made at a time: rows side by side, of so many pixels and steps.

    evaluations: for each step. held: bytes that stay on the device, such as a source's keys and values.
    """

    rows: int
    width: int
    height: int
    steps: int
    evaluations: int = 1
    held: float = 0.0


@dataclass(frozen=True)
class PeakBytes:
    """The most bytes that are on the device in each phase of a run."""

    way: str
    encoding: float
    sampling: float
    decoding: float

    @property
    def most(self) -> float:
        return max(self.encoding, self.sampling, self.decoding)


@dataclass(frozen=True)
class FlowBytes:
    """Of a flow model: each block without its modulation layers; the largest of these, all; the rest."""

    blocks: tuple[float, ...]
    modulation: float
    modulations: float
    rest: float


@torch.no_grad()
def predict_peaks(
    model: ModelSpec, dtype: torch.dtype, demand: Demand, precision: Precision | None = None
) -> list[PeakBytes]:
    """The peaks of every way, in the order in which they need less.

    Of streaming for each number of blocks that may stay, from the most to none.

    precision: of weights that are quantised.
    """
    flow = _one_of_each(model, dtype)
    weights = _flow_bytes(flow, model, dtype, precision)
    entering, sampling, entry = _sampled(flow, model, dtype, demand)
    entering, sampling = entering + demand.held, sampling + demand.held
    tables = entry * min(demand.steps * demand.evaluations, MOST_TIMES)
    evaluating = entering + (1 + AHEAD) * weights.modulation
    decoding = decoder_bytes(model, dtype, demand) + demand.held
    ae = model.ae_parameters * 4
    t5 = t5_bytes(model, precision, dtype.itemsize)
    reading = READING * model.t5_length**2
    words = min(T5_WORDS * model.params.context_in_dim * dtype.itemsize, t5)
    t5_blocks = [(t5 - words) / T5_BLOCKS] * T5_BLOCKS
    kept = weights.rest + sum(weights.blocks)
    modulated = tables + max(sampling, evaluating)
    peaks = [
        PeakBytes(
            NONE,
            t5 + reading,
            kept + weights.modulations + ae + sampling,
            kept + weights.modulations + ae + decoding,
        ),
        PeakBytes(ENCODERS, t5 + reading, kept + weights.modulations + sampling, ae + decoding),
        PeakBytes(MODULATION, t5 + reading, kept + modulated, ae + decoding),
    ]
    for count in range(max(0, len(weights.blocks) - 2 - AHEAD), -1, -1):
        there = weights.rest + _in_turn(weights.blocks, count)
        if count == 0 or there + modulated < peaks[-1].sampling:  # rooms are as large as the largest block
            encoding = words + _in_turn(t5_blocks, count) + reading
            peaks.append(PeakBytes(stream_key(count), encoding, there + modulated, ae + decoding))
    return peaks


def peaks_of(way: str, peaks: Sequence[PeakBytes]) -> PeakBytes:
    """Those of a way; of so many staying blocks that nothing is saved, about those of `modulation`."""
    found = {each.way: each for each in peaks}
    return found.get(way, found[MODULATION])


def _in_turn(blocks: Sequence[float], count: int) -> float:
    """What blocks take on the device of which so many stay and the others pass through."""
    staying = {*staying_of(range(len(blocks)), count)}
    passing = [size for i, size in enumerate(blocks) if i not in staying]
    rooms = min(1 + AHEAD, len(passing))
    return sum(blocks[i] for i in staying) + rooms * max(passing, default=0.0)


def _one_of_each(model: ModelSpec, dtype: torch.dtype) -> Flux:
    """A flow model with a block of each kind, which takes as much at a time as one with all."""
    params = replace(model.params, depth=min(1, model.params.depth), depth_single_blocks=1)
    with torch.device("meta"):
        return Flux(params).to(dtype).requires_grad_(False)


def _flow_bytes(flow: Flux, model: ModelSpec, dtype: torch.dtype, precision: Precision | None) -> FlowBytes:
    shares: Shares = shares_of(flow, modulation=True, stream=True)
    times = {
        **dict.fromkeys(flow.double_blocks, model.params.depth),
        **dict.fromkeys(flow.single_blocks, model.params.depth_single_blocks),
        flow.final_layer: 1,
    }
    blocks = {owner: bytes_of(tensors) for owner, tensors in shares.blocks.items()}
    modulations = {owner: bytes_of(tensors) for owner, tensors in shares.modulations.items()}
    in_full = [size for owner, size in blocks.items() for _ in range(times[owner])]
    return FlowBytes(
        blocks=tuple(
            size - saved_in(model, layer, precision, dtype.itemsize) for layer, size in enumerate(in_full)
        ),
        modulation=max(modulations.values()),
        modulations=sum(size * times[owner] for owner, size in modulations.items()),
        rest=bytes_of(shares.rest),
    )


def _sampled(flow: Flux, model: ModelSpec, dtype: torch.dtype, demand: Demand) -> tuple[float, float, float]:
    """What an evaluation takes beside weights: before its first block, at most, and of tables an entry."""
    rows, params = demand.rows, model.params
    tokens = (demand.width // 16) * (demand.height // 16)
    text = model.t5_length

    def inputs() -> dict[str, Tensor]:
        place = {"device": "meta", "dtype": dtype}
        img_tokens = tokens + (model.reference_tokens if model.reference == "kontext" else 0)
        txt_tokens = text + (model.reference_tokens if model.reference == "redux" else 0)
        return {
            "img": torch.empty(rows, img_tokens, params.in_channels, **place),
            "img_ids": torch.empty(rows, img_tokens, 3, device="meta"),
            "txt": torch.empty(rows, txt_tokens, params.context_in_dim, **place),
            "txt_ids": torch.empty(rows, txt_tokens, 3, device="meta"),
            "timesteps": torch.empty(rows, **place),
            "y": torch.empty(rows, params.vec_in_dim, **place),
            "guidance": torch.empty(rows, **place),
        }

    # An edit looks at its source somewhere, which takes a little more than a row alone.
    hooks = Hooks(inject={"all": CopySource()}) if rows > 1 else None
    live, entering, entry = LiveBytes(), [], 0.0
    first = next(iter((*flow.double_blocks, *flow.single_blocks)))
    handle = first.register_forward_pre_hook(lambda *_: entering.append(live.now))
    try:
        with live, _Kernels():
            flow(**inputs(), hooks=hooks)
    finally:
        handle.remove()
    depths = {flow.final_layer: 1, **dict.fromkeys(flow.single_blocks, params.depth_single_blocks)}
    for owner in (*flow.double_blocks, *flow.single_blocks, flow.final_layer):
        linears = [each for layer in modulations_of(owner) for each in layer.modules()]
        width = sum(each.out_features for each in linears if isinstance(each, nn.Linear))
        entry += rows * width * dtype.itemsize * depths.get(owner, params.depth)
    return entering[0], live.most, entry


def decoder_bytes(model: ModelSpec, dtype: torch.dtype, demand: Demand) -> float:
    """What decoding one picture takes beside the decoder's own weights; in bfloat16 under autocast."""
    with torch.device("meta"):
        decoder = AutoEncoder(model.ae_params).requires_grad_(False).decoder
        live = LiveBytes()
        channels = model.ae_params.z_channels
        with live, _Kernels(half=dtype == torch.bfloat16):
            decoder(torch.empty(1, channels, demand.height // 8, demand.width // 8))
    return live.most


class _Kernels(TorchFunctionMode):
    """Functions as a GPU's kernels do them: attention without a table of all pairs, and autocast to bfloat16.

    half: whether what autocast would cast is cast; of devices without numbers there is no autocast.
    """

    def __init__(self, half: bool = False):
        super().__init__()
        self.half = half
        self.cast: dict[int, Tensor] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            args = self._halves(args)
            return torch.empty_like(args[0])
        if self.half and function in (F.conv2d, F.linear, torch.conv2d):
            args = self._halves(args)
        if self.half and function is F.group_norm:
            args = (args[0].float(), *args[1:])
        return function(*args, **kwargs)

    def _halves(self, values: tuple) -> tuple:
        return tuple(self._low(each) for each in values) if self.half else values

    def _low(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(torch.bfloat16)
        if id(value) not in self.cast:  # autocast keeps what it made of weights
            self.cast[id(value)] = value.to(torch.bfloat16)
        return self.cast[id(value)]
