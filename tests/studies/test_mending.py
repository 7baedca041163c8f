"""Finished runs that were damaged since: each demo makes what is gone or damaged, the same bytes, no more."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers_demos import save_clone
from helpers_models import random_state, save_weights
from helpers_sweeps import draw_sweep, drawn
from test_demos import files, load_demo

from flux.models import configs
from flux.modules.autoencoder import AutoEncoder

FEW = ["--steps", "2", "--width", "32", "--height", "48"]
DEMOS = {
    "test": ("demo_0_test", [*FEW, "--prompts", "a red hat", "a boat", "--batch", "1"]),
    "layer": ("demo_1_layer", [*FEW, "--prompt", "a red hat", "--attention", "[0]"]),
    "skip": ("demo_2_skip", [*FEW, "--prompts", "a red hat", "a boat", "--layers", "[0, 6]", "--batch", "1"]),
    "edit": ("demo_4_edit", [*FEW, "--prompts", "a red boat", "a red hat", "the sea", "--batch", "1"]),
}
DAMAGE = {
    "test": ("picture-01-seed-0.png", "picture-02-seed-0.png"),
    "layer": ("noisy/step-02.png", "attention/double.0/step-01.png"),
    "skip": ("pictures/0000/skip-06.png", "pictures/0001/reference.png"),
    "edit": ("edit-01.png", "plain-02.png"),
}
"""By demo, a picture to be cut short and one to be deleted."""

SHOWN = {
    *("index.html", "sheet.png", "filmstrip.png", "animation.webp", "attention.png"),
    *("difference-01.png", "difference-02.png", "run.json", "cells.csv"),
}
"""What is drawn again from pictures whenever anything is mended, and what lists them."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return save_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def whole(clone, tmp_path_factory) -> dict[str, Path]:
    """A finished run of each demo, not to be changed."""
    root = tmp_path_factory.mktemp("whole")
    for name in DEMOS:
        assert main(name, clone, root / name) == 0
    return {name: root / name for name in DEMOS}


def main(name: str, clone: Path, output: Path, *more: str) -> int:
    script, argv = DEMOS[name]
    return load_demo(script).main([*argv, "--model.weights", str(clone), "--output", str(output), *more])


def contents(folder: Path) -> dict[str, bytes]:
    passing = ("run.json", "cells.csv")
    return {name: (folder / name).read_bytes() for name in files(folder) if name not in passing}


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


@pytest.mark.parametrize("name", DEMOS)
def test_damaged_pictures_are_made_again(name, clone, whole, tmp_path, capsys):
    folder, (short, gone) = tmp_path / "run", DAMAGE[name]
    shutil.copytree(whole[name], folder)
    (folder / short).write_bytes((folder / short).read_bytes()[:99])
    (folder / gone).unlink()
    (folder / "index.html").write_text("<p>half a pa")
    before = times(folder)
    assert main(name, clone, folder) == 0
    assert contents(folder) == contents(whole[name])
    touched = {each for each, at in times(folder).items() if before.get(each) != at}
    assert {short, gone, "index.html"} <= touched <= {short, gone} | SHOWN
    assert "made already" not in capsys.readouterr().out
    assert main(name, clone, folder) == 0 and "made already" in capsys.readouterr().out
    old, new = (json.loads((each / "run.json").read_text()) for each in (whole[name], folder))
    assert old["made"] == new["made"] and new["finished"]
    if name != "skip":  # what a run took is what it took to make it
        assert old["seconds"] == new["seconds"]


@pytest.mark.parametrize("name", DEMOS)
def test_a_page_is_made_again_without_a_model(name, clone, whole, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(whole[name], folder)
    (folder / "index.html").unlink()
    (folder / ("filmstrip.png" if name == "layer" else "sheet.png")).write_bytes(b"")
    monkeypatch.setattr(
        "flux.studies.run.load_models", lambda *args, **options: pytest.fail("loaded a model")
    )
    assert main(name, clone, folder, "--dry-run") == 0
    if name != "skip":
        assert "gone or damaged, to be made again: " in capsys.readouterr().out
    assert main(name, clone, folder) == 0
    assert contents(folder) == contents(whole[name])
    assert "gone or damaged, to be made again: " in capsys.readouterr().out


def test_pictures_are_not_mixed_with_those_of_another_setting(clone, whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole["edit"], folder)
    record = json.loads((folder / "run.json").read_text())
    record["setting"]["device"] = "cuda"
    (folder / "run.json").write_text(json.dumps(record))
    assert main("edit", clone, folder) == 0 and "made already" in capsys.readouterr().out
    (folder / "edit-01.png").unlink()
    before = contents(folder)
    assert main("edit", clone, folder) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and 'device was "cuda" and is "cpu"' in err and "edit-01.png is gone" in err
    assert contents(folder) == before
    assert main("edit", clone, folder, "--overwrite") == 0
    assert contents(folder) == contents(whole["edit"])


@pytest.mark.parametrize("name", DEMOS)
def test_overwriting_leaves_what_is_the_users(name, clone, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[name], folder)
    (folder / "mine").mkdir()
    for mine in ("my-notes.png", "mine/keep.png"):
        (folder / mine).write_text("mine")
    assert main(name, clone, folder, "--overwrite") == 0
    mine = {"my-notes.png": b"mine", "mine/keep.png": b"mine"}
    assert contents(folder) == {**contents(whole[name]), **mine}


def test_a_table_that_is_a_folder_is_one_line_before_the_work(clone, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "flux.studies.run.load_models", lambda *args, **options: pytest.fail("loaded a model")
    )
    assert main("skip", clone, tmp_path / "run", "--dry-run") == 0
    from flux.studies.sweep import place

    sound = place.RunFolder.open

    def opened(folder, *args, **options):
        run = sound(folder, *args, **options)
        (folder / "cells.csv").mkdir()
        return run

    monkeypatch.setattr(place.RunFolder, "open", opened)
    assert main("skip", clone, tmp_path / "run") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "cells.csv is no table of a sweep: move it away" in err


# Demo 3


@pytest.fixture
def similarity(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(clone / "dino"), "--device", "cpu", "--output", "run"]
    return lambda *argv: load_demo("demo_3_dino").main([*argv, *model])


@pytest.mark.parametrize("what", ["sweep", "pictures", "ranking"])
def test_demo_3_mends_too(what, similarity, tmp_path, capsys):
    if what == "sweep":
        draw_sweep(tmp_path / "s")
        argv, broken = ["--sweep", "s"], ("layers.csv", "importance.png", "index.html")
    else:
        for number in range(3):
            drawn(number).save(tmp_path / f"{number}.png")
        ranking = ["--picture", "0.png", "--against", "1.png", "2.png"]
        argv = ["--pictures", "0.png", "1.png"] if what == "pictures" else ranking
        broken = ("similarity.csv", "sheet.png", "index.html")
    assert similarity(*argv) == 0
    before = contents(tmp_path / "run")
    (tmp_path / "run" / broken[0]).write_bytes(before[broken[0]][:9])
    for name in broken[1:]:
        (tmp_path / "run" / name).unlink()
    capsys.readouterr()
    assert similarity(*argv) == 0
    out = capsys.readouterr().out
    assert f"gone or damaged, to be made again: {', '.join(sorted(broken))}" in out or "made again: " in out
    assert contents(tmp_path / "run") == before
    assert similarity(*argv) == 0 and "made already" in capsys.readouterr().out


def test_a_sweep_that_cannot_be_written_to_is_compared(similarity, tmp_path, capsys):
    """Reading needs no lock: what is found about its pictures is not kept, which is said."""
    from helpers_faults import READ_ONLY, faults

    draw_sweep(tmp_path / "s")
    with faults(tmp_path / "s", READ_ONLY, 0) as found:
        assert similarity("--sweep", "s") == 0
    assert "not written, so it is computed again next time (Read-only file system)" in capsys.readouterr().out
    assert not [call for call in found.calls if "lock" in call]


@pytest.mark.parametrize(
    "name", ["é" * 120 + "abcdef.png", "two\nlines\tand a \x1b[31m tab.png", "a" * 250 + ".png"]
)
def test_pictures_with_names_of_any_kind(name, similarity, tmp_path):
    (tmp_path / "many").mkdir()
    drawn(0).save(tmp_path / "many" / name, format="PNG")
    drawn(1).save(tmp_path / "many" / "b.png")
    assert similarity("--pictures", "many") == 0
    made = [path.name for path in (tmp_path / "run" / "pictures").iterdir()]
    assert len(made) == 2 and all(len(each.encode()) < 120 and each.isprintable() for each in made)


def test_weights_written_again_are_the_same_model(clone, tmp_path, capsys):
    """Sizes and contents decide, not when a file was written: what was made of the old ones is mended."""
    weights, run = Path(shutil.copytree(clone, tmp_path / "weights")), tmp_path / "run"
    assert main("test", weights, run) == 0
    before = contents(run)
    for file in weights.rglob("*.safetensors"):
        os.utime(file, (1, 1))
    (run / "picture-01-seed-0.png").unlink()
    assert main("test", weights, run) == 0
    assert contents(run) == before
    capsys.readouterr()
    other = random_state(AutoEncoder, configs["flux-tiny"].ae_params, seed=1)
    save_weights(weights / "ae.safetensors", other)
    (run / "picture-01-seed-0.png").unlink()
    assert main("test", weights, run) == 2
    assert "cannot be made again as it was" in capsys.readouterr().err


def test_a_name_that_is_taken_is_said_before_anything_is_loaded(clone, whole, tmp_path, capsys):
    run = Path(shutil.copytree(whole["test"], tmp_path / "run"))
    mine = tmp_path / "mine.png"
    (run / "picture-01-seed-0.png").rename(mine)
    (run / "picture-01-seed-0.png").symlink_to(mine)
    mine.write_bytes(b"changed")
    assert main("test", clone, run) == 2
    out, err = capsys.readouterr()
    assert "is not of this run: move it away" in err and "loaded in" not in out
    assert mine.read_bytes() == b"changed"
