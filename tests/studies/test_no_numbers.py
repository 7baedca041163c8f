"""Weights that give no numbers: every command says so in one line, and keeps nothing black."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flux import cli

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "flux1-tiny.safetensors": (
        "double_blocks.0.txt_attn.qkv.bias",
        "latents are not finite: from step 1 of 2",
    ),
    "ae.safetensors": ("decoder.conv_in.bias", "decoded pictures are not finite"),
}
DEMOS = {
    "demo_0_test": ["--prompts", "a hat"],
    "demo_1_layer": ["--prompt", "a hat"],
    "demo_4_edit": ["--source", "a hat", "--edits", '[{"prompt": "a boat", "layers": [3]}]'],
}


@pytest.fixture(params=PARTS)
def spoilt(request, clone, tmp_path) -> tuple[Path, str, str]:
    """A clone with a weight that is no number, its name, and what is said."""
    key, said = PARTS[request.param]
    folder = tmp_path / "clone"
    folder.mkdir()
    for each in clone.iterdir():
        if each.name != request.param:
            (folder / each.name).symlink_to(each)
    tensors = load_file(clone / request.param)
    tensors[key][:] = torch.nan
    save_file(tensors, folder / request.param)
    return folder, key, said


def main(demo: str, *argv: str) -> int:
    spec = importlib.util.spec_from_file_location(demo, ROOT / "demos" / f"{demo}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([*argv])


@pytest.mark.parametrize("demo", DEMOS)
def test_a_demo_ends_in_one_line_and_keeps_nothing(demo, spoilt, tmp_path, monkeypatch, capsys):
    weights, key, said = spoilt
    monkeypatch.chdir(tmp_path)
    few = ["--steps", "2", "--width", "32", "--height", "32", "--model.weights", str(weights)]
    assert main(demo, *DEMOS[demo], *few) == 2
    _, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if "finite" in line]
    assert said in line and "in float32" in line and key in line and "Traceback" not in err
    assert not list((tmp_path / "output").rglob("*.png")) and not list((tmp_path / "output").rglob("*.html"))
    (record,) = (tmp_path / "output").rglob("run.json")
    assert json.loads(record.read_text())["finished"] is False


def test_the_command_line_ends_in_one_line_and_keeps_nothing(spoilt, tmp_path, monkeypatch, capsys):
    weights, key, said = spoilt
    monkeypatch.chdir(tmp_path)
    size = ["--width", "32", "--height", "32", "--num_steps", "2"]
    assert cli.app(["--name", "flux-tiny", "--prompt", "a hat", "--weights", str(weights), *size]) == 2
    _, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if "finite" in line]
    assert line.startswith("flux: ") and said in line and key in line and "Traceback" not in err
    assert not list((tmp_path / "output").iterdir())


def test_a_sweep_counts_the_cells_as_failed(spoilt, tmp_path, monkeypatch, capsys):
    weights, _, said = spoilt
    monkeypatch.chdir(tmp_path)
    few = ["--steps", "2", "--width", "32", "--height", "32", "--model.weights", str(weights)]
    assert main("demo_2_skip", "--prompts", "a hat", "--layers", "[3]", *few) == 1
    out, _ = capsys.readouterr()
    assert out.count("0 of ") == 1 and "cells are there" in out
    table = next((tmp_path / "output").rglob("cells.csv")).read_text()
    assert f"failed 3 times: NotFinite: {said.partition(':')[0]}" in table
    assert not list((tmp_path / "output").rglob("pictures/**/*.png"))
