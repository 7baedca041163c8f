"""A few kills, a pair and a few faults, by the script that does many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flux
from flux import util

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "endurance.py"
TRAINED = (util.TINY_WEIGHTS / "flux1-tiny.safetensors").is_file()
SITE = str(flux.PACKAGE_ROOT.resolve().parent)

pytestmark = [
    pytest.mark.skipif(not TRAINED, reason="flux-tiny has no weights yet"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks"),
]


def test_nothing_is_lost():
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    argv = ["all", "--count", "2", "--demos", "edit"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SITE}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *argv], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ends = [line for line in done.stdout.splitlines() if line.endswith(": 0 problems")]
    assert [line[:7] for line in ends] == ["2 kills", "2 pairs", "2 fault"]
