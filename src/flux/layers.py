"""The names of a model's layers, and the sets that are known to be vital. Imports no torch.

Layers are numbered as in Stable Flow (arXiv 2411.14430): double blocks first, then single blocks, 0-56 for
FLUX.1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType

LayerName = int | str
"""0-56, or `double.i` / `single.i`."""

VITAL_LAYERS: Mapping[str, Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "flux-dev": MappingProxyType(
            {
                # Stable Flow, section 3; its released code leaves out layer 2, which frees the edit a little.
                "paper": (0, 1, 2, 17, 18, 25, 28, 53, 54, 56),
                "released": (0, 1, 17, 18, 25, 28, 53, 54, 56),
                # Found again by an independent implementation on this package, similarity below 0.95.
                "reimplementation": (0, 1, 2, 17, 18, 53, 56),
                "default": (0, 1, 17, 18, 25, 28, 53, 54, 56),
            }
        ),
        # default: found by trying sets on pairs with a known answer. vital: by the sweep of demos 2 and 3.
        # The model card has the figures of both.
        "flux-tiny": MappingProxyType({"default": (1, 11), "vital": (0, 3)}),
    }
)
"""Layer sets by model and name; `default` is what an edit takes when its spec names no layers."""


@dataclass(frozen=True)
class Layers:
    """The layers a model has: `depth` double blocks, then `depth_single` single blocks."""

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
            count = {"double": self.depth, "single": self.depth_single}.get(kind, 0)
            if number.isdecimal() and int(number) < count:
                return int(number) + (self.depth if kind == "single" else 0)
            if name.isdecimal() and int(name) < len(self):
                return int(name)
        raise ValueError(f"layer {name!r} does not exist: the model has {self.range()}")

    def expand(self, name: LayerName) -> tuple[int, ...]:
        """The numbers `all`, `double.*`, `single.*` or one layer's name stands for; ValueError as `index`."""
        groups = {
            "all": range(len(self)),
            "double.*": range(self.depth),
            "single.*": range(self.depth, len(self)),
        }
        return tuple(groups[name]) if isinstance(name, str) and name in groups else (self.index(name),)

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
