"""Run folders: never half-written, resumed by the same recipe, left alone by any other."""

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from flux.studies.folder import RECORD, SPEC, RunFolder
from flux.studies.made import JOURNAL
from flux.studies.owner import LOCK

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
    made = {"deep/a.png": hashlib.sha256((base / "deep" / "a.png").read_bytes()).hexdigest()}
    assert record == {"spec": RECIPE, "setting": SETTING, "finished": True, "seconds": 1.5, "made": made}


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


def test_another_setting_begins_an_unfinished_run_anew(base, capsys):
    started(base)
    assert capsys.readouterr().out == ""
    (base / "notes.txt").write_text("mine")
    run = RunFolder.open(base, RECIPE, {"device": "cuda"})
    assert run.path == base and run.picture("a.png") is None
    assert (base / "notes.txt").read_text() == "mine"
    changes = 'a run of another setting (device was "cpu" and is "cuda")'
    assert capsys.readouterr().out == f"{base} holds {changes}: it is begun anew\n"


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
    run = RunFolder.open(base, RECIPE, SETTING)
    assert run.path == base.with_name("edit-2")
    assert run.note == f"{base} holds a run.json that cannot be read"


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
                assert path.suffix == ".partial" or path.name in (LOCK, JOURNAL)
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


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="Nothing is lost"):
        started(tmp_path / "notes.txt" / "run")


# Whose a folder is

HOLDER = """
import sys, time
from pathlib import Path
from PIL import Image
from flux.studies.folder import RunFolder
run = RunFolder.open(Path(sys.argv[1]), {"a": 1}, {}, apart="apart" in sys.argv)
if "draw" in sys.argv:
    run.save_picture("a.png", Image.new("RGB", (32, 16), "blue"))
print(run.path, flush=True)
sys.stdin.readline()
run.finish({})
"""


@pytest.fixture
def holder():
    """`holder(base)` starts a process that opens a run, {"a": 1}; a line to it lets it finish."""
    started = []

    def start(base, *words) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(base), *words], **pipes)
        started.append(process)
        assert process.stdout.readline().strip() == str(base)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_that_another_process_has_begun_is_in_the_way_of_other_recipes_alone(holder, base, capsys):
    """Even before it has made anything: the time until then is that of loading a model."""
    process = holder(base)
    other = RunFolder.open(base, {"a": 2}, {})
    assert other.path == base.with_name("edit-2") and other.note.endswith("another spec (a was 1 and is 2)")
    # The same recipe waits, says for whom, and finds that one finished.
    letting = threading.Timer(1.5, lambda: process.communicate("go\n"))
    letting.start()
    same = RunFolder.open(base, {"a": 1}, {})
    letting.join()
    assert same.path == base and same.finished
    words = f"{base} is being made by process {process.pid} on {socket.gethostname()} since 2"
    assert capsys.readouterr().out.startswith(words)


def test_a_run_of_hours_is_not_waited_for(holder, base):
    process = holder(base, "apart")
    with pytest.raises(
        ValueError, match=f"is being made by process {process.pid} on .* since .*: wait until"
    ):
        RunFolder.open(base, {"a": 1}, {}, apart=True)
    assert RunFolder.open(base, {"a": 1}, {"device": "cuda"}, apart=True).path == base.with_name("edit-2")


def test_what_a_killed_process_owned_is_free(holder, base):
    process = holder(base, "draw")
    process.kill()
    process.wait()
    assert (base / LOCK).exists() and (base / JOURNAL).exists()
    with RunFolder.open(base, {"a": 1}, {}) as run:
        assert run.path == base and run.is_whole("a.png")
        run.finish({})
    assert {path.name for path in base.iterdir()} == {RECORD, SPEC, "a.png"}


def test_another_thread_waits_too(base):
    run, opened = RunFolder.open(base, RECIPE, SETTING), []
    thread = threading.Thread(target=lambda: opened.append(RunFolder.open(base, RECIPE, SETTING).finished))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and opened == []
    run.finish({})
    run.close()
    thread.join(60)
    assert opened == [True] and not (base / LOCK).exists()


def test_a_folder_is_let_go_when_its_run_ends_in_an_error(base):
    with pytest.raises(RuntimeError), RunFolder.open(base, RECIPE, SETTING):
        assert (base / LOCK).exists()
        raise RuntimeError
    assert not (base / LOCK).exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_said_once_and_used(number, base, monkeypatch):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="without locks .*: start no second run into it") as warned:
        run = finished(base)
    assert len(warned) == 1 and run.finished
    run.close()
    assert {path.name for path in base.iterdir()} == {RECORD, SPEC, "a.png"}


def test_a_folder_in_the_place_of_the_lock_is_one_line(base):
    (base / LOCK).mkdir(parents=True)
    with pytest.raises(
        OSError, match=r"edit cannot be written \(Is a directory\): choose another output folder"
    ):
        RunFolder.open(base, RECIPE, SETTING)


# What is a user's stays


def leave_mine(base) -> dict[str, bytes]:
    """A user's files in the folder of a run."""
    (base / "mine").mkdir()
    mine = {"my-notes.png": b"mine", "mine/keep.png": b"mine too", "page.html": b"<p>", "x.partial": b"half"}
    for name, data in mine.items():
        (base / name).write_bytes(data)
    return mine


def assert_mine(base, mine) -> None:
    assert {name: (base / name).read_bytes() for name in mine} == mine


def test_overwriting_removes_what_the_run_made_and_nothing_else(base):
    run = finished(base)
    mine = leave_mine(base)
    again = RunFolder.open(base, RECIPE, SETTING, overwrite=True)
    assert again.path == base and not (base / "a.png").exists() and "a.png" not in again.made
    assert_mine(base, mine)
    again.finish({})
    assert run.finished
    assert_mine(base, mine)


def test_an_unfinished_run_of_another_setting_removes_no_more(base):
    run = started(base)
    run.save_picture("noisy/b.png", RED)
    mine = leave_mine(base)
    run.close()
    again = RunFolder.open(base, RECIPE, {"device": "cuda"})
    assert not (base / "a.png").exists() and not (base / "noisy" / "b.png").exists() and not [*again.made]
    assert_mine(base, mine)


def test_names_that_lead_out_of_the_folder_are_no_names(base, tmp_path):
    finished(base)
    outside = [tmp_path / "output" / "outside.png", tmp_path / "absolute.png"]
    record = json.loads((base / RECORD).read_text())
    for path, name in zip(outside, ("../outside.png", str(outside[1])), strict=True):
        path.write_text("mine")
        record["made"][name] = hashlib.sha256(b"mine").hexdigest()
    record["made"] |= {"": "0", ".": "0", "mine/..": "0"}
    (base / RECORD).write_text(json.dumps(record))
    RunFolder.open(base, RECIPE, SETTING, overwrite=True)
    assert all(path.read_text() == "mine" for path in outside) and not (base / "a.png").exists()


def test_links_and_folders_with_the_name_of_a_file_are_left(base, tmp_path):
    run = finished(base)
    for name in ("b.png", "c.png"):
        run.save_picture(name, RED)
    run.finish({})
    (tmp_path / "mine.png").write_bytes((base / "a.png").read_bytes())
    for name in ("a.png", "b.png"):
        (base / name).unlink()
    (base / "a.png").symlink_to(tmp_path / "mine.png")
    (base / "b.png").mkdir()
    (base / "b.png" / "keep.txt").write_text("mine")
    again = RunFolder.open(base, RECIPE, SETTING, overwrite=True)
    assert (
        (base / "a.png").is_symlink() and (tmp_path / "mine.png").exists() and not (base / "c.png").exists()
    )
    assert (base / "b.png" / "keep.txt").read_text() == "mine"
    with pytest.raises(
        OSError, match="a.png is not of this run: move it away, or choose another output folder"
    ):
        again.save_picture("a.png", RED)
    with pytest.raises(OSError, match="b.png cannot be written"):
        again.save_picture("b.png", RED)
    assert (base / "a.png").is_symlink() and (base / "b.png" / "keep.txt").exists()


def test_a_file_that_the_run_did_not_make_is_not_replaced(base):
    run = started(base)
    (base / "sheet.png").write_text("mine")
    with pytest.raises(OSError, match="sheet.png is not of this run: move it away"):
        run.save_picture("sheet.png", RED)
    assert (base / "sheet.png").read_text() == "mine"
    run.save_picture("a.png", Image.new("RGB", (32, 16), "blue"))  # its own


def test_what_is_damaged_is_known(base):
    run = finished(base)
    assert run.damaged(["a.png"]) == [] and run.damaged(["b.png"]) == ["b.png"]
    run.save_picture("b.png", RED)
    run.finish({})
    (base / "a.png").write_bytes((base / "a.png").read_bytes()[:-1])
    (base / "b.png").unlink()
    (base / SPEC).write_text("{")
    run = RunFolder.open(base, RECIPE, SETTING)
    assert run.finished and run.damaged() == ["a.png", "b.png", SPEC]
    run.save_picture("a.png", RED)
    run.save_picture("b.png", RED)
    run.finish({})
    assert run.damaged() == [] and json.loads((base / SPEC).read_text()) == RECIPE


def test_a_spec_that_the_user_has_changed_is_no_damage(base):
    run = finished(base)
    (base / SPEC).write_text('{"steps": 99}')
    assert RunFolder.open(base, RECIPE, SETTING).damaged() == [] and run.finished
    assert (base / SPEC).read_text() == '{"steps": 99}'


# Leftovers of kills


def test_partials_of_the_dead_go_and_those_of_the_living_stay(base, holder):
    started(base)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = holder(base.with_name("else"))
    names = [f"noisy/b.png.{number}.partial" for number in (dead.pid, living.pid, os.getpid(), 10**30)]
    (base / "noisy").mkdir()
    for name in names:
        (base / name).write_text("half")
    RunFolder.open(base, RECIPE, SETTING)
    assert [name for name in names if (base / name).exists()] == [names[1]]
