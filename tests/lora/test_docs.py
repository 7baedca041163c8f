"""docs/lora.md: its commands, its spec and its Python run on flux-tiny; its lines are those that are said."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from helpers_loras import tiny_lora

from flux.cli import app
from flux.lora.layouts import LAYOUTS
from flux.lora.plan import OTHER_METHODS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "lora.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_lora(tmp_path / "style.safetensors")
    tiny_lora(tmp_path / "detail.safetensors", seed=70)
    monkeypatch.delenv("FLUX_LORA", raising=False)
    return tmp_path


@pytest.mark.parametrize("line", blocks("sh")[0].splitlines())
def test_a_command(line, here, monkeypatch, capsys):
    words = shlex.split(line)
    while words[0].startswith("FLUX_"):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    if words[:3] == ["python", "-m", "flux"]:
        code = app([*words[3:], "--num_steps", "2", "--seed", "1", "--device", "cpu"])
    else:
        demo = runpy.run_path(str(ROOT / words[1]))
        code = demo["main"]([*words[2:], "--steps", "2"])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "LoRA style.safetensors, scale 0.8: kohya, 48 updates of the flow model" in out
    if "demo_0" in line:
        record = json.loads(next(here.glob("output/**/run.json")).read_text())
        found = [(each["file"], each["scale"], len(each["sha256"])) for each in record["setting"]["lora"]]
        assert found == [("style.safetensors", 0.8, 64), ("detail.safetensors", 0.3, 64)]
        page = next(here.glob("output/**/index.html")).read_text()
        assert "style.safetensors × 0.8, detail.safetensors × 0.3" in page


def test_the_spec(here):
    from flux.studies.reading import load_spec
    from flux.studies.text.spec import TestSpec

    (here / "my.json").write_text(blocks("json")[0])
    spec = load_spec(TestSpec, "my.json")
    assert [(each.file.name, each.scale) for each in spec.model.lora] == [
        ("style.safetensors", 0.8),
        ("detail.safetensors", 0.3),
    ]


def test_the_python(here):
    found = {}
    exec(blocks("python")[0], found)
    assert (found["styled"] - found["plain"]).abs().mean() > 0.01


def test_the_layouts_are_those_of_the_table():
    table = PAGE.partition("## What is read")[2].partition("\n\n-")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert [re.split(r"[ ,]", name)[0] for name, _ in rows] == [each.title for each in LAYOUTS]
    for title in OTHER_METHODS:
        assert any(word in PAGE for word in title.split()[1:])
