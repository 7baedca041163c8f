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


@pytest.mark.parametrize(
    "argv, says",
    [
        (["kills", "--count", "2", "--demos", "edit"], "2 kills ("),
        (["pairs", "--count", "2", "--demos", "edit"], "2 pairs ("),
        (["faults", "--count", "3", "--demos", "skip"], "3 faults ("),
    ],
    ids=["kills", "pairs", "faults"],
)
def test_nothing_is_lost(argv, says):
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SITE}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *argv], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(says) and ": 0 problems" in done.stdout
