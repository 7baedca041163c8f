"""Where and in which precision to compute: `auto` and names into torch's devices and dtypes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

FULL = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "HIP error: out of memory")
"""What full memory is called where torch does not know of it."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class OutOfMemory(torch.cuda.OutOfMemoryError):
    """The GPU's memory is full; the message is one line that says what to lower."""


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device to use: `auto` is CUDA where there is a GPU, else the CPU.

    Raises ValueError, in one line, for a name torch does not know and for a GPU this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device {device!r} is unknown: give auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        _require_gpu(device)
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("device 'mps' is not available here: give auto or cpu")
    else:
        _try(device)
    return device


def _try(device: torch.device) -> None:
    """Of the many names that torch knows, few can compute in a build of it and on a machine."""
    try:
        torch.zeros(1, device=device).item()
    except (AssertionError, ImportError, RuntimeError):
        raise ValueError(f"device {str(device)!r} cannot compute here: give auto or cpu") from None


def _require_gpu(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise ValueError(
            f"device {str(device)!r} is not available: torch {torch.__version__} sees no CUDA GPU; "
            "give auto or cpu"
        )
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ValueError(
            f"device {str(device)!r} does not exist: this machine has cuda:0 to cuda:{count - 1}"
        )


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision of the weights: `auto` is bfloat16 on CUDA and float32 elsewhere.

    Raises ValueError, in one line, for anything but float32, bfloat16 and float16.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    picked = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if picked not in DTYPES.values():
        raise ValueError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return picked


def is_gpu_full(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory is full, by whomever."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


@contextmanager
def out_of_memory_hint() -> Iterator[None]:
    """Turn the GPU's running out of memory into one line that says what to lower (`OutOfMemory`).

    The driver and cuBLAS, which ask for memory past torch, say so in errors of their own.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except RuntimeError as error:
        if not is_gpu_full(error):
            raise
        raise OutOfMemory(
            "the GPU is out of memory: use a smaller picture, a smaller batch, dtype bfloat16, or offload"
        ) from error
