"""Runs parts one after the other, each in a process of its own, within a budget of time.

What one part does to its GPU, a cap or a crash, does not reach the next; one that takes too long is stopped,
and what it has measured until then stays.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .machine import missing
from .record import CUT_OFF, DONE, FAILED, RUNNING, SKIPPED, Record, Skip, one_line
from .scale import Setup

COMMAND = Path(__file__).resolve().parents[1] / "gpu.py"
PATIENCE, SHORTEST = 2, 60
"""At full scale a part is stopped when it takes this many times the seconds that it should, and these at
least, since the first to import a package from a cold disk waits for it."""


@dataclass(frozen=True)
class Part:
    """A part of the run. module: has `run` and `table`, see `gpu_parts`.

    seconds: what it takes on an H100; it is not begun when less is left. needs: packages.
    needs_gpu: why a CPU cannot run it. long_on_cpu: why a CPU does not, unless asked for it by name.
    """

    name: str
    what: str
    module: str
    seconds: float
    needs: tuple[str, ...] = ()
    needs_gpu: str | None = None
    long_on_cpu: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def run_parts(
    parts: Sequence[Part], folder: Path, about: dict[str, Any], *, minutes: float, named: bool = False
) -> list[Record]:
    """Run the parts, a record each in the folder. about: what all records say: machine, scale, device, dtype.

    named: the user has asked for these parts by name.
    """
    deadline = time.monotonic() + 60 * minutes
    records = []
    for part in parts:
        left = deadline - time.monotonic()
        reason = reason_to_skip(part, about, left, minutes, named)
        record = Record.begin(folder / f"{part.name}.json", _known(part, about))
        if reason is None:
            print(f"{part.name}: {part.what}", flush=True)
            record = run_part(part, record, _limit(part, about, left))
        else:
            record.end(SKIPPED, reason)
        if record.status != DONE:
            print(f"{part.name}: {record.status}, {record.data['reason']}", flush=True)
        records.append(record)
    return records


def _known(part: Part, about: dict[str, Any]) -> dict[str, Any]:
    known = {"part": part.name, "what": part.what, "module": part.module, "options": part.options}
    return {**known, **about, "begun": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())}


def reason_to_skip(part: Part, about: dict[str, Any], left: float, minutes: float, named: bool) -> str | None:
    """Why a part is not begun, in words; None if it is."""
    absent = missing(part.needs)
    if absent:
        return f"{' and '.join(absent)} not installed"
    if about["device"] == "cpu":
        if part.needs_gpu:
            return part.needs_gpu
        if part.long_on_cpu and not named:
            return part.long_on_cpu
    needed = part.seconds if about["scale"] == "full" else 0
    if left <= needed:
        said = f"{max(0, left):.0f} s of {minutes:g} minutes are left"
        return f"it takes about {part.seconds:.0f} s, and {said}"
    return None


def _limit(part: Part, about: dict[str, Any], left: float) -> float:
    return min(left, max(SHORTEST, PATIENCE * part.seconds)) if about["scale"] == "full" else left


def run_part(part: Part, record: Record, limit: float) -> Record:
    """Run a part in a process of its own, for `limit` seconds at most; returns its record."""
    start = time.monotonic()
    reason = None
    # Temporary files, those of compilers too, go with the part, however it ends.
    with TemporaryDirectory(prefix="flux-", ignore_cleanup_errors=True) as scratch:
        environment = {**os.environ, "TMPDIR": scratch, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(COMMAND), "--child", part.module, str(record.path)]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            reason = f"stopped after {limit:.0f} s"
        finally:
            _end(process)
    record = Record.read(record.path)
    record.data["seconds"] = time.monotonic() - start
    if record.status != RUNNING:
        record.write()
    elif reason:
        record.end(CUT_OFF, reason)
    else:
        record.end(FAILED, f"its process ended with {code}")
    return record


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_child(module: str, path: Path) -> int:
    """What the process of a part does; returns its exit code."""
    record = Record.read(path)
    try:
        setup = Setup.of(record.data)
        if setup.device.type == "cuda":
            torch.cuda.init()  # before it, peaks can be neither read nor reset
        importlib.import_module(module).run(setup, record)
    except Skip as skip:
        record.end(SKIPPED, str(skip))
    except Exception as error:
        traceback.print_exc()
        record.end(FAILED, one_line(error))
        return 1
    else:
        record.end(DONE)
    return 0
