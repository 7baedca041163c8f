"""By how much PEFT multiplies an update, where a file says it in words and not in tensors. No torch."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flux.files import read_json_object

METADATA, CONFIG = "lora_adapter_metadata", "adapter_config.json"
"""Where diffusers writes it, in a file's header, and PEFT, beside its `adapter_model.safetensors`."""


@dataclass(frozen=True)
class PeftConfig:
    """What PEFT was told when the LoRA was made; empty where a file does not say.

    settings: by the part's name as diffusers has it, "transformer"; "" for a file of one part.
    """

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def factor(self, name: str, rank: int) -> float:
        """What the product of a layer's two factors is multiplied by: alpha / rank, 1 if nothing is said."""
        part = next((self.settings[p] for p in (name.partition(".")[0], "") if p in self.settings), {})
        alpha = part.get("lora_alpha")
        for pattern, own in (part.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", name):
                alpha = own
                break
        if not isinstance(alpha, int | float):
            return 1.0
        return alpha / (math.sqrt(rank) if part.get("use_rslora") else rank)

    @property
    def with_dora(self) -> bool:
        return any(part.get("use_dora") for part in self.settings.values())


def peft_config(file: Path, metadata: Mapping[str, str]) -> PeftConfig:
    """What a file's header says, or the config beside it. Whatever cannot be read says nothing."""
    if METADATA in metadata:
        try:
            flat = json.loads(metadata[METADATA])
        except ValueError:
            return PeftConfig()
        settings: dict[str, dict[str, Any]] = {}
        for key, value in flat.items() if isinstance(flat, dict) else ():
            part, _, name = key.partition(".")
            settings.setdefault(part if name else "", {})[name or part] = value
        return PeftConfig(settings)
    beside = read_json_object(file.parent / CONFIG) if file.name.startswith("adapter_model") else None
    return PeftConfig({"": beside} if beside else {})
