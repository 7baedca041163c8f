"""The tensors of weight files, safetensors, of `torch.save` or GGUF, each read when it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flux.formats.gguf_file import PackedTensor, is_gguf, read_gguf
from flux.formats.header import CheckpointError, is_pickle, read_header
from flux.formats.pickled import check_pickle, read_pickle

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BOOL": torch.bool,
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    "U8": torch.uint8,
}
"""What torch calls the types that are read; of the others, shapes alone are looked at."""


def check_file(file: Path, *, gguf: bool = False) -> None:
    """Raise CheckpointError for a file that is missing, damaged or of another format; no tensor is read.

    gguf: whether it may be a GGUF file.
    """
    if is_pickle(file):
        check_pickle(file)
    elif gguf and is_gguf(file):
        read_gguf(file)
    else:
        read_header(file)


class Weights(Mapping[str, Tensor]):
    """The tensors of one or more files, each read when asked for, onto `device`.

    Raises CheckpointError as `read_header` and `read_pickle` do.
    """

    def __init__(self, files: Sequence[Path], device: torch.device | str = "cpu"):
        self._device = str(device)
        self._open: dict[Path, safe_open | dict[str, Tensor]] = {}
        self._packed: dict[str, PackedTensor] = {}
        self._shapes: dict[str, Tensor] = {}
        self._file_of: dict[str, Path] = {}
        for file in files:
            shapes = self._shapes_in(file)
            self._shapes |= shapes
            self._file_of |= dict.fromkeys(shapes, file)

    def _shapes_in(self, file: Path) -> dict[str, Tensor]:
        if is_gguf(file):
            self._packed |= (found := read_gguf(file))
            return {key: tensor.meta() for key, tensor in found.items()}
        if not is_pickle(file):
            return shapes_of(read_header(file))
        tensors = self._open[file] = read_pickle(file)
        return {key: torch.empty(x.shape, dtype=x.dtype, device="meta") for key, x in tensors.items()}

    def __getitem__(self, key: str) -> Tensor:
        file = self._file_of[key]
        if key in self._packed:
            return self._packed[key].numbers().to(self._device)
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, framework="pt", device=self._device)
            opened = self._open[file]
            return opened[key].to(self._device) if isinstance(opened, dict) else opened.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be mapped ({error}): copy it to a local disk") from error

    def packed(self, key: str) -> PackedTensor | None:
        """What a key stands for, where its numbers are packed."""
        found = self._packed.get(key)
        return found if found is not None and found.is_packed else None

    def __contains__(self, key: object) -> bool:
        return key in self._file_of  # Mapping's own would read the tensor.

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def shapes(self) -> dict[str, Tensor]:
        """The same mapping with tensors on the meta device: shapes and dtypes without numbers."""
        return dict(self._shapes)


def shapes_of(header: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """What a header lists as tensors on the meta device: shapes and dtypes without numbers."""
    return {
        key: torch.empty(entry["shape"], dtype=DTYPES.get(entry["dtype"], torch.uint8), device="meta")
        for key, entry in header.items()
    }
