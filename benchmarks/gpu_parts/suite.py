"""The tests that need a GPU: `pytest -m gpu`, counted."""

import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpu_common.machine import ROOT
from gpu_common.record import Record, Skip
from gpu_common.scale import Setup

NO_TESTS = 5  # pytest's exit code where none was chosen


def run(setup: Setup, record: Record) -> None:
    if not (ROOT / "tests").is_dir():
        raise Skip("there is no folder tests/ here")
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, check=False)
        if not report.is_file():
            raise RuntimeError(f"pytest ended with {done.returncode} and left no report")
        record.put(**counts(report.read_text(encoding="utf-8")), exit_code=done.returncode)
    if done.returncode not in (0, NO_TESTS) or record.figures["failed"]:
        raise RuntimeError(f"{record.figures['failed']} tests failed, pytest ended with {done.returncode}")


def counts(report: str) -> dict[str, Any]:
    """How many tests passed, failed and were skipped, and the names of those that failed."""
    cases = list(xml.fromstring(report).iter("testcase"))
    failed = [each for each in cases if each.find("failure") is not None or each.find("error") is not None]
    skipped = [each for each in cases if each.find("skipped") is not None]
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": len(failed),
        "skipped": len(skipped),
        "failures": [f"{each.get('classname')}.{each.get('name')}" for each in failed],
    }


def table(figures: dict[str, Any]) -> list[str]:
    numbers = [f"{figures[name]} {name}" for name in ("passed", "failed", "skipped") if name in figures]
    return ["- " + (", ".join(numbers) or "no count"), *(f"- {name}" for name in figures.get("failures", []))]
