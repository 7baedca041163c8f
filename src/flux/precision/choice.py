"""Which precisions are there, and which layers does a choice of one leave in full? Imports no torch.

load_models("flux-dev", precision="int8")
load_models("flux-dev", precision={"others": "int8", "keep": "vital_layers.json", "count": 8})
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.models import LayerName, ModelSpec
from flux.precision.evidence import read_evidence

FULL = ("float32", "bfloat16", "float16")
"""Weights as they are computed with; upstream's and ours until now."""

BITS = {"int8": 8.0, "fp8": 8.0, "nf4": 4.125}
"""Quantised ones, and the bits of a number: nf4 has eight bits more for every 64."""

PRECISIONS = (*FULL, *BITS)

KEYS = ("others", "keep", "count")


@dataclass(frozen=True)
class Precision:
    """What the weights are kept in.

    others: one of `PRECISIONS`, of the linear layers of the blocks of the flow model and of T5; full ones are
    of all weights. keep: numbers of the layers of the flow model that stay in full all the same.
    """

    others: str
    keep: tuple[int, ...] = ()

    @property
    def is_quantised(self) -> bool:
        return self.others in BITS

    def record(self) -> dict[str, Any]:
        """For the records of runs: what decides pictures, whichever file it came from."""
        return {"precision": {"others": self.others, "keep": list(self.keep)} if self.keep else self.others}

    def __str__(self) -> str:
        if not self.keep:
            return self.others
        return f"{self.others}, layers {', '.join(map(str, self.keep))} in full"


Choice = str | Mapping[str, Any] | Precision
"""A name, the three keys of a spec, or what was made of them."""


def as_precision(given: Choice | None, model: ModelSpec, name: str) -> Precision | None:
    """What a choice comes to for a model. None, also for "auto": as the files have it, in the dtype.

    keep: a file of demo 3's, or layers by number or name. Raises ValueError, one line, that begins with the
    key it is about.
    """
    if given is None or isinstance(given, Precision) or given == "auto":
        return None if given == "auto" else given
    if isinstance(given, str):
        return Precision(_known(given))
    if not isinstance(given, Mapping) or set(given) - {*KEYS} or "others" not in given:
        raise ValueError(f"precision must be a name or an object with the keys {', '.join(KEYS)}")
    others, keep, count = _known(given["others"]), given.get("keep"), given.get("count")
    if keep is None and count is not None:
        raise ValueError("count needs keep, the file that ranks the layers")
    if keep is None:
        return Precision(others)
    if others in FULL:
        raise ValueError(f"keep: {others} is full for all layers: choose int8, fp8 or nf4")
    return Precision(others, kept(keep, count, model, name))


def dtype_of(precision: Precision | None, dtype: Any) -> Any:
    """The dtype that a model computes in: a full precision, else what is asked for.

    Raises ValueError where both are said and they differ.
    """
    if precision is None or precision.is_quantised:
        return dtype
    if dtype != "auto" and str(dtype).removeprefix("torch.") != precision.others:
        raise ValueError(f"precision is {precision.others} and dtype {dtype}: leave one of them out")
    return precision.others


def _known(others: Any) -> str:
    if others not in PRECISIONS:
        raise ValueError(f"precision {others!r} is not one of {', '.join(PRECISIONS)}")
    return others


def kept(
    keep: str | Path | Iterable[LayerName], count: int | None, model: ModelSpec, name: str
) -> tuple[int, ...]:
    """The layers that stay in full, ascending: the first `count` of a file's order, or of a list.

    count: None for all of a vital set, or of a list. Raises ValueError, in words that name the key.
    """
    layers = model.layers
    if isinstance(keep, str | Path):
        evidence = read_evidence(Path(keep), name, layers)
        order, usual = evidence.order, evidence.count
    else:
        order = tuple(dict.fromkeys(number for each in keep for number in layers.expand(each)))
        usual = len(order)
    if count is None and usual is None:
        raise ValueError(f"count is missing: how many of the {len(order)} layers in {keep} stay in full?")
    count = usual if count is None else count
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number above 0; got {count!r}")
    if count > len(order):
        raise ValueError(f"count is {count}, and {keep} ranks {len(order)} layers")
    return tuple(sorted(order[:count]))
