"""docs/errors.md: each line of its tables is what is said, by the mistake that stands here for it."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from flux.cli import app
from flux.util import TINY_WEIGHTS, configs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SAID = re.findall(r"^\| `(.+?)` \| ", PAGE, re.MULTILINE)
*ERRORS, NOTE = SAID

EDIT, TEST = "demos/demo_4_edit.py", "demos/demo_0_test.py"
SKIP, DINO = "demos/demo_2_skip.py", "demos/demo_3_dino.py"
MISTAKES = [  # a row of ERRORS each
    f"{EDIT} json/nothing.json",
    f"{EDIT} --guidence 3",
    f"{EDIT} empty.json",
    f"{EDIT} cut.json",
    f"{TEST} --model flux-pro",
    f"{EDIT} --width 100",
    f"{EDIT} --layers 12",
    f"{EDIT} --layers vital.json",
    f"{TEST} --prompts none.txt",
    f"{TEST} --negative_prompt x",
    f"{EDIT} --pixels 20000",
    f"{EDIT} --source.image none.jpg --prompts 'a dog' 'a cat'",
    f"{EDIT} --source.image photo.jpg",
    f"{EDIT} --method my_edits:none",
    f"{TEST} json/test-flux-dev.json",
    f"{TEST} --model.weights /none/FLUX.1-dev",
    f"{TEST} json/test-flux-dev.json --model.weights empty",
    f"FLUX_MODEL=cut.safetensors {TEST} json/test-flux-dev.json",
    "flux t2i --name flux-tiny --prompt 'a red house' --lora cut.safetensors",
    DINO,
    f"{SKIP} --merge",
    f"{SKIP} --shard 0/8",
    f"{SKIP} --probe my_probes:none",
]

trained = pytest.mark.skipif(
    not (TINY_WEIGHTS / configs["flux-tiny"].repo_flow).is_file(), reason="flux-tiny has no weights here"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("json", "demos"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "cut.json").write_text('{"source": "a",\n')
    (tmp_path / "cut.safetensors").write_text("x\n")
    (tmp_path / "vital.json").write_text('{"model": "flux-dev", "layers": [0, 1], "evidence": {"layers": 2}}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_every_line_has_its_mistake():
    assert len(ERRORS) == len(MISTAKES)


def pattern(said: str) -> str:
    return ".*".join(re.escape(part) for part in said.split("..."))


@trained
@pytest.mark.parametrize(("said", "mistake"), list(zip(ERRORS, MISTAKES, strict=False)), ids=MISTAKES)
def test_a_mistake(said, mistake, here, monkeypatch, capsys):
    words = shlex.split(mistake)
    monkeypatch.delitem(sys.modules, "my_probes", raising=False)  # which another page's commands have made
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    try:
        code = app(words[1:]) if words[0] == "flux" else runpy.run_path(words[0])["main"](words[1:])
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert (code, len(err.splitlines())) == (2, 1), err
    assert re.search(pattern(said), err), (said, err)


@trained
@pytest.mark.filterwarnings("always:flux-tiny never learned")
def test_a_note(here, capsys):
    assert runpy.run_path(TEST)["main"](["--prompts", "a kangaroo", "--seeds", "0", "--steps", "1"]) == 0
    assert re.search(pattern(NOTE), capsys.readouterr().err)
