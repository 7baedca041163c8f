"""How many bytes do weights take, by precision? Counted from a model's shape; imports no torch."""

from collections.abc import Iterable

from flux.models import ModelSpec
from flux.precision.choice import BITS, Precision

ROW_BYTES = {"int8": 4, "fp8": 4, "nf4": 0}
"""The scale of each row, at most."""


def flow_bytes(model: ModelSpec, precision: Precision | None, itemsize: int) -> float:
    """Bytes of the flow model. itemsize: of a number in full."""
    total = model.flow_parameters * itemsize
    if precision is None or not precision.is_quantised:
        return total
    layers = range(len(model.layers))
    return total - sum(saved_in(model, number, precision, itemsize) for number in layers)


def saved_in(model: ModelSpec, layer: int, precision: Precision | None, itemsize: int) -> float:
    """Bytes that a layer of the flow model takes less than in full."""
    if precision is None or not precision.is_quantised or layer in precision.keep:
        return 0.0
    return saved([rows_and_columns(model, layer)], precision, itemsize)


def t5_bytes(model: ModelSpec, precision: Precision | None, itemsize: int) -> float:
    """Bytes of T5. Its scales are left out."""
    total = model.t5_parameters * itemsize
    if precision is None or not precision.is_quantised:
        return total
    return total - model.t5_linear_parameters * (itemsize - BITS[precision.others] / 8)


def saved(layers: Iterable[list[tuple[int, int]]], precision: Precision, itemsize: int) -> float:
    """Bytes that quantised layers take less than in full. layers: the shapes of their weights."""
    bits, scale = BITS[precision.others], ROW_BYTES[precision.others]
    shapes = (shape for layer in layers for shape in layer)
    return sum(rows * (columns * (itemsize - bits / 8) - scale) for rows, columns in shapes)


def rows_and_columns(model: ModelSpec, layer: int) -> list[tuple[int, int]]:
    """The shapes of the weights of a layer that are quantised: all but modulation."""
    width, mlp = model.params.hidden_size, int(model.params.hidden_size * model.params.mlp_ratio)
    if layer < model.params.depth:
        return 2 * [(3 * width, width), (width, width), (mlp, width), (width, mlp)]
    return [(3 * width + mlp, width), (width, width + mlp)]
