"""What docs/small-cards.md and the README call predicted is what the package predicts."""

import re
from functools import cache
from pathlib import Path

import torch

from flux.models import configs
from flux.placement.peaks import Demand, predict_peaks

ROOT = Path(__file__).parents[2]
PAGE, README = (ROOT / "docs" / "small-cards.md").read_text(), (ROOT / "README.md").read_text()
DEV = configs["flux-dev"]


@cache
def peaks(rows, steps=DEV.num_steps):
    """Gigabytes, as they are printed, of each way for FLUX.1-dev at 1024 x 1024."""
    found = predict_peaks(DEV, torch.bfloat16, Demand(rows, 1024, 1024, steps))
    return {each.way: f"{each.most / 1e9:.1f}" for each in found}


def test_the_table_of_four_rows():
    rows = re.findall(r"^\| `(none|encoders|modulation|stream)`[^|]*\|[^|]*\| ([0-9.]+) GB \|", PAGE, re.M)
    assert len(rows) == 4 and all(peaks(4)[way] == size for way, size in rows), rows
    staying = re.search(r"\| `stream:N` [^|]*\|[^|]*\| ([0-9.]+) GB with ([0-9]+) \|", PAGE)
    assert peaks(4)[f"stream:{staying[2]}"] == staying[1]


def test_sentences():
    assert re.search(r"five rows are predicted to take ([0-9.]+) GB", PAGE)[1] == peaks(5)["modulation"]
    said = re.search(r"modulation` is predicted to take ([0-9.]+) GB and\s`stream` ([0-9.]+)", README)
    assert said.groups() == (peaks(4)["modulation"], peaks(4)["stream"])


def test_what_a_dry_run_ends_in():
    rows = re.findall(r"offload (\S+) +([0-9.]+) GB, in", PAGE)
    assert len(rows) == 5 and all(peaks(2, 15)[way] == size for way, size in rows), rows
