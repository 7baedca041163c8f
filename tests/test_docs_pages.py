"""The pages of docs/: links lead somewhere, and what no other test reads runs on flux-tiny.

Commands that need FLUX.1-dev run as --dry-run. A page's commands run in turn, as a reader would run them.
What is done to an environment (`pip`) is read by a shell alone.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flux.cli import app
from flux.sampling import get_noise, prepare
from flux.util import TINY_WEIGHTS, configs, load_models

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
LINES = {"layers": 11, "cluster": 5, "small-cards": 4, "precision": 3, "extending": 3, "speed": 1}
"""How many commands stand on a page, so that none is overlooked."""
DRY = ("../README", "editing", "probes", "attention")
"""Pages whose demos are those that `studies/test_demos.py` and others run; here they are asked for alone."""
ELSEWHERE = {"errors", "lora", "methods", "page", "pipelines", "references", "weights"}
"""Pages that are read by tests of their own, by `weights/test_layouts.py` by `test_cli_references.py` and
by `app/test_options.py`."""
PROSE = {"README", "flux-tiny", "folders"}

trained = pytest.mark.skipif(
    not (TINY_WEIGHTS / configs["flux-tiny"].repo_flow).is_file(), reason="flux-tiny has no weights here"
)


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def commands(name: str) -> list[str]:
    return [line for block in blocks(name, "sh", "") for line in block.strip().splitlines()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder like the project's, with a clone that is empty and layers as demo 3 writes them."""
    for name in ("json", "demos", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "FLUX.1-dev").mkdir()
    found = tmp_path / "output" / "dino" / "dino-flux-dev"
    found.mkdir(parents=True)
    (found / "vital_layers.json").write_text("[0, 1, 20]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str, here: Path, monkeypatch) -> int:
    """Run a line in this process; its exit code."""
    line = line.replace("/path/to/FLUX.1-dev", str(here / "FLUX.1-dev")).replace(
        "/shared/", f"{here}/shared/"
    )
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        name, value = words.pop(0).split("=", 1)
        if name == "PYTHONPATH":
            monkeypatch.syspath_prepend(here / value)
        else:
            monkeypatch.setenv(name, value)
    if "flux-dev" in line and "--dry-run" not in words:
        words.append("--dry-run")
    if words[1].startswith("benchmarks/"):  # it imports what stands beside it
        return subprocess.run([sys.executable, *words[1:]], capture_output=True).returncode
    try:
        if words[:3] == ["python", "-m", "flux"]:
            return app([*words[3:], "--device", "cpu"])
        assert words[0] == "python", line
        return runpy.run_path(str(here / words[1]))["main"](words[2:]) or 0
    except SystemExit as end:
        return end.code or 0


# Links and lengths


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (file.parent / target.partition("#")[0]).exists(), target


def test_every_page_is_in_the_index_and_in_the_readme():
    names = {file.name for file in DOCS.glob("*.md")} - {"README.md"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[([\w-]+\.md)\]", page("README"), re.MULTILINE)) == names
    assert set(re.findall(r"\(docs/([\w-]+\.md)\)", readme)) - {"README.md"} == names


def test_every_page_has_a_test():
    tested = ELSEWHERE | PROSE | LINES.keys() | set(DRY[1:]) | {"swap", "library"}
    assert {file.stem for file in DOCS.glob("*.md")} == tested


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 250


def test_the_changelog_has_this_version():
    from flux import __version__

    assert f"## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# Commands


@trained
@pytest.mark.parametrize("name", LINES)
def test_the_commands_of(name, here, monkeypatch, capsys):
    if name == "precision":
        pytest.importorskip("torchao")
    for code in blocks(name, "python"):
        if own := re.match(r"# (my_\w+\.py)\n", code):
            (here / own[1]).write_text(code)
            monkeypatch.delitem(sys.modules, own[1][:-3], raising=False)
    lines = commands(name)
    assert len(lines) == LINES[name]
    for line in lines:
        code = run(line, here, monkeypatch)
        out, err = capsys.readouterr()
        if "demo_3" in line and "flux-dev" in line:  # there is no sweep of FLUX.1-dev
            assert (code, "run demos/demo_2_skip.py" in err) == (2, True), err
        else:
            assert code == 0, (line, out, err)


@trained
def test_the_job_array(here, monkeypatch, capsys):
    """Its commands, as task 3 and as the merge that comes too early, without weights."""
    (script,) = blocks("cluster", "bash")
    assert "--array=1-8" in script
    (line,) = script.replace("\\\n", "").splitlines()[3:]
    for name, value in {"FLUX": "FLUX.1-dev", "SHARED": "shared", "SLURM_ARRAY_TASK_ID": "3"}.items():
        line = line.replace(f"${name}", value)
    assert run(line, here, monkeypatch) == 0
    assert "would make shard 3/8" in capsys.readouterr().out


def dry(name: str) -> list[str]:
    lines = (line.partition("  #")[0].removesuffix(" --dry-run") for line in commands(name))
    return [f"{line} --dry-run" for line in lines if "demos/" in line]


@trained
@pytest.mark.parametrize("line", [line for name in DRY for line in dry(name)])
def test_a_dry_run(line, here, monkeypatch, capsys):
    """What is asked for can be had; where a line goes on from another's folder, that is what is missing."""
    for name in ("photo.jpg", "a.png", "b.png", "folder/c.png"):
        (here / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "json" / "photos" / "scene.png", here / name)
    (here / "my-prompts.json").write_text('["a big red house on the grass"]')
    code = run(line, here, monkeypatch)
    err = capsys.readouterr().err
    if "output/" in line or "/dino" in line:
        assert code == 2 and re.search(
            r"run demos/demo_2_skip\.py|no such file( or folder)?: .*/output/", err
        ), err
    else:
        assert code == 0, err


def test_the_specs_of_editing(here):
    from PIL import Image

    from flux.studies.edit.spec import EditSpec
    from flux.studies.reading import load_spec

    Image.new("RGB", (1024, 768)).save(here / "photo.jpg")
    photo, roles, chain = blocks("editing", "json")
    with_roles = json.dumps(json.loads(photo) | json.loads(roles))
    for text, edits in ((photo, 2), (with_roles, 2), (chain, 3)):
        (here / "my.json").write_text(text)
        assert len(load_spec(EditSpec, here / "my.json").edits) == edits


# Python


@trained
def test_the_python_of_library(here):
    first, plans, loop, photo = blocks("library", "python")
    names: dict = {}
    exec(first, names)  # noqa: S102
    assert names["pictures"].shape == (2, 3, 128, 128) and names["pictures"].std() > 0.2
    exec(plans, names)  # noqa: S102
    plain = names["pictures"].pop("plain")
    for name, picture in names["pictures"].items():
        assert (picture - plain).abs().mean() > 0.005, name
    exec(loop, names)  # noqa: S102
    assert [each.shape for each in names["estimates"]] == [(1, 3, 128, 128)] * 4
    exec(photo, names)  # noqa: S102
    assert (here / "edited.png").is_file()


@trained
def test_the_python_of_speed(here):
    from flux.generate import Sampling
    from flux.hooks import KeptSource
    from flux.methods.stable_flow import Edit, EditRequest, edit

    (kept,) = blocks("speed", "python")
    request = EditRequest("a red house", (Edit("a blue house", (1, 11)),), Sampling(2, 3.5, 64, 64))
    names = {"KeptSource": KeptSource, "Edit": Edit, "edit": edit, "replace": replace, "request": request}
    names["models"] = load_models("flux-tiny", device="cpu")
    exec(kept, names)  # noqa: S102
    assert torch.equal(names["first"].source, names["more"].source)


@trained
def test_the_python_of_editing(here):
    shutil.copy(ROOT / "json" / "photos" / "scene.png", here / "photo.jpg")
    (code,) = blocks("editing", "python")
    exec(code, {})  # noqa: S102
    assert (here / "edited.png").is_file()


@trained
def test_the_python_of_probes_and_attention():
    models = load_models("flux-tiny", device="cpu")
    (probe,) = blocks("probes", "python")
    names = {"models": models}
    exec(probe.replace("a dog", "a house"), names)  # noqa: S102
    assert names["picture"].shape == (1, 3, 128, 128)

    (watch,) = blocks("attention", "python")
    noise = get_noise(1, 128, 128, models.device, models.dtype, seed=0)
    inputs = prepare(models.t5, models.clip, noise, "a big red house")
    named = inputs | {"y": inputs.pop("vec"), "timesteps": torch.ones(1), "guidance": torch.ones(1)}
    names = {"models": models, "inputs": named}
    assert "models.flow(..., " in watch
    exec(watch.replace("models.flow(..., ", "models.flow(**inputs, "), names)  # noqa: S102
    assert names["watch"].found[3, 0].words.shape == (1, 1, 64)


def test_the_snippet_of_the_readme_is_the_librarys():
    first = blocks("library", "python")[0]
    assert f"```python\n{first}" in (ROOT / "README.md").read_text(encoding="utf-8")


# Swapping


def test_the_commands_of_swap_are_a_shells():
    for line in commands("swap"):
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_copied_folder(tmp_path):
    copy, check, undo = re.search(r"\*\*A copied folder.*?```\n(.*?)```", page("swap"), re.DOTALL)[
        1
    ].splitlines()
    theirs = tmp_path / "src" / "flux"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("theirs = True")

    def shell(line):
        line = line.replace("/path/to/this", str(ROOT)).replace(
            "python -c", f"{shlex.quote(sys.executable)} -c"
        )
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            ["bash", "-ec", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    shell(copy)
    assert shell(check) == str(theirs / "hooks" / "__init__.py")
    shell(undo)
    assert [file.name for file in (tmp_path / "src").iterdir()] == ["flux"]
    assert (theirs / "__init__.py").read_text() == "theirs = True"
