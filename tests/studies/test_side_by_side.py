"""Demo 4 without a method: masks, given and found, roles by them, operators, schedules, fades; chains too."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_demos import assert_whole_run, load_demo, pictures

from flux.methods.masks import unpacked
from flux.studies.edit.chain import work as work_of_chain
from flux.studies.edit.jobs import check
from flux.studies.edit.run import work
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import load_spec

FEW = ["--steps", "3", "--width", "48", "--height", "32", "--checks.dino", "off", "--compare", "false"]
BOX = [0, 0, 24, 32]
MORE = {
    "outside": "all",
    "strength": "cosine",
    "operators": ["perpendicular", {"name": "blend", "share": 0.1}],
    "schedules": {"source": "exponential", "edit": "vags"},
}


@pytest.fixture
def made(clone, tmp_path, monkeypatch):
    """`made("name", **keys)` makes the run of a spec with these keys, and returns its folder."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, *argv: str, **keys):
        whole = {"source": "a dog", "edits": ["a red cat"], **keys}
        (tmp_path / f"{name}.json").write_text(json.dumps(whole))
        argv = [f"{name}.json", *FEW, *argv, "--model.weights", str(clone)]
        assert load_demo("demo_4_edit").main(argv) == 0
        return tmp_path / "output/edit" / name

    return make


def levels(folder, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{name}.png")).astype(int)


def test_inside_a_mask_that_is_given_an_edit_changes_its_source(made):
    edits = ["a red cat", {"prompt": "a boat", "mask": {"where": [24, 0, 48, 32]}}]
    folder = made("given", mask=BOX, edits=edits, **MORE)
    record = assert_whole_run(folder)
    page = (folder / "index.html").read_text()
    assert "mask: white may change" in page and "mask: where it changed" not in page
    source, left, right = (levels(folder, name) for name in ("source", "edit-01", "edit-02"))
    assert (source[:, 32:] == left[:, 32:]).all() and (source[:, :16] == right[:, :16]).all()
    assert [each["mask"] for each in record["edits"]] == pytest.approx([0.5, 0.5], abs=0.01)
    assert all(each["pasted"] for each in record["edits"])
    # As the model draws it: random weights change too little to be pasted.
    drawn = made("drawn", mask=BOX, edits=edits, paste=False, **MORE)
    left, right = levels(drawn, "edit-01"), levels(drawn, "edit-02")
    assert (source[:, :16] != left[:, :16]).any() and (source[:, 32:] != right[:, 32:]).any()
    plain = made("plain", edits=["a red cat", "a boat"], paste=False, layers=[])
    changes = [np.abs(levels(folder, "edit-01") - source).mean() for folder in (drawn, plain)]
    assert 0 < changes[0] < changes[1]


@pytest.mark.parametrize("where", ["auto", "velocity", "words"])
def test_masks_are_found(made, where):
    settings = {"words": {"blur": 0.5}}.get(where, {"threshold": 0.3, "softness": 0.2})
    keys = {"mask": {"where": where, **settings, "feather": 4}, **MORE}
    folder = made("found", edits=["a red cat", {"prompt": "a boat", "seeds": [0, 3]}], batch=1, **keys)
    record = assert_whole_run(folder)
    assert len(record["edits"]) == 3
    before = pictures(folder)
    (folder / "edit-02-seed-3.png").unlink()
    made("found", edits=["a red cat", {"prompt": "a boat", "seeds": [0, 3]}], batch=1, **keys)
    assert pictures(folder) == before, "made again by the same mask"


def test_a_first_run_is_counted(tmp_path):
    def batches(**keys) -> list[int]:
        whole = {"source": "a dog", "edits": ["a red cat", "a boat"], "compare": False, **keys}
        return list(work(load_spec(EditSpec, None, whole)).batches)

    def links(**keys) -> list[int]:
        whole = {"source": "a dog", "edits": ["a red cat", "a boat"], "chain": True, **keys}
        return list(work_of_chain(load_spec(EditSpec, None, whole)).batches)

    plain = batches()
    assert batches(mask=BOX) == plain
    assert batches(mask="auto") == [*plain, 3] and batches(mask="words") == [*plain, 1]
    assert links() == links(mask="words") == [1, 2, 2]
    assert links(mask="auto") == [1, 2, 2, 2, 2]


def test_a_chain_takes_them_too(made):
    edits = [
        "a red cat",
        {"prompt": "a boat", "mask": "auto"},
        {"prompt": "a hat", "mask": "velocity", "after": 1},
    ]
    folder = made("chain", chain=True, mask=BOX, edits=edits, **MORE)
    assert_whole_run(folder)
    source, first = levels(folder, "source"), levels(folder, "edit-01")
    assert (source[:, 32:] == first[:, 32:]).all()
    ways = [load_file(folder / f"latents/{name}.safetensors")["latents"] for name in ("source", "edit-01")]
    size = (2, 3)
    source, first = (unpacked(way[-1:], size) for way in ways)
    assert torch.equal(source[..., 3:], first[..., 3:]) and not torch.equal(source[..., :3], first[..., :3])


def test_an_edit_in_no_layer_is_shown_beside_others(made):
    folder = made("none", strength="cosine", edits=["a red cat", {"prompt": "a boat", "layers": []}])
    assert "<dd>layers none</dd>" in (folder / "index.html").read_text()


def test_a_scan_goes_through_fades(made):
    folder = made("scan", scan={"strength": [0.25, "linear"]}, layers="all", paste=False)
    assert (levels(folder, "cells/01/edit-01") != levels(folder, "cells/02/edit-01")).any()


def test_a_mask_beyond_the_picture_is_refused_before_models_load():
    spec = load_spec(EditSpec, None, {"source": "a dog", "edits": ["a red cat"], "mask": [128, 0, 192, 64]})
    with pytest.raises(ValueError, match="lies outside a picture of 128 x 128 pixels: end it there"):
        check(spec)
