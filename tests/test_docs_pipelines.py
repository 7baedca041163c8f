"""docs/pipelines.md: what stands there runs on flux-tiny."""

import re
import shlex
from pathlib import Path

import pytest

from flux import cli
from flux.studies.reading import load_spec
from flux.studies.schema import SCHEMAS
from flux.util import TINY_WEIGHTS, configs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) for line in block.strip().splitlines()
]
T2I = [line for line in COMMANDS if line.startswith("python -m flux t2i ")]
DEMOS = [line for line in COMMANDS if line.startswith("python demos/")]

trained = pytest.mark.skipif(
    not (TINY_WEIGHTS / configs["flux-tiny"].repo_flow).is_file(), reason="flux-tiny has no weights here"
)


def test_every_line_is_run():
    assert len(T2I) == 4 and len(DEMOS) == 7 and set(T2I + DEMOS) == set(COMMANDS)


@trained
@pytest.mark.parametrize("line", T2I)
def test_a_command(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)[3:]
    assert cli.app([*words, "--output_dir", str(tmp_path), "--device", "cpu"]) == 0, capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["img_0.jpg"]


@pytest.mark.parametrize("line", DEMOS)
def test_a_spec(line):
    """That they read; `studies/test_demos.py` runs every spec of flux-tiny."""
    from pkgutil import resolve_name

    demo, path = re.fullmatch(r"python demos/demo_\d_(\w+)\.py (\S+)", line).groups()
    assert load_spec(resolve_name(SCHEMAS[demo]), ROOT / path).model.name == "flux-tiny"


@trained
def test_the_python(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(code, names)  # noqa: S102
    assert names["two"].shape == (2, 3, 128, 128)
    for name in ("picture", "again", "painted"):
        assert names[name].shape == (1, 3, 128, 128)
