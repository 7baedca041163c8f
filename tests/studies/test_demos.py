"""The demos from command to page: with random weights in flux-tiny's shapes, and with its own."""

import html
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from test_pages import Tags

import flux
from flux import util
from flux.methods import stable_flow
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.pictures.files import to_pil
from flux.studies.edit.requests import requests
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import load_spec
from flux.weights.load import load_models

ROOT = Path(__file__).resolve().parents[2]
DEMOS = {"test": "demo_0_test", "layer": "demo_1_layer", "edit": "demo_4_edit"}
TRAINED = (util.TINY_WEIGHTS / "flux1-tiny.safetensors").is_file()
TINY_SPECS = [
    path
    for path in sorted((ROOT / "json").glob("*.json"))
    if path.stem.partition("-")[0] in DEMOS and '"flux-tiny"' in path.read_text()
]

SITE = str(flux.PACKAGE_ROOT.resolve().parent)
FEW = ["--steps", "2", "--width", "32", "--height", "48"]


def load_demo(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "demos" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(clone, tmp_path, monkeypatch):
    """`demo("edit", "--steps", "2")` runs a demo in an empty working folder and returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *argv: str) -> int:
        return load_demo(DEMOS[name]).main([*argv, "--model.weights", str(clone)])

    return run


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def pictures(folder: Path) -> dict[str, bytes]:
    """The bytes of every picture of a run."""
    return {name: (folder / name).read_bytes() for name in files(folder) if name.endswith((".png", ".webp"))}


def assert_page(folder: Path) -> None:
    """The page is well-formed, and what it links to is there."""
    for link in Tags((folder / "index.html").read_text()).links:
        assert (folder / unquote(link)).is_file(), link


def assert_whole_run(folder: Path) -> dict:
    assert_page(folder)
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] and record["spec"] == json.loads((folder / "spec.json").read_text())
    assert record["setting"]["device"] == "cpu" and record["setting"]["dtype"] == "float32"
    assert record["versions"]["torch"] and record["seconds"]["all"] > 0
    assert not [name for name in files(folder) if name.endswith(".partial")]
    return record


# Each demo


def test_demo_0(demo, tmp_path, capsys):
    assert (
        demo("test", *FEW, "--prompts", "a red hat", "a <b>boat</b>", "--seeds", "[0,7]", "--batch", "3") == 0
    )
    folder = tmp_path / "output" / "test" / "test"
    assert_whole_run(folder)
    assert files(folder) == {
        *(f"picture-{prompt:02}-seed-{seed}.png" for prompt in (1, 2) for seed in (0, 7)),
        *("sheet.png", "index.html", "run.json", "spec.json"),
    }
    with Image.open(folder / "picture-02-seed-7.png") as image:
        assert image.size == (32, 48)
        assert image.text == {"prompt": "a <b>boat</b>", "seed": "7", "model": "flux-tiny"}
    out = capsys.readouterr().out
    for words in ("flux-tiny on cpu", "float32", "loaded in", "4 pictures in", "of memory", "index.html"):
        assert words in out


@pytest.mark.filterwarnings("always:flux-tiny never learned")
def test_words_that_flux_tiny_never_learned_are_named_in_one_line(demo, capsys):
    assert demo("test", *FEW, "--prompts", "a dog in the snow", "a red Horse, a dog") == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "learned" in line]
    assert note.startswith("note: ") and "'dog', 'horse':" in note
    assert demo("test", *FEW, "--prompts", "a red house in the snow") == 0
    assert "learned" not in capsys.readouterr().err


def test_demo_1(demo, tmp_path):
    assert (
        demo("layer", "--steps", "3", "--width", "32", "--height", "48", "--attention", '[0, "single.7"]')
        == 0
    )
    folder = tmp_path / "output" / "layer" / "layer"
    record = assert_whole_run(folder)
    steps = [f"step-{i:02}.png" for i in (1, 2, 3)]
    kinds = ("noisy", "estimate", "attention/double.0", "attention/single.7")
    assert files(folder) == {
        *(f"{kind}/{step}" for kind in kinds for step in steps),
        *("picture.png", "filmstrip.png", "animation.webp", "attention.png"),
        *("index.html", "run.json", "spec.json"),
    }
    assert record["timesteps"][0] == 1 and record["timesteps"][-1] == 0 and len(record["timesteps"]) == 4
    with Image.open(folder / "animation.webp") as image:
        assert image.n_frames == 4
    # The first noisy picture is noise alone: the same whatever the prompt. The estimate is not.
    assert (
        demo("layer", "--steps", "3", "--width", "32", "--height", "48", "--prompt", "x", "--attention", "[]")
        == 0
    )
    other = tmp_path / "output" / "layer" / "layer-2"
    assert "attention.png" not in files(other)
    first = "noisy/step-01.png"
    assert np.array_equal(np.asarray(Image.open(folder / first)), np.asarray(Image.open(other / first)))
    assert (folder / "picture.png").read_bytes() != (other / "picture.png").read_bytes()


def test_demo_4(demo, tmp_path, capsys):
    edits = [
        "a red hat",
        {
            "prompt": "a boat & <hat>",
            "seeds": [0, 3],
            "strength": 0.5,
            "strategy": {"name": "ratio", "ratio": 0.5},
        },
    ]
    argv = ["--source", "a red boat", "--edits", json.dumps(edits), "--batch", "1", "--layers", "all"]
    assert demo("edit", *FEW, *argv, "--seed", "0") == 0
    folder = tmp_path / "output" / "edit" / "edit"
    record = assert_whole_run(folder)
    names = ("01", "02-seed-0", "02-seed-3")
    assert files(folder) == {
        *(f"{kind}-{name}.png" for kind in ("edit", "plain", "difference", "mask") for name in names),
        *("source.png", "source-again.png", "source-seed-3.png", "sheet.png"),
        *("index.html", "run.json", "spec.json"),
    }
    assert record["noise_floor"] == 0
    for each in record["edits"]:
        assert each["changed"] > 0 and -1 <= each["similarity"] <= 1 and each["psnr"] > 0
        assert each["layers"] == list(range(12))
    assert "index.html" in capsys.readouterr().out


def test_edits_are_pasted_into_the_source_unless_a_spec_says_they_are_not(demo, tmp_path):
    edits = ["a red hat", "the sea", "a red boat"]
    argv = [*FEW, "--source", "a red boat", "--edits", json.dumps(edits), "--batch", "2", "--layers", "all"]
    assert demo("edit", *argv, "--paste", "true", "--output", "pasted") == 0
    assert demo("edit", *argv, "--paste", "false", "--output", "plain") == 0
    plain, pasted = (pictures(tmp_path / name) for name in ("plain", "pasted"))
    assert {name for name in pasted if name.startswith("mask")} == {f"mask-0{i}.png" for i in (1, 2, 3)}
    assert plain.keys() == {name for name in pasted if not name.startswith("mask")}
    assert all(plain[name] == pasted[name] for name in plain if name.startswith(("source", "plain")))

    # The plain way is the method's own, as it comes.
    spec = load_spec(EditSpec, None, json.loads((tmp_path / "plain" / "spec.json").read_text()))
    made = stable_flow.edit(load_models("flux-tiny", weights=spec.model.weights), requests(spec)[0]).edits
    for number, picture in enumerate(made, start=1):
        image = Image.open(tmp_path / "plain" / f"edit-0{number}.png")
        assert image.tobytes() == to_pil(picture).tobytes() and "figures" not in image.text

    source, *_ = levels = [
        np.asarray(Image.open(tmp_path / "pasted" / f"{name}.png"))
        for name in ("source", "edit-01", "edit-02", "edit-03", "mask-01", "mask-02")
    ]
    for edit, mask in zip(levels[1:3], levels[4:], strict=True):
        assert np.array_equal(edit[mask == 0], source[mask == 0])
    assert np.array_equal(levels[3], source)
    records = json.loads((tmp_path / "pasted" / "run.json").read_text())["edits"]
    assert all(each["pasted"] and 0 <= each["mask"] <= 1 for each in records)
    assert "pasted" not in json.loads((tmp_path / "plain" / "run.json").read_text())["edits"][0]


@pytest.mark.parametrize("chained", ["false", "true"])
def test_an_edit_that_fills_the_picture_is_named(chained, demo, tmp_path, monkeypatch, capsys):
    argv = [*FEW, "--source", "a red boat", "--edits", '["the sea"]', "--chain", chained, "--output", "run"]
    monkeypatch.setattr("flux.photos.beside.PASTE_BELOW", 0.0)
    assert demo("edit", *argv) == 0
    said = r"he edit changes \d+% of the picture: there is nothing to paste it into"
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    (record,) = run["links" if chained == "true" else "edits"]
    for text in (record["note"], capsys.readouterr().out, (tmp_path / "run" / "index.html").read_text()):
        assert re.search(said, text)
    assert not record["pasted"]


def test_a_lost_edit_is_pasted_again_into_the_source_that_is_kept(demo, tmp_path):
    """Whose pass is not made again."""
    argv = [*FEW, "--source", "a red boat", "--edits", '["a red hat", "the sea", "the sky"]', "--batch", "2"]
    assert demo("edit", *argv, "--paste", "true", "--output", "run") == 0
    whole = pictures(tmp_path / "run")
    for name in ("edit-03.png", "mask-03.png"):
        (tmp_path / "run" / name).unlink()
    assert demo("edit", *argv, "--paste", "true", "--output", "run") == 0
    assert pictures(tmp_path / "run") == whole


def test_the_same_spec_gives_the_same_bytes(demo, tmp_path):
    argv = [*FEW, "--prompts", "a red boat", "a red hat", "--output"]
    assert demo("edit", *argv, "a") == demo("edit", *argv, "b") == 0
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    assert (tmp_path / "a" / "index.html").read_bytes() == (tmp_path / "b" / "index.html").read_bytes()
    # What a run leaves beside its pictures makes them again.
    spec = str(tmp_path / "a" / "spec.json")
    assert load_demo("demo_4_edit").main([spec, "--output", "c"]) == 0
    assert pictures(tmp_path / "c") == pictures(tmp_path / "a")


def test_without_comparison(demo, tmp_path, capsys):
    assert demo("edit", *FEW, "--compare", "false", "--prompts", "a red boat", "a red hat") == 0
    folder = tmp_path / "output" / "edit" / "edit"
    (each,) = assert_whole_run(folder)["edits"]
    assert not any(name.startswith("plain") for name in files(folder))
    assert each["plain_similarity"] is None and each["notices"] == []


# Resume


def test_a_finished_run_is_left_alone(demo, tmp_path, capsys):
    argv = [*FEW, "--prompts", "a red boat", "a red hat"]
    assert demo("edit", *argv) == 0
    folder = tmp_path / "output" / "edit" / "edit"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert demo("edit", *argv) == 0
    assert "made already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert demo("edit", *argv, "--overwrite") == 0
    assert before.keys() == set(folder.iterdir())
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_a_changed_spec_goes_into_a_new_folder(demo, tmp_path, capsys):
    argv = [*FEW, "--prompts", "a red boat", "a red hat"]
    assert demo("edit", *argv, "--seed", "0") == demo("edit", *argv, "--seed", "4") == 0
    assert "a run of another spec (seed was 0 and is 4); this run goes to" in capsys.readouterr().out
    assert_whole_run(tmp_path / "output" / "edit" / "edit-2")


def test_damaged_pictures_are_made_again_and_others_are_not(demo, tmp_path):
    argv = [*FEW, "--source", "a red boat", "--edits", '["a red hat", "the sea", "the sky"]', "--batch", "1"]
    assert demo("edit", *argv) == 0
    folder = tmp_path / "output" / "edit" / "edit"
    whole = pictures(folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "finished": False}))
    (folder / "edit-02.png").write_bytes(whole["edit-02.png"][:200])
    (folder / "plain-03.png").unlink()
    kept = {name: (folder / name).stat().st_mtime_ns for name in ("source.png", "edit-01.png", "edit-03.png")}
    assert demo("edit", *argv) == 0
    assert pictures(folder) == whole
    assert kept == {name: (folder / name).stat().st_mtime_ns for name in kept}


def environment() -> dict[str, str]:
    """For a process of its own, with the package that is tested here."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SITE}


def run_demo(name: str, *argv: str, cwd: Path, **options) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "demos" / f"{DEMOS[name]}.py"), *argv]
    return subprocess.Popen(command, cwd=cwd, env=environment(), text=True, **options)


@pytest.mark.parametrize("name, first", [("edit", "source.png"), ("layer", "estimate/step-01.png")])
def test_a_killed_run_is_finished_by_the_next(name, first, clone, tmp_path):
    many = json.dumps(["a " + "red " * i + "hat" for i in range(12)])
    own = {"edit": ["--steps=2", "--edits", many, "--batch=1"], "layer": ["--steps=12", "--attention=[]"]}[
        name
    ]
    argv = ["--width=32", "--height=48", "--model.weights", str(clone), *own]
    folder = tmp_path / "output" / name / name
    running = run_demo(name, *argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (folder / first).exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert made and not json.loads((folder / "run.json").read_text())["finished"]

    again = run_demo(name, *argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert_whole_run(folder)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert load_demo(DEMOS[name]).main([*argv, "--output", str(tmp_path / "whole")]) == 0
    assert pictures(folder) == pictures(tmp_path / "whole")


# What goes wrong


def test_an_edit_that_did_nothing_is_named(demo, tmp_path, capsys):
    assert demo("edit", *FEW, "--prompts", "a red boat", "a red boat") == 0
    assert "edit-01: did nothing: 0.00% of pixels changed" in capsys.readouterr().out
    folder = tmp_path / "output" / "edit" / "edit"
    assert "This edit did nothing" in (folder / "index.html").read_text()
    (each,) = json.loads((folder / "run.json").read_text())["edits"]
    assert each["changed"] == 0 and each["psnr"] is None


def test_an_edit_that_lost_the_source_is_named(demo, tmp_path, capsys):
    argv = [*FEW, "--prompts", "a red boat", "a blue house at night", "--checks.did_nothing", "0"]
    assert demo("edit", *argv, "--checks.lost_source", "0.001") == 0
    assert "% of it, above 0% counts as lost. Try more layers than" in capsys.readouterr().out
    assert demo("edit", *argv, "--checks.lost_source", "1") == 0
    assert "lost the source" not in capsys.readouterr().out


def test_on_flux_tiny_a_judge_says_what_is_wrong_with_an_edit(tmp_path, monkeypatch, capsys):
    """After one step no picture is as asked. What is wrong with it may differ between processors."""
    prompts = ["a big red house by day", "a big red house and a small blue cat by day"]
    argv = ["--steps", "1", "--prompts", *prompts, "--compare", "false", "--output", "run"]
    monkeypatch.chdir(tmp_path)
    assert load_demo(DEMOS["edit"]).main(argv) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("edit-01: ")]
    assert "asked for" in line and ". Try " in line and "counts as" not in line
    page = (tmp_path / "run" / "index.html").read_text()
    assert html.escape(f"This edit {line.removeprefix('edit-01: ')}") in page


def test_without_dino_the_check_is_skipped_in_one_line(demo, tmp_path, capsys):
    argv = [*FEW, "--prompts", "a red boat", "a red hat"]
    (tmp_path / "no-model").mkdir()
    assert demo("edit", *argv, "--checks.dino", "no-model") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "not measured" in line]
    assert "similarities to the source were not measured: DINO model" in line
    assert demo("edit", *argv, "--checks.dino", "off") == 0
    assert "not measured" not in capsys.readouterr().out


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise AssertionError("imported " + name)
sys.meta_path.insert(0, Block())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_blocked(blocked: set[str], name: str, *argv: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a demo in which importing some packages is an error."""
    code, script = BLOCKED.format(blocked=blocked), str(ROOT / "demos" / f"{DEMOS[name]}.py")
    return subprocess.run(
        [sys.executable, "-c", code, script, *argv], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", DEMOS)
def test_a_wrong_spec_ends_with_2_and_one_line_before_torch(name, tmp_path):
    (tmp_path / "my.json").write_text('{"stpes": 3}')
    done = run_blocked({"torch", "transformers", "numpy"}, name, "my.json", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("my.json: stpes = 3: unknown key, did you mean steps?")
    assert files(tmp_path) == {"my.json"}


def test_help_needs_no_torch(tmp_path):
    done = run_blocked({"torch", "transformers", "numpy"}, "edit", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "model.device" in done.stdout and done.stderr == ""


def test_missing_weights_end_with_2_and_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert load_demo("demo_4_edit").main(["--model.weights", "empty"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "flux1-tiny.safetensors" in err
    # The failure is in nobody's way.
    assert load_demo("demo_4_edit").main(["--model.device", "cuda:99"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# Dry run


@pytest.mark.parametrize("name", DEMOS)
def test_a_dry_run_loads_and_writes_nothing(name, clone, tmp_path):
    done = run_blocked({"transformers"}, name, "--dry-run", "--model.weights", str(clone), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("would make", "flow model", "flux1-tiny.safetensors: there", "about", "of memory"):
        assert words in done.stdout
    assert files(tmp_path) == set()


def test_a_dry_run_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec = str(ROOT / "json" / "edit-flux-dev.json")
    assert load_demo("demo_4_edit").main([spec, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "FLUX.1-dev/flux1-dev.safetensors: not here, to be downloaded" in out
    assert "google/t5-v1_1-xxl: not here" in out and "would make 15 pictures of 1024 x 1024" in out


def test_a_dry_run_downloads_nothing(tmp_path, monkeypatch, capsys):
    """Not even where FLUX_REPO has a folder for the part with nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **kwargs: pytest.fail("a download"))
    (tmp_path / "clone" / "vae").mkdir(parents=True)
    monkeypatch.setenv("FLUX_REPO", str(tmp_path / "clone"))
    spec = str(ROOT / "json" / "edit-flux-dev.json")
    assert load_demo("demo_4_edit").main([spec, "--dry-run"]) == 0
    assert "FLUX.1-dev/ae.safetensors: not here, to be downloaded" in capsys.readouterr().out


def test_a_dry_run_knows_what_is_made_already(demo, capsys):
    argv = [*FEW, "--prompts", "a red boat", "a red hat"]
    assert demo("edit", *argv) == demo("edit", *argv, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "would make 5 pictures of 32 x 48, 2 steps" in out and "5 are there already" in out
    assert "  each edit is pasted into its source by what it changed where that is less than 90% of it" in out
    assert "finished already" in out


# flux-tiny itself


@pytest.mark.skipif(not TRAINED, reason="flux-tiny has no weights yet")
@pytest.mark.parametrize("path", TINY_SPECS, ids=lambda path: path.stem)
def test_every_shipped_spec_of_flux_tiny_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = path.stem.partition("-")[0]
    assert load_demo(DEMOS[name]).main([str(path)]) == 0
    assert_whole_run(tmp_path / "output" / name / path.stem)


# What flux-tiny's start takes; in seconds it is measured by benchmarks/start.py.

ONE_EDIT = ("--prompts", "a big red house on the grass by day", "a big red house on the grass at night")

SPARED = {
    *("diffusers", "fire", "gradio", "matplotlib", "onnx", "onnxruntime", "pandas", "peft", "ray", "skimage"),
    *("flux.app", "flux.cli", "flux.photos.editing", "flux.studies.similarity", "flux.studies.sweep"),
    *("flux.studies.pages.plots", "flux.tiny.training", "flux.util"),
}
"""Packages and rooms that a plain edit has no use for."""

LISTED = """
import json, runpy, sys
seen, *sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    with open(seen, "w") as file:
        json.dump(sorted(sys.modules), file)
"""


@pytest.mark.skipif(not TRAINED, reason="flux-tiny has no weights yet")
def test_an_edit_imports_nothing_that_it_has_no_use_for(tmp_path):
    demo = [str(ROOT / "demos" / "demo_4_edit.py"), *ONE_EDIT, "--steps", "1"]
    command = [sys.executable, "-c", LISTED, str(tmp_path / "seen.json"), *demo]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads((tmp_path / "seen.json").read_text()))
    assert {"torch", "transformers", "flux.studies.edit.run"} <= imported
    assert SPARED & imported == set()


@pytest.mark.skipif(not TRAINED, reason="flux-tiny has no weights yet")
def test_an_edit_computes_nothing_twice(tmp_path, monkeypatch):
    """Each encoder reads each prompt once. Source and edit are one pass of 16 steps, the plain picture and
    the source again, for the noise floor, another; each picture is decoded once, by itself."""
    calls = {"flow": [], "text": [], "decoded": []}

    def count(kind: type, name: str, to: str) -> None:
        real = getattr(kind, name)

        def counted(self, *given, **named):
            calls[to].append(len(given[0] if given else named["img"]))
            return real(self, *given, **named)

        monkeypatch.setattr(kind, name, counted)

    for kind, name, to in ((Flux, "forward", "flow"), (HFEmbedder, "forward", "text")):
        count(kind, name, to)
    count(AutoEncoder, "decode", "decoded")
    monkeypatch.chdir(tmp_path)
    assert load_demo(DEMOS["edit"]).main([*ONE_EDIT]) == 0
    assert calls == {"flow": [2] * 32, "text": [1] * 4, "decoded": [1] * 4}
