"""The machine that a run is made on: its device, its memory, its packages."""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


def device_name(device: torch.device) -> str:
    """`cpu (2 threads)`, or a GPU's name as its maker calls it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a GPU, or that this process took; 0 where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


MACHINE = ("device_name", "memory_bytes", "python", "versions")
"""What `machine` says in a run's record."""


def machine(device: torch.device) -> dict[str, Any]:
    """What a run was made with, for its record."""
    packages = ("torch", "transformers", "safetensors", "pillow", "numpy")
    return {
        "device_name": device_name(device),
        "memory_bytes": peak_memory(device),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def size_in_words(size: float) -> str:
    """A size in bytes with two digits."""
    if size < 1e9:
        return f"{size / 1e6:.2g} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
