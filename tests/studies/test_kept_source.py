"""Demo 4 with a source that is kept: the same pictures for fewer rows, in a run, a scan and a resumed run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_demos import assert_whole_run, load_demo, pictures

from flux.studies.edit.keeping import held_bytes
from flux.studies.edit.making import describe
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec

FEW = ["--steps", "2", "--width", "48", "--height", "32", "--checks.dino", "off"]
EDITS = ("a blue hat", "a boat", {"prompt": "a sea", "layers": [2]})


@pytest.fixture
def edit(clone, tmp_path, monkeypatch):
    """`edit("a", "--steps", "2")` runs demo 4 into a folder and returns it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.json").write_text("{}")

    def run(name: str, *argv: str, edits=EDITS) -> Path:
        own = ["--output", name, "--model.weights", str(clone), "--source", "a red hat"]
        argv = ["none.json", *FEW, "--edits", json.dumps(edits), *argv, *own]
        assert load_demo("demo_4_edit").main(argv) == 0
        return tmp_path / name

    return run


def made(folder: Path) -> dict[str, np.ndarray]:
    files = [file for file in folder.rglob("*.png") if file.name.startswith(("source", "edit", "plain"))]
    return {str(file.relative_to(folder)): np.asarray(Image.open(file)).astype(int) for file in files}


def assert_alike(one: Path, other: Path) -> None:
    theirs = made(other)
    assert made(one).keys() == theirs.keys()
    for name, picture in made(one).items():
        assert np.abs(picture - theirs[name]).max() <= 1, name


WATCHED = ("--watch", '{"points": [[8, 8]]}', "--true_cfg", "2", "--negative_prompt", "a sea")


@pytest.mark.parametrize("more", [(), WATCHED])
def test_the_same_pictures_and_a_note_in_the_record(edit, rows, more):
    more = ("--batch", "1", "--compare", "false", "--paste", "auto", *more)
    beside = edit("beside", *more)
    taken = sum(rows)
    rows.clear()
    kept = edit("kept", "--kept_source", "auto", *more)
    record = assert_whole_run(kept)
    assert record["kept_source"]["place"] == "device" and record["kept_source"]["bytes"] > 0
    assert_alike(kept, beside)
    # The source once for three edits, in the place of three times; and once more for the noise floor.
    of_row = 2 * (2 if "--true_cfg" in more else 1)
    assert (taken, sum(rows)) == (7 * of_row, 5 * of_row)
    assert "kept_source" not in json.loads((beside / "spec.json").read_text())


def test_a_run_goes_on_to_the_same_bytes(edit):
    more = ("--batch", "1", "--kept_source", "host")
    whole = edit("whole", *more)
    begun = edit("begun", *more)
    for name in ("edit-02.png", "edit-03.png", "mask-03.png"):
        (begun / name).unlink()
    assert edit("begun", *more) == begun
    assert pictures(begun) == pictures(whole)


def test_cells_of_a_scan_share_their_source(edit, rows):
    grid = json.dumps({"strength": [0.5, 1], "layers": [[0], [3, 5]]})
    more = ("--compare", "false", "--scan", grid)
    beside = edit("beside", *more, edits=EDITS[:1])
    rows.clear()
    kept = edit("kept", "--kept_source", "device", *more, edits=EDITS[:1])
    assert_whole_run(kept)
    assert_alike(kept, beside)
    assert sum(rows) == 2 * (1 + 4 * 2)  # steps; the source, and of each cell its edit and a repetition
    own = ("--layers", "[3, 5]", "--strength", "0.5")
    alone = edit("alone", "--kept_source", "device", *more[:2], *own, edits=EDITS[:1])
    own, cell = pictures(alone), pictures(kept / "cells" / "03")
    assert all(cell[name] == own[name] for name in ("source.png", "edit-01.png", "mask-01.png"))


def spec_of(**changes) -> EditSpec:
    return load_spec(EditSpec, None, {"source": "a red hat", "edits": ["a boat"], **changes})


def test_a_dry_run_says_how_much_is_kept(clone):
    assert "keys and values are kept" not in describe(spec_of())
    told = describe(spec_of(kept_source="host", model={"name": "flux-tiny", "weights": str(clone)}))
    # 16 steps, two layers, 64 tokens of 192 channels, keys and values, of 2 bytes.
    assert "the source's keys and values are kept on the host: 2 MB" in told


@pytest.mark.parametrize(
    "changes",
    [
        {"outside": [0]},
        {"strength": "linear"},
        {"roles": [{"layers": [0]}, {"layers": [1], "what": "keys"}]},
        {"roles": [{"layers": [0], "side": "inside"}]},
        {"edits": [{"prompt": "a boat", "roles": [{"layers": [0], "strength": [0, 1]}]}], "steps": 2},
    ],
)
def test_what_stands_beside_its_source_keeps_none(changes):
    with pytest.raises(SpecError, match="is for edits beside their source, and one that is kept stands"):
        spec_of(kept_source="auto", **changes)


def test_one_role_and_no_layers_outside_are_kept():
    for changes in ({"roles": [{"layers": [0], "what": "keys"}]}, {"outside": []}):
        assert held_bytes(spec_of(kept_source="device", **changes)) > 0


@pytest.mark.parametrize("changes", [{"method": "flowedit"}, {"chain": True}, {"source": {"image": "x.png"}}])
def test_where_each_edit_has_a_source_of_its_own_it_is_refused(changes, tmp_path):
    if "source" in changes:
        Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
        changes = {"source": {"prompt": "a red hat", "image": str(tmp_path / "x.png")}}
    with pytest.raises(SpecError, match="kept_source = .auto.: is for edits side by side"):
        spec_of(kept_source="auto", **changes)
