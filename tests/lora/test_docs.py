"""docs/lora.md: its commands, its spec and its Python run on flux-tiny; its lines are those that are said."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from helpers_loras import TINY, noise, save, tiny_lora

from flux.cli import app
from flux.formats.header import CheckpointError
from flux.lora.choice import LoraChoice
from flux.lora.layouts import LAYOUTS
from flux.lora.plan import OTHER_METHODS
from flux.lora.reading import read_lora
from flux.models import configs

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


DEV = configs["flux-dev"]
PROJ = "double_blocks.0.img_attn.proj"


def lora(name=PROJ, outputs=192, inputs=192, rank=2):
    return {f"{name}.lora_A.weight": noise(rank, inputs), f"{name}.lora_B.weight": noise(outputs, rank)}


ERRORS = [  # a row of the page's table each: a file's tensors, and the model
    (lora("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"), DEV),
    (lora("transformer.transformer_blocks.0.attn.to_q", 3072, 3072), TINY),
    (lora(PROJ, 3072, 3072) | lora("double_blocks.19.img_attn.proj", 3072, 3072), DEV),
    ({f"{PROJ}.weight": noise(4, 4)}, TINY),
    (lora() | {f"{PROJ}.dora_scale": noise(192)}, TINY),
    ({f"{PROJ}.lora_A.weight": noise(2, 192)}, TINY),
    (lora() | {f"{PROJ}.lora_B.weight": noise(192, 3)}, TINY),
    (lora() | {f"{PROJ}.lora_B.weight": noise(192, 2) / 0}, TINY),
    (lora() | {f"{PROJ}.alpha": noise(1) * 0}, TINY),
    (lora() | lora(f"transformer.{PROJ}"), TINY),
    (None, TINY),
]


def test_what_an_error_means(tmp_path):
    table = PAGE.partition("## What an error means")[2]
    said = [line.split(" | ")[0].strip("| ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(said) == len(ERRORS)
    for words, (state, model) in zip(said, ERRORS, strict=True):
        file = tmp_path / "a.safetensors"
        if state is None:
            save(tmp_path / "b.safetensors", lora())
        else:
            save(file, state)
        with pytest.raises(CheckpointError) as error:
            name = next(name for name, record in configs.items() if record is model)
            read_lora(LoraChoice(file if state else tmp_path), model, name)
        for part in re.split(r" \.\.\. |, all its updates are 0", words):
            assert part in str(error.value), (part, str(error.value))
