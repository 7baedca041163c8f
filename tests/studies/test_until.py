"""Sweeps that stop when it is decided: rounds, what is spared, resume, what readers see."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from test_demos import assert_page, files, load_demo
from test_sweep import DEMO, cells, rows, run_blocked, run_demo

from flux import util
from flux.studies.sweep import until
from flux.studies.sweep.cells import Cell, order_of, plan
from flux.studies.sweep.folder import CellTable, read_sweep

pytest.importorskip("scipy")
TRAINED = (util.TINY_WEIGHTS / "flux1-tiny.safetensors").is_file()
pytestmark = pytest.mark.skipif(not TRAINED, reason="flux-tiny has no weights yet")

PROMPTS = [
    *("a big red house on the grass", "a small white cat in the snow at night", "a blue boat on the water"),
    *("a green tree under a sunset sky", "a yellow car on the grass", "a red flower in the snow"),
]
SIZE = ["--steps", "2", "--width", "64", "--height", "64", "--batch", "2", "--noise_floor", "2"]
ARGV = [*SIZE, "--prompts", *PROMPTS, "--layers", "[0, 6, [1, 2]]"]
UNTIL = ["--until", json.dumps({"threshold": 0.5, "confidence": 0.6, "rounds": [2, 4]})]


def main(*argv: str) -> int:
    return load_demo(DEMO).main([*ARGV, *argv])


@pytest.fixture
def measured(monkeypatch):
    """`measured[label] = [...]` sets a layer's similarities, by the order in which prompts are taken."""
    similarities: dict[str, list[float]] = {}
    sound = until.Until._similarities

    def similar(self, groups, prompts, done):
        found = sound(self, groups, prompts, done)
        order = order_of(self.asked)
        there = {group: [p for p in prompts if Cell(p, group) in done] for group in found}
        return {group: [similarities[group.label][order.index(p)] for p in there[group]] for group in found}

    monkeypatch.setattr(until.Until, "_similarities", similar)
    return similarities


def test_decided_layers_cost_no_more(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    measured |= {"0": [0.1, 0.11] * 3, "6": [0.2, 0.8] * 3, "1+2": [0.0, 0.5, 0.01, 0.02, 0.0, 0.0]}
    assert main(*UNTIL, "--output", "sweep") == 0
    folder = tmp_path / "sweep"
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] and record["cells"] == {"all": 14 + 6, "made": 20, "failed": 0}
    said = {each["layers"]: each for each in record["until"]["decisions"]}
    assert {name: (each["verdict"], each["decided"], each["prompts"]) for name, each in said.items()} == {
        "0": ("below", True, 2),
        "1+2": ("below", True, 4),
        "6": ("above", False, 6),
    }
    assert said["0"]["n"] == 2 and said["0"]["high"] < 0.5 and record["until"]["rounds"] == [2, 4, 6]
    assert record["until"]["saved"] == pytest.approx(1 - 20 / 26)
    # The page and the reader know what was spared; nothing is called missing.
    assert_page(folder)
    page = (folder / "index.html").read_text()
    assert "below, decided after 2 prompts" in page and "above by the mean of all, undecided" in page
    out = capsys.readouterr().out
    assert "after 4 prompts 2 of 3 groups are decided" in out
    assert "2 of 3 groups of layers are decided at similarity 0.5, which spared 6 of 26 cells" in out
    sweep = read_sweep(folder)
    assert sweep.problems == () and len(sweep.cells) == 6 + 2 + 4 + 6
    assert {cell.prompt for cell in sweep.cells if cell.part.layers == (0,)} == set(
        order_of(planned(folder))[:2]
    )
    # Of those that were needed, a missing one is.
    last = Cell(order_of(planned(folder))[-1], (6,))
    (folder / last.file).unlink()
    whole = [row for row in CellTable(folder).rows() if row.cell != last]
    (folder / "cells.csv").unlink()
    CellTable(folder).append(whole)
    assert read_sweep(folder).problems == (f"1 of 26 cells are not made yet: the first is {last.file}",)
    assert main(*UNTIL, "--output", "sweep") == 0
    assert read_sweep(folder).problems == ()
    assert main(*UNTIL, "--output", "sweep") == 0
    assert "made already" in capsys.readouterr().out


def planned(folder: Path):
    record = json.loads((folder / "run.json").read_text())
    return plan(record["spec"], record["setting"])


def test_all_decided_ends_the_sweep(measured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured |= {name: [0.1, 0.11] * 3 for name in ("0", "6", "1+2")}
    assert main(*UNTIL, "--output", "sweep") == 0
    assert len(cells(tmp_path / "sweep")) == 2 * 4 + 2
    assert read_sweep(tmp_path / "sweep").problems == ()


def test_prompts_are_taken_in_an_order_of_their_own():
    recipe = {
        "model": {"name": "flux-tiny"},
        "prompts": [{"prompt": str(i), "seed": i} for i in range(64)],
        **{"layers": [[0]], "batch": 8, "noise_floor": 8},
        **{"steps": 2, "guidance": 1.0, "width": 32, "height": 32},
    }
    order = order_of(plan({**recipe, "until": {}}, {}))
    assert sorted(order) == list(range(64)) != order and order_of(plan(recipe, {})) == list(range(64))
    # Not the subjects one after the other.
    assert all(len({index // 16 for index in order[start : start + 16]}) >= 3 for start in range(0, 64, 16))


def test_a_killed_sweep_decides_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(*UNTIL, "--output", "whole") == 0
    running = run_demo(*ARGV, *UNTIL, "--output", str(tmp_path / "killed"), cwd=tmp_path)
    deadline = time.monotonic() + 300
    while len(files(tmp_path / "killed")) < 14:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    assert main(*UNTIL, "--output", "killed") == 0
    whole, killed = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "killed"))
    assert killed["until"] == whole["until"] and killed["cells"] == whole["cells"]
    assert cells(tmp_path / "killed") == cells(tmp_path / "whole")
    assert len(rows(tmp_path / "killed")) == len(rows(tmp_path / "whole"))


def test_rounds_end_with_whole_batches(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    odd = json.dumps({"threshold": 0.5, "rounds": [3, 8]})
    assert main("--until", odd, "--output", "sweep") == 0
    assert "rounds end with whole batches of 2: after 4 and 6 prompts" in capsys.readouterr().out
    assert json.loads((tmp_path / "sweep" / "run.json").read_text())["until"]["rounds"] == [4, 6]


def test_mistakes_are_named_before_torch_or_weights_are_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for argv, words in (
        (["--until.threshold", "0.9", "--shard", "1/2"], "a round needs the pictures of all shards"),
        (['--until={"threshold": 0.9, "rounds": [8, 4]}'], "must be ascending"),
        (["--until.threshold", "0.9", "--until.confidence", "1"], "must be above 0 and below 1"),
        (["--until.confidence", "0.9"], "until.threshold: missing"),
    ):
        done = run_blocked({"torch", "numpy"}, *argv, cwd=tmp_path)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    (tmp_path / "empty").mkdir()
    assert main("--until.threshold", "0.9", "--until.dino", "empty") == 2
    err = capsys.readouterr().err
    assert "DINO model" in err and "not loaded" in err and err.count("\n") == 1


def test_a_dry_run_names_what_rounds_need(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("--until.threshold", "0.9", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "DINO for the rounds" in out and "would make at most 26 cells" in out
    assert files(tmp_path) == set()
