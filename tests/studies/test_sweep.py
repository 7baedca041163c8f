"""Demo 2 from command to page: sweeps, resume, repair, shards, failures, mistakes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_demos import BLOCKED, ROOT, assert_page, environment, files, load_demo, pictures

from flux import util
from flux.studies.sweep import engines, make
from flux.studies.sweep.folder import read_sweep

DEMO = "demo_2_skip"
FEW = [
    "--steps",
    "2",
    "--width",
    "64",
    "--height",
    "64",
    "--layers",
    '[0, "single.2", [1, 2]]',
    "--batch",
    "2",
]
PROMPTS = [{"prompt": "a red hat", "seed": 5}, "a boat on the sea", "the sky"]
TRAINED = (util.TINY_WEIGHTS / "flux1-tiny.safetensors").is_file()


@pytest.fixture
def demo(clone, tmp_path, monkeypatch):
    """`demo("--steps", "3")` runs the demo in an empty working folder and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-prompts.json").write_text(json.dumps(PROMPTS))
    return lambda *argv: load_demo(DEMO).main([*arguments(clone), *argv])


def arguments(clone: Path) -> list[str]:
    return [*FEW, "--prompts", "my-prompts.json", "--model.weights", str(clone)]


@pytest.fixture(scope="module")
def whole(clone, tmp_path_factory) -> Path:
    """A finished sweep, not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "my-prompts.json").write_text(json.dumps(PROMPTS))
    argv = [*arguments(clone), "--output", str(folder / "sweep")]
    argv[argv.index("my-prompts.json")] = str(folder / "my-prompts.json")
    assert load_demo(DEMO).main(argv) == 0
    return folder / "sweep"


def cells(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in pictures(folder).items() if name.startswith("pictures")}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "cells.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


def test_a_whole_sweep(whole):
    groups = ("reference", "repeat", "skip-00", "skip-06", "skip-01+02")
    made = {f"pictures/{prompt:04}/{name}.png" for prompt in range(3) for name in groups}
    assert files(whole) == {*made, "cells.csv", "sheet.png", "index.html", "run.json", "spec.json"}
    assert_page(whole)
    record = json.loads((whole / "run.json").read_text())
    assert record["finished"] and record["spec"] == json.loads((whole / "spec.json").read_text())
    assert record["cells"] == {"all": 15, "made": 15, "failed": 0}
    assert record["setting"]["device"] == "cpu" and record["setting"]["weights"]["flow model"]
    assert len(record["noise_floor"]["changed"]) == 3
    table = rows(whole)
    assert {row["file"] for row in table} == made and len(table) == 15
    assert len({row["identity"] for row in table}) == 15 and not any(row["error"] for row in table)
    sweep = read_sweep(whole)
    assert sweep.problems == () and len(sweep.cells) == 12 and len(sweep.noise) == 3
    with Image.open(whole / "pictures/0000/skip-01+02.png") as image:
        assert image.size == (64, 64)
        assert image.text == {"prompt": "a red hat", "seed": "5", "model": "flux-tiny", "skipped": "1+2"}
    page = (whole / "index.html").read_text()
    assert "oise floor: of 3 references" in page and "layer 6, single.2" in page
    assert len(set(cells(whole).values())) >= 12


@pytest.mark.skipif(not TRAINED, reason="flux-tiny has no weights yet")
def test_flux_tiny_from_the_command_line(tmp_path):
    (tmp_path / "mine.json").write_text(
        json.dumps({"prompts": PROMPTS[:2], "layers": [0, [6, 7]], "batch": 2})
    )
    done = run_demo("mine.json", *FEW[:6], cwd=tmp_path).communicate()
    folder = tmp_path / "output" / "skip" / "mine"
    assert "8 of 8 cells are there" in done[0], done
    assert "noise floor: of 2 references drawn twice" in done[0]
    assert read_sweep(folder).problems == () and len(read_sweep(folder).cells) == 6
    # What a run leaves behind makes it again.
    assert load_demo(DEMO).main([str(folder / "spec.json"), "--output", str(tmp_path / "again")]) == 0
    assert cells(folder) == cells(tmp_path / "again")


def run_demo(*argv: str, cwd: Path) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, str(ROOT / "demos" / f"{DEMO}.py"), *argv]
    return subprocess.Popen(command, cwd=cwd, env=environment(), text=True, **pipes)


def run_blocked(blocked: set[str], *argv: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run the demo in which importing some packages is an error."""
    command = [
        sys.executable,
        "-c",
        BLOCKED.format(blocked=blocked),
        str(ROOT / "demos" / f"{DEMO}.py"),
        *argv,
    ]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)


# Resume and repair


def test_a_killed_sweep_is_finished_by_the_next(demo, clone, whole, tmp_path):
    running = run_demo(*arguments(clone), "--output", "killed", cwd=tmp_path)
    folder = tmp_path / "killed"
    deadline = time.monotonic() + 300
    while not (folder / "cells.csv").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    listed = {row["file"] for row in rows(folder)}
    before = times(folder)
    assert listed and not json.loads((folder / "run.json").read_text())["finished"]
    # No more pictures than those of the task in flight lack their row.
    assert len([name for name in before if name.startswith("pictures")]) <= len(listed) + 3
    assert demo("--output", "killed") == 0
    assert cells(folder) == cells(whole) and len(rows(folder)) == 15
    assert all(times(folder)[name] == before[name] for name in listed)
    assert files(folder) == files(whole)


def test_a_finished_sweep_is_left_alone(demo, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "sweep")
    before = times(tmp_path / "sweep")
    assert demo("--output", "sweep") == 0
    assert "made already" in capsys.readouterr().out and times(tmp_path / "sweep") == before
    assert demo("--output", "sweep", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "15 of 15 cells are done already: nothing to do" in out
    assert demo("--output", "sweep", "--overwrite", "--engine.workers", "2") == 0
    after = times(tmp_path / "sweep")
    assert before.keys() == after.keys() and all(after[name] > before[name] for name in before)
    assert cells(tmp_path / "sweep") == cells(whole) and len(rows(tmp_path / "sweep")) == 15


def test_damage_is_repaired_and_the_rest_is_left_alone(demo, whole, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(whole, folder)
    half, replaced, gone = (
        f"pictures/{name}.png" for name in ("0000/skip-00", "0001/skip-00", "0002/repeat")
    )
    (folder / half).write_bytes((folder / half).read_bytes()[:100])
    shutil.copy(folder / "pictures/0000/reference.png", folder / replaced)
    (folder / gone).unlink()
    table = (folder / "cells.csv").read_bytes()
    last = table.decode().splitlines()[-1].split(",")[2]
    (folder / "cells.csv").write_bytes(table[:-7])
    before = times(folder)
    assert demo("--output", "sweep") == 0
    assert cells(folder) == cells(whole) and read_sweep(folder).problems == ()
    touched = {name for name, at in times(folder).items() if before.get(name) != at}
    assert touched == {half, replaced, gone, "cells.csv", "run.json", "sheet.png", "index.html"}
    added = (folder / "cells.csv").read_text().splitlines()[15:]
    assert sorted(line.split(",")[2] for line in added) == sorted({half, replaced, gone, last})


def test_a_changed_spec_or_other_weights_go_into_a_new_folder(demo, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "sweep")
    assert demo("--output", "sweep", "--seed", "3", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "in " + str(tmp_path / "sweep-2") in out and "0 of 15 cells are done" in out
    assert "a run of another spec (prompts was" in out
    record = json.loads((tmp_path / "sweep" / "run.json").read_text())
    record["setting"]["weights"]["flow model"] = "0123"
    (tmp_path / "sweep" / "run.json").write_text(json.dumps(record))
    assert demo("--output", "sweep", "--seed", "3", "--noise_floor", "0") == 0
    assert "a run of another spec" in capsys.readouterr().out
    assert len(cells(tmp_path / "sweep-2")) == 12 and cells(tmp_path / "sweep") == cells(whole)
    assert demo("--output", "sweep", "--dry-run") == 0
    out = capsys.readouterr().out
    assert 'a run of another setting (weights.flow model was "0123" and is "' in out and "sweep-3" in out


# Shards


def test_shards_joined_are_the_whole_byte_for_byte(demo, whole, tmp_path, capsys):
    assert demo("--merge") == 2
    assert "holds no shards: make them with --shard 1/n to n/n first" in capsys.readouterr().err
    assert demo("--shard", "3/3") == demo("--shard", "1/3") == 0
    folder, shards = tmp_path / "output" / "skip" / "skip", tmp_path / "output" / "skip" / "skip.shards"
    assert "to be joined by --merge" in capsys.readouterr().out
    assert demo("--merge") == 1
    out = capsys.readouterr().out
    assert "shard 2/3 is not there; its 5 cells are missing: pictures/" in out and "10 of 15 cells" in out
    assert demo("--shard", "2/3") == 0
    damaged = next((shards / "2-of-3").rglob("*.png"))
    good = damaged.read_bytes()
    damaged.write_bytes(b"")
    assert demo("--merge") == 1
    assert "shard 2/3 lacks 1 of 5 cells: pictures/" in capsys.readouterr().out
    damaged.write_bytes(good)
    assert demo("--merge", "--dry-run") == 0
    assert "would join 3 shards with 15 of 15 cells, in " in capsys.readouterr().out
    before = times(shards)
    assert demo("--merge") == demo("--merge") == 0
    assert cells(folder) == cells(whole) and files(folder) == files(whole) and times(shards) == before
    assert {(row["file"], row["identity"], row["sha256"]) for row in rows(folder)} == {
        (row["file"], row["identity"], row["sha256"]) for row in rows(whole)
    }
    assert json.loads((folder / "run.json").read_text())["finished"] and read_sweep(folder).problems == ()
    assert (folder / "sheet.png").read_bytes() == (whole / "sheet.png").read_bytes()
    assert demo() == 0
    assert "made already" in capsys.readouterr().out
    (folder / "index.html").unlink()
    assert demo() == 0
    assert (folder / "index.html").is_file() and "made already" not in capsys.readouterr().out


def test_shards_of_another_spec_or_setting_are_refused(demo, whole, tmp_path, capsys):
    shards = tmp_path / "output" / "skip" / "skip.shards"
    for name in ("1-of-2", "2-of-2"):
        shutil.copytree(whole, shards / name)
    record = json.loads((whole / "run.json").read_text())
    setting = {**record, "setting": {**record["setting"], "device": "cuda"}}
    spec = {**record, "spec": {**record["spec"], "steps": 9}}
    for changed, words in ((setting, 'device was "cpu" and is "cuda"'), (spec, "(steps was 9 and is 2)")):
        (shards / "2-of-2" / "run.json").write_text(json.dumps(changed))
        assert demo("--merge") == 2
        err = capsys.readouterr().err
        assert words in err and "2-of-2" in err and err.count("\n") == 1
    assert not (tmp_path / "output" / "skip" / "skip").exists()


# Failures


def test_failed_cells_are_recorded_stop_nothing_and_are_tried_again(
    demo, whole, tmp_path, monkeypatch, capsys
):
    sound, tries = make.make_task, []

    def fails(models, texts, task, *others, **options):
        if task.part.layers == (6,):
            tries.append(task)
            raise ArithmeticError("no,\nthanks")
        return sound(models, texts, task, *others, **options)

    monkeypatch.setattr(make, "make_task", fails)
    assert demo("--output", "sweep") == 1
    folder = tmp_path / "sweep"
    assert len(tries) == 2 * engines.TRIES == 6
    failed = [row for row in rows(folder) if row["error"]]
    assert len(failed) == 3 and {row["layers"] for row in failed} == {"6"}
    assert {row["error"] for row in failed} == {"failed 3 times: ArithmeticError: no, thanks"}
    assert len(cells(folder)) == 12 and not json.loads((folder / "run.json").read_text())["finished"]
    out = capsys.readouterr().out
    assert "12 of 15 cells are there" in out and "3 cells failed 3 times: ArithmeticError" in out
    assert_page(folder)
    assert "ArithmeticError" in (folder / "index.html").read_text()
    assert len(read_sweep(folder).problems) == 3
    monkeypatch.setattr(make, "make_task", sound)
    assert demo("--output", "sweep") == 0
    assert cells(folder) == cells(whole) and read_sweep(folder).problems == ()


def test_a_full_gpu_makes_its_batch_in_halves_and_the_identities_tell(
    demo, clone, whole, tmp_path, monkeypatch, capsys
):
    """Of 3 prompts, 2 side by side, those that were made alone are what a sweep one by one makes."""
    sound, tried = make.make_task, []

    def full(models, texts, task, *others, **options):
        tried.append(task)
        if task.part.layers == (6,) and len(task.prompts) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return sound(models, texts, task, *others, **options)

    monkeypatch.setattr(make, "make_task", full)
    assert demo("--output", "sweep") == 0
    folder = tmp_path / "sweep"
    out = capsys.readouterr().out
    assert "memory is too small for 2 prompts side by side" in out
    assert "2 cells were made with fewer prompts side by side than batch says" in out
    counts = json.loads((folder / "run.json").read_text())["cells"]
    assert counts == {"all": 15, "made": 15, "failed": 0, "halved": 2}
    assert read_sweep(folder).problems == ()

    one_by_one = tmp_path / "one"
    monkeypatch.setattr(make, "make_task", sound)
    argv = [*arguments(clone), "--output", "one"]
    argv[argv.index("--batch") + 1] = "1"
    assert load_demo(DEMO).main(argv) == 0
    row_of = {path: {row["file"]: row for row in rows(path)} for path in (folder, whole, one_by_one)}
    for prompt in range(3):
        file = f"pictures/{prompt:04}/skip-06.png"
        like, unlike = (one_by_one, whole) if prompt < 2 else (whole, None)
        assert row_of[folder][file]["identity"] == row_of[like][file]["identity"]
        assert row_of[folder][file]["sha256"] == row_of[like][file]["sha256"]
        assert unlike is None or row_of[folder][file]["identity"] != row_of[unlike][file]["identity"]

    # What was halved is done: it is not tried again with more rows.
    before = times(folder)
    (folder / "pictures/0002/skip-00.png").unlink()
    monkeypatch.setattr(make, "make_task", full)
    tried.clear()
    assert demo("--output", "sweep") == 0
    assert [(task.prompts, task.part.layers) for task in tried] == [((2,), (0,))]
    assert {name for name, when in times(folder).items() if before[name] != when} & {*row_of[folder]} == {
        "pictures/0002/skip-00.png"
    }


def test_a_gpu_too_small_for_one_prompt_ends_in_one_line(demo, monkeypatch, capsys):
    def full(*args, **options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(make, "make_task", full)
    assert demo("--output", "sweep") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("the GPU is out of memory: use a smaller")


def test_too_little_memory_ends_in_one_line(demo, tmp_path, monkeypatch, capsys):
    def fails(*args, **options):
        raise MemoryError

    monkeypatch.setattr(make, "make_task", fails)
    assert demo() == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == "the machine is out of memory: use a smaller width, height or batch"


def test_a_gpu_that_fails_ends_the_sweep_and_the_rest_is_made_later(
    demo, whole, tmp_path, monkeypatch, capsys
):
    """After the first such error the process can compute nothing more: no cell is to blame."""
    sound, tasks = make.make_task, []

    def fails(models, texts, task, *others, **options):
        tasks.append(task)
        if len(tasks) >= 4:
            raise RuntimeError(
                "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"
            )
        return sound(models, texts, task, *others, **options)

    monkeypatch.setattr(make, "make_task", fails)
    assert demo("--output", "sweep", "--engine.workers", "1") == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == (
        "the GPU failed (CUDA error: device-side assert triggered): stopped; the same command goes on from "
        "here; if it fails again, restart the machine"
    )
    assert len(tasks) == 4, "it is not tried again, and nothing after it is tried"
    made, folder = {task: set(task.cells) for task in tasks[:3]}, tmp_path / "sweep"
    listed = rows(folder)
    assert not [row for row in listed if row["error"]]
    assert len(listed) == sum(map(len, made.values())) == len(cells(folder))
    monkeypatch.setattr(make, "make_task", sound)
    assert demo("--output", "sweep") == 0
    assert cells(folder) == cells(whole) and read_sweep(folder).problems == ()


# Mistakes


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--layers", "[99]"], "layer 99 does not exist"),
        (["--layers", "[[]]"], "must have at least one layer"),
        (["--shard", "3/2"], '--shard = "3/2": must be "i/n"'),
        (["--prompts", "nowhere.json"], "nowhere.json: no such file"),
        (["--until.threshold", "2"], "--until.threshold = 2: must be between -1 and 1"),
        (["--engine", "rya"], "did you mean ray?"),
    ],
)
def test_mistakes_end_with_2_and_one_line_before_torch(argv, words, tmp_path):
    done = run_blocked({"torch", "transformers", "numpy", "PIL"}, *argv, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert words in done.stderr and files(tmp_path) == set()


def test_a_dry_run_names_cells_time_disk_and_memory(tmp_path):
    argv = ["--prompts", "a hat", "--layers", "0-2", "--shard", "1/2", "--dry-run"]
    done = run_blocked({"transformers"}, *argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "would make shard 1/2: 3 cells: 1 references",
        "0 of 3 cells are done",
        "flow model",
        "of disk",
    ):
        assert words in done.stdout
    assert files(tmp_path) == set()


def test_a_dry_run_of_flux_dev_needs_no_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert load_demo(DEMO).main([str(ROOT / "json" / "skip-flux-dev.json"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "would make 3720 cells: 64 references, 8 repeats, 3648 with layers skipped" in out
    assert "not here, to be downloaded" in out and files(tmp_path) == set()
