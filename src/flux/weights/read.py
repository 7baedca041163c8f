"""Read safetensors files into a model, one tensor at a time."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from flux.weights.check import CheckpointError, files_of, read_header


class Weights(Mapping[str, Tensor]):
    """The tensors of one or more safetensors files, each read when asked for, onto `device`."""

    def __init__(self, files: list[Path], device: torch.device | str = "cpu"):
        self._headers = {file: read_header(file) for file in files}
        self._file_of = {key: file for file, header in self._headers.items() for key in header}
        self._device = str(device)
        self._open: dict[Path, safe_open] = {}

    def __getitem__(self, key: str) -> Tensor:
        file = self._file_of[key]
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, framework="pt", device=self._device)
            return self._open[file].get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be mapped ({error}): copy it to a local disk") from error

    def __contains__(self, key: object) -> bool:
        return key in self._file_of  # Mapping's own would read the tensor.

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def shapes(self) -> dict[str, Tensor]:
        """The same mapping with tensors on the meta device: shapes without numbers."""
        return {
            key: torch.empty(self._headers[f][key]["shape"], device="meta")
            for key, f in self._file_of.items()
        }


def load_into(
    model: nn.Module,
    path: Path,
    device: torch.device | str,
    dtype: torch.dtype | None,
    *,
    strict: bool = True,
    optional: Callable[[str], bool] = lambda key: False,
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
) -> tuple[list[str], list[str]]:
    """Fill a model, built on the meta device, from a file or a folder of shards; one tensor at a time.

    Each tensor goes from the file to `device` in `dtype` (None: the file's) and into the model, so that there
    is never a second copy of the model. convert: see `flux.weights.convert`; it is run on shapes first, and
    nothing is read if they do not fit. Raises CheckpointError for shapes that differ and, if `strict`, for
    unexpected keys and for missing ones, save those that are `optional`. What is missing stays as it was.
    Returns the keys (missing in the file, unexpected by the model).
    """
    weights = Weights(files_of(path), device)
    convert = convert or (lambda tensors: tensors)
    shapes = {key: tuple(tensor.shape) for key, tensor in convert(weights.shapes()).items()}
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    missing = [key for key in wanted if key not in shapes]
    unexpected = [key for key in shapes if key not in wanted]
    misshapen = [
        f"{key} {shapes[key]} where {wanted[key]} is needed"
        for key in wanted
        if key in shapes and shapes[key] != wanted[key]
    ]
    needed = [key for key in missing if not optional(key)]
    if misshapen or (strict and (needed or unexpected)):
        raise _misfit(path, needed, unexpected, misshapen)

    tensors = convert(weights)
    for key in shapes:
        if key in wanted:
            # A copy even where nothing changes: what was read is a view of the file, which may be rewritten.
            tensor = tensors[key]
            assign(model, key, tensor.to(device, dtype or computable(tensor.dtype), copy=True))
    return missing, unexpected


def computable(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself, or bfloat16 for eight bits, which torch stores and does not compute with."""
    return torch.bfloat16 if dtype.itemsize == 1 else dtype


def assign(model: nn.Module, key: str, tensor: Tensor) -> None:
    """Put a tensor in the place of the parameter or buffer `key`, whatever device or dtype that has."""
    owner, _, name = key.rpartition(".")
    module = model.get_submodule(owner)
    old = getattr(module, name)
    is_parameter = isinstance(old, nn.Parameter)
    setattr(module, name, nn.Parameter(tensor, old.requires_grad) if is_parameter else tensor)


def _misfit(path: Path, missing: list[str], unexpected: list[str], misshapen: list[str]) -> CheckpointError:
    problems = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    told = "; ".join(f"{title}: {shortened(keys)}" for title, keys in problems.items() if keys)
    return CheckpointError(f"{path} does not fit the model, name the file of this model ({told})")


def shortened(keys: list[str], most: int = 10) -> str:
    """A list of keys in words, the first `most` of them."""
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest
