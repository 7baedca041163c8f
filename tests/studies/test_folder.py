"""Run folders: never half-written, resumed by the same recipe, left alone by any other."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from flux.studies.folder import RECORD, SPEC, RunFolder

RECIPE = {"steps": 16, "layers": [0, 1], "model": {"name": "flux-tiny"}}
SETTING = {"device": "cpu"}
RED = Image.new("RGB", (32, 16), "red")


@pytest.fixture
def base(tmp_path):
    return tmp_path / "output" / "edit"


def started(base, recipe=RECIPE, setting=SETTING, **options) -> RunFolder:
    """A run with one picture made."""
    run = RunFolder.open(base, recipe, setting, **options)
    run.save_picture("a.png", RED)
    return run


def finished(base, recipe=RECIPE) -> RunFolder:
    run = started(base, recipe)
    run.finish({"seconds": 1.5})
    return run


def test_a_new_run(base):
    run = RunFolder.open(base, RECIPE, SETTING)
    (base / "b.png.123.partial").write_text("left by a kill")
    assert run.path == base and not run.finished and run.note is None
    assert json.loads((base / SPEC).read_text()) == RECIPE
    run.save_picture("deep/a.png", RED, {"prompt": "a café", "seed": "3"})
    with Image.open(base / "deep" / "a.png") as image:
        assert image.text == {"prompt": "a café", "seed": "3"} and image.size == (32, 16)
    run.finish({"seconds": 1.5})
    assert run.finished and not list(base.glob("*.partial"))
    record = json.loads((base / RECORD).read_text())
    assert record == {"spec": RECIPE, "setting": SETTING, "finished": True, "seconds": 1.5}


def test_the_same_recipe_goes_on(base):
    started(base)
    # Tuples come back from JSON as lists; that is no change.
    run = RunFolder.open(base, {**RECIPE, "layers": (0, 1)}, SETTING)
    assert run.path == base and run.picture("a.png").tobytes() == RED.tobytes()
    assert run.picture("b.png") is None


def test_a_finished_run_stays_until_told_otherwise(base):
    finished(base)
    again = RunFolder.open(base, RECIPE, {"device": "cuda"})
    assert again.finished and again.picture("a.png") is not None
    over = RunFolder.open(base, RECIPE, SETTING, overwrite=True)
    assert over.path == base and not over.finished and over.picture("a.png") is None


def test_another_setting_begins_an_unfinished_run_anew(base):
    started(base)
    (base / "notes.txt").write_text("mine")
    run = RunFolder.open(base, RECIPE, {"device": "cuda"})
    assert run.path == base and run.picture("a.png") is None
    assert (base / "notes.txt").read_text() == "mine"


def test_another_recipe_goes_to_another_folder_and_says_why(base):
    finished(base)
    other = started(base, {**RECIPE, "steps": 8, "model": {"name": "flux-dev"}})
    assert other.path == base.with_name("edit-2")
    changes = 'model.name was "flux-tiny" and is "flux-dev", steps was 16 and is 8'
    assert other.note == f"{base} holds a run of another spec ({changes})"
    assert started(base, {**RECIPE, "steps": 4}).path == base.with_name("edit-3")
    # Each recipe finds its own folder again.
    assert RunFolder.open(base, other.recipe, SETTING).path == other.path
    assert RunFolder.open(base, RECIPE, SETTING, overwrite=True).path == base


def test_many_changes_are_told_in_short(base):
    finished(base, {str(i): i for i in range(9)})
    assert "and 6 more)" in started(base, {str(i): -1 for i in range(9)}).note


def test_other_files_are_never_touched(base):
    base.mkdir(parents=True)
    (base / "holiday.png").write_text("mine")
    run = RunFolder.open(base, RECIPE, SETTING, overwrite=True)
    assert run.path == base.with_name("edit-2") and "holds other files" in run.note
    assert (base / "holiday.png").read_text() == "mine"
    (base.with_name("edit-3")).write_text("a file in the way")
    assert started(base.with_name("edit-3")).path == base.with_name("edit-3-2")


def test_a_run_that_made_nothing_is_in_nobodys_way(base):
    RunFolder.open(base, {"steps": 1}, SETTING)
    assert RunFolder.open(base, RECIPE, SETTING).path == base
    assert json.loads((base / SPEC).read_text()) == RECIPE


def test_looking_for_a_folder_makes_none(base):
    assert RunFolder.find(base, RECIPE, SETTING).path == base
    assert not base.parent.exists()


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "cut"])
def test_a_damaged_picture_is_missing(base, content):
    run = started(base)
    whole = (base / "a.png").read_bytes()
    (base / "a.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert run.picture("a.png") is None


def test_a_damaged_record_is_not_ours(base):
    started(base)
    (base / RECORD).write_text('{"spec": {')
    assert RunFolder.open(base, RECIPE, SETTING).path == base.with_name("edit-2")


def test_clearing_that_was_cut_short_is_done_again(base):
    run = finished(base)
    run._write_record({"finished": False, "clearing": True})
    assert RunFolder.open(base, RECIPE, SETTING).picture("a.png") is None


def test_the_same_pictures_are_the_same_bytes(base):
    run = started(base)
    for i in range(2):
        run.save_picture(f"{i}.png", RED, {"prompt": "x"})
        run.save_animation(f"{i}.webp", [RED, Image.new("RGB", (32, 16), "blue")], 100)
    assert (base / "0.png").read_bytes() == (base / "1.png").read_bytes()
    assert (base / "0.webp").read_bytes() == (base / "1.webp").read_bytes()


def test_the_animation_has_every_frame(base):
    run = started(base)
    run.save_animation("a.webp", [RED, Image.new("RGB", (32, 16), "blue"), RED], 100)
    with Image.open(base / "a.webp") as image:
        assert image.n_frames == 3 and image.is_animated


WRITER = """
import sys
from pathlib import Path
from PIL import Image
from flux.studies.folder import RunFolder
run = RunFolder.open(Path(sys.argv[1]), {"a": 1}, {})
print("go", flush=True)
noise = Image.effect_noise((400, 400), 80).convert("RGB")
while True:
    run.save_picture("a.png", noise)
    run.write_json("a.json", {"x": list(range(20000))})
"""


def test_a_kill_at_any_moment_leaves_whole_files(base):
    for delay in (0.0, 0.03, 0.08, 0.15):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(base)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for path in base.iterdir():
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".png":
                with Image.open(path) as image:
                    image.load()
            else:
                assert path.suffix == ".partial"
    RunFolder.open(base, {"a": 1}, {}, overwrite=True)
    assert {path.name for path in base.iterdir()} <= {RECORD, SPEC, "a.json"}


def test_a_damaged_record_costs_a_run_of_hours_nothing(base):
    """Its files are known one by one, whatever the record says of the setting."""
    run = started(base, apart=True)
    (base / RECORD).write_text('{"spec": {"st')
    assert RunFolder.find(base, {**RECIPE, "steps": 4}, SETTING, apart=True).path != base
    again = RunFolder.open(base, RECIPE, SETTING, apart=True)
    assert again.path == base and not again.finished and again.picture("a.png") is not None
    again.finish({})
    assert run.finished


def test_another_run_inside_is_left_alone(base):
    run, inner = finished(base), finished(base / "inner")
    (base / "inner" / "b.png.7.partial").write_text("of another process")
    begun = RunFolder.open(base, RECIPE, SETTING, overwrite=True)
    assert begun.picture("a.png") is None and not run.finished
    begun.finish({})
    assert inner.picture("a.png") is not None
    assert (base / "inner" / "b.png.7.partial").exists()


def test_a_place_that_cannot_be_written_is_named(base):
    run = started(base)
    (base / "b.png").mkdir()
    with pytest.raises(OSError, match=r"b.png cannot be written \(.*\): choose another output folder"):
        run.save_picture("b.png", RED)
    assert not list(base.glob("*.partial"))
