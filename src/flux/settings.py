"""Settings as users give them: each check takes a name and a value, and returns the value to use.

All raise ValueError, or OSError for folders, in one line that names the setting and what it got.
"""

import math
import os
from pathlib import Path
from typing import Any


class Untouched:
    """Marks a default, to tell `--width 1360` from no width at all, which leaves it to the model."""


class UntouchedInt(Untouched, int):
    pass


class UntouchedFloat(Untouched, float):
    pass


class UntouchedStr(Untouched, str):
    pass


def check_whole(name: str, value: Any, lowest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ValueError(f"{name} must be a whole number, {lowest} or more; got {value!r}")
    return int(value)


def check_size(name: str, value: Any) -> int:
    size = check_whole(name, value, lowest=16) // 16 * 16
    if size != value:
        print(f"{name} {value} becomes {size}: sizes are multiples of 16")
    return size


def check_steps(name: str, value: Any) -> int:
    return check_whole(name, value, lowest=1)


def check_seed(name: str, value: Any) -> int | None:
    seed = None if value is None else check_whole(name, value, lowest=-(2**63))
    if seed is not None and seed >= 2**64:
        raise ValueError(f"{name} must be below 2**64; got {value!r}")
    return seed


def check_number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return float(value)


def check_switch(name: str, value: Any) -> bool:
    if value not in (True, False):
        raise ValueError(f"{name} is either on or off: --{name}, or --{name} False; got {value!r}")
    return bool(value)


def writable_folder(folder: str) -> str:
    """The folder, made if it is missing; OSError, before hours of work, if nothing can be written there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to: name another output_dir")
    return folder
