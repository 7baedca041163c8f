"""What figures are from: the card, its driver, and versions. And which packages are missing."""

import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flux", "diffusers", "transformers", "safetensors", "triton", "ray")


def machine(device: torch.device) -> dict[str, Any]:
    """The machine, for the record of a part."""
    on_gpu = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if on_gpu else None
    return {
        "card": properties.name if properties else device.type,
        "memory_gb": properties.total_memory / 1e9 if properties else None,
        "driver": driver() if on_gpu else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
    }


def driver() -> str | None:
    """The version of NVIDIA's driver, None where it cannot be asked for."""
    return _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of the packages that are not installed."""
    return [name for name in packages if find_spec(name) is None]


def _said(command: list[str]) -> str | None:
    """The first line that a command prints, None if it fails."""
    with suppress(OSError, subprocess.SubprocessError, IndexError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.split("\n")[0].strip() or None
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
