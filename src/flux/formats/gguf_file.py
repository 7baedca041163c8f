"""The tensors of a GGUF file, by the `gguf` package: their names, shapes, and what they are packed as.

Whatever is wrong is a `CheckpointError`: one line that names the file and the remedy.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from flux.extras import need
from flux.formats.gguf_blocks import BLOCKS, unpack
from flux.formats.header import CheckpointError, read_start

MARK = b"GGUF"

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
"""Numbers that are not packed."""

ARCHITECTURES = ("flux", "t5", "t5encoder")
"""What files of the parts that are read say of themselves; others are of other models."""


LONGEST = 10_000_000
"""Items of an array in the header, at most: words of a tokenizer are some hundred thousand."""


def is_gguf(file: Path) -> bool:
    """Whether a file begins as GGUF does. Raises CheckpointError as `read_start`."""
    return read_start(file, len(MARK))[1] == MARK


@dataclass(frozen=True)
class PackedTensor:
    """A tensor as it stands in the file. kind: of ggml, such as Q4_K. data: as the package maps it."""

    shape: tuple[int, ...]
    kind: str
    data: Any

    @property
    def is_packed(self) -> bool:
        return self.kind in BLOCKS

    def meta(self) -> Tensor:
        """Its shape; of packed numbers the dtype is the one they are unpacked to where nobody says."""
        return torch.empty(self.shape, dtype=PLAIN.get(self.kind, torch.bfloat16), device="meta")

    def packed(self) -> Tensor:
        """The bytes, uint8 (rows, bytes of a row): a copy, since the file may be rewritten."""
        return torch.from_numpy(self.data.copy()).view(self.shape[0], -1)

    def numbers(self) -> Tensor:
        """Unpacked to float32, or as the file has them."""
        if self.is_packed:
            return unpack(
                torch.from_numpy(self.data.copy()).view(-1, self.data.shape[-1]), self.kind, torch.float32
            ).view(self.shape)
        return torch.from_numpy(self.data.copy()).view(PLAIN[self.kind]).view(self.shape)


def _read(gguf: ModuleType, file: Path) -> Any:
    """The package's reader; ValueError for an array of absurd length, whose items it would count for ever."""

    class BoundedReader(gguf.GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == gguf.GGUFValueType.ARRAY:
                length = int(self._get(orig_offs + 4, "uint64")[0])
                if length > min(LONGEST, len(self.data)):
                    raise ValueError(f"an array of {length} items")
            return super()._get_field_parts(orig_offs, raw_type)

    return BoundedReader(file)


def read_gguf(file: Path) -> dict[str, PackedTensor]:
    """The tensors of a file by name; none is read. CheckpointError; ImportError without the package."""
    gguf = need("gguf", "quant", "a GGUF file")
    try:
        reader = _read(gguf, file)
        found = {
            each.name: PackedTensor(
                tuple(int(side) for side in reversed(each.shape)), each.tensor_type.name, each.data
            )
            for each in reader.tensors
        }
        field = reader.fields.get("general.architecture")
        architecture = str(field.contents()) if field is not None else None
    except Exception as error:  # of whatever kind the package and NumPy make of damage
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise CheckpointError(
            f"{file} is a GGUF file that is damaged or cut short ({reason}): delete it and download it again"
        ) from error
    if architecture is not None and architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{file} is a GGUF file of another model, {architecture[:40]!r}: name one of FLUX.1 or of T5"
        )
    for name, tensor in found.items():
        if not tensor.is_packed and tensor.kind not in PLAIN:
            raise CheckpointError(
                f"{file} holds numbers of type {tensor.kind} ({name[:80]}), which are not read: take one of "
                f"{', '.join(BLOCKS)}"
            )
    if not found:
        raise CheckpointError(f"{file} is a GGUF file without tensors: download it again")
    return found
