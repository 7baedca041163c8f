"""Which tensors of a file belong together: an update is two factors, and may have an alpha and a bias."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_ADAPTER = r"(?:\.(?!weight)[^.]+)?"  # PEFT's own files have the adapter's name here: `lora_A.default.weight`
ENDINGS = {
    "down": rf"(?:lora_A|lora_down|lora\.down|lora_linear_layer\.down){_ADAPTER}\.weight|down\.weight",
    "up": rf"(?:lora_B|lora_up|lora\.up|lora_linear_layer\.up){_ADAPTER}\.weight|up\.weight",
    "bias": rf"lora_B{_ADAPTER}\.bias|diff_b",
    "alpha": r"alpha",
}
HALF = re.compile(
    r"(?P<name>.+)\.(?:" + "|".join(f"(?P<{half}>{ending})" for half, ending in ENDINGS.items()) + ")",
    re.DOTALL,
)


@dataclass(frozen=True)
class Halves:
    """The keys of what a file has for the layer that it calls `name`; None for what is not there."""

    name: str
    down: str | None = None
    up: str | None = None
    alpha: str | None = None
    bias: str | None = None

    @property
    def factors(self) -> list[str]:
        return [key for key in (self.down, self.up) if key is not None]

    @property
    def keys(self) -> list[str]:
        return self.factors + [key for key in (self.alpha, self.bias) if key is not None]


def halves(keys: Iterable[str]) -> tuple[dict[str, Halves], list[str]]:
    """The keys of a file that are parts of updates, by the layer's name in the file, and the others."""
    found: dict[str, Halves] = {}
    others: list[str] = []
    for key in keys:
        match = HALF.fullmatch(key)
        if match is None:
            others.append(key)
            continue
        kind = next(half for half in ENDINGS if match[half])
        name = match["name"]
        found[name] = replace(found.get(name, Halves(name)), **{kind: key})
    return found, others
