"""Weights in files of `torch.save` (.pt, .pth, .ckpt, .bin): tensors alone, and none of their code is run."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flux.formats.header import CheckpointError, pointer_error, read_start

WRAPPED_IN = ("state_dict", "model_state_dict", "module", "model")
"""Where training programs keep the weights in a file that has more than them."""

NO_MODELS = re.compile(r"optim|sched|rng|random|scaler|loss|callback", re.IGNORECASE)
"""What else they keep there, tensors in it or not."""


def check_pickle(file: Path) -> None:
    """Raise CheckpointError for a file that is cut short or swells when it is unpacked; it is not loaded."""
    size, start = read_start(file, 64)
    if start.startswith(b"version https://git-lfs"):
        raise pointer_error(file)
    if not start.startswith(b"PK"):
        return  # a file of before 2020, which only reading tells whole
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{file} is damaged, its download broke off ({size:,} bytes): delete it and download it again"
        ) from error
    if (
        any(m.compress_type != zipfile.ZIP_STORED for m in members)
        or sum(m.file_size for m in members) > size
    ):
        raise _foreign(file, "its parts are compressed, as torch.save never does")
    if not any(m.filename.endswith("data.pkl") for m in members):
        raise _foreign(file, "it is another archive")


def read_pickle(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, by key, on the CPU; of a training program's, those of its model.

    Raises CheckpointError for a file that holds code, is damaged, or has no tensors.
    """
    check_pickle(file)
    _, start = read_start(file, 2)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=start == b"PK" or None)
    except Exception as error:  # of whatever kind the file's bytes lead to
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise _foreign(file, f"it holds code or objects ({named[1]}), not tensors alone") from error
        raise CheckpointError(
            f"{file} cannot be read as a file of torch.save ({type(error).__name__}), it is damaged or of "
            "another program: download it again, best as .safetensors"
        ) from error
    _refuse_several(found, file)
    tensors = _tensors(found)
    if not tensors:
        raise _foreign(file, "it holds no tensors")
    return tensors


def _tensors(found: Any) -> dict[str, Tensor]:
    if not isinstance(found, dict):
        return {}
    inner = [found[name] for name in WRAPPED_IN if isinstance(found.get(name), dict)]
    if len(inner) == 1 and not any(isinstance(value, Tensor) for value in found.values()):
        return _tensors(inner[0])
    return {key: value.detach() for key, value in found.items() if isinstance(key, str) and _is_plain(value)}


def _refuse_several(found: Any, file: Path) -> None:
    """Raise CheckpointError where several models are in a file, such as one and its moving average."""
    if not isinstance(found, dict) or any(isinstance(value, Tensor) for value in found.values()):
        return
    states = [name for name, value in found.items() if not NO_MODELS.search(str(name)) and _is_state(value)]
    if len(states) > 1:
        names = ", ".join(ascii(name)[:80] for name in states[:5])
        raise CheckpointError(
            f"{file} holds {len(states)} sets of weights, {names}: save the one you mean alone, best as "
            ".safetensors"
        )
    for name in states:
        _refuse_several(found[name], file)


def _is_state(value: Any) -> bool:
    return any(tensor.is_floating_point() for tensor in _tensors(value).values())


def _is_plain(value: Any) -> bool:
    known = type(value) in (Tensor, torch.nn.Parameter)
    return known and value.layout is torch.strided and not value.is_quantized and not value.is_meta


def _foreign(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{file} is not loaded, {reason}; download the .safetensors file")
