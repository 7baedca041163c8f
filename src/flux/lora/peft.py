"""By how much PEFT multiplies an update, where a file says it in words and not in tensors. No torch."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flux.files import read_json_object
from flux.flags import cut
from flux.formats.header import CheckpointError

END = re.compile(r"[\w.-]+")

METADATA, CONFIG = "lora_adapter_metadata", "adapter_config.json"
"""Where diffusers writes it, in a file's header, and PEFT, beside its `adapter_model.safetensors`."""


@dataclass(frozen=True)
class PeftConfig:
    """What PEFT was told when the LoRA was made; empty where a file does not say.

    settings: by the part's name as diffusers has it, "transformer"; "" for a file of one part. The keys of
    their `alpha_pattern` are ends of layers' names.
    """

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def factor(self, name: str, rank: int) -> float:
        """What the product of a layer's two factors is multiplied by: alpha / rank, 1 if nothing is said."""
        part = next((self.settings[p] for p in (name.partition(".")[0], "") if p in self.settings), {})
        alpha = part.get("lora_alpha")
        for end, own in part.get("alpha_pattern", {}).items():
            if name == end or name.endswith(f".{end}"):
                alpha = own
                break
        if not isinstance(alpha, int | float):
            return 1.0
        return alpha / (math.sqrt(rank) if part.get("use_rslora") else rank)

    @property
    def with_dora(self) -> bool:
        return any(part.get("use_dora") for part in self.settings.values())


def peft_config(file: Path, metadata: Mapping[str, str]) -> PeftConfig:
    """What a file's header says, or the config beside it.

    Raises CheckpointError for what cannot be read, and for patterns that are more than the end of a name.
    """
    if METADATA in metadata:
        try:
            flat = json.loads(metadata[METADATA])
        except (ValueError, RecursionError):
            flat = None
        if not isinstance(flat, dict):
            raise CheckpointError(f"{file} has a {METADATA} in its header that is none: download it again")
        settings: dict[str, dict[str, Any]] = {}
        for key, value in flat.items():
            part, _, name = key.partition(".")
            settings.setdefault(part if name else "", {})[name or part] = value
        return PeftConfig({part: _with_ends(file, each) for part, each in settings.items()})
    beside = read_json_object(file.parent / CONFIG) if file.name.startswith("adapter_model") else None
    return PeftConfig({"": _with_ends(file, beside)} if beside else {})


def _with_ends(file: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings with patterns as ends of names: a stranger's regular expressions are not run."""
    patterns = settings.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{file} has an alpha_pattern that is none: download it again")
    ends = {pattern.removeprefix("^").removesuffix("$").replace("\\.", "."): pattern for pattern in patterns}
    if strange := next((ends[end] for end in ends if not END.fullmatch(end)), None):
        raise CheckpointError(
            f"{file} has alphas by the pattern {cut(strange)!r}, of which only ends of layers' names are "
            "read: take a file that has an alpha for each layer"
        )
    return {**settings, "alpha_pattern": {end: patterns[pattern] for end, pattern in ends.items()}}
