"""Which runs are found in an output folder, whatever else lies there."""

import os

import pytest
from PIL import Image

from flux.app.runs import list_runs


def run(root, name, record='{"spec": {"prompts": ["a cat"]}}'):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(record)
    return folder


def test_the_newest_run_is_the_first(tmp_path):
    for when, name in enumerate(("b", "deep/a", "c")):
        os.utime(run(tmp_path, name) / "run.json", (when, when))
    assert [(each.place, each.kind, each.title) for each in list_runs(tmp_path)] == [
        ("c", "test", "a cat"),
        ("deep/a", "test", "a cat"),
        ("b", "test", "a cat"),
    ]


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        '{"spec": []}',
        '{"spec": {"prompts": [{}]}}',
        '{"spec": {"source": {"prompt": 5}, "edits": [5]}}',
    ],
)
def test_a_record_that_is_none_is_listed_by_its_folder(tmp_path, record):
    run(tmp_path, "torn", record)
    assert [each.title for each in list_runs(tmp_path)] == ["torn"]


def test_a_run_that_is_taken_away_meanwhile_is_left_out(tmp_path):
    run(tmp_path, "there")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "run.json").symlink_to(tmp_path / "nowhere")
    assert [each.place for each in list_runs(tmp_path)] == ["there"]


def test_no_picture_from_elsewhere_stands_for_a_run(tmp_path):
    folder = run(tmp_path / "output", "a")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (folder / "picture.png").symlink_to(tmp_path / "secret.png")
    assert list_runs(tmp_path / "output")[0].picture is None
    Image.new("RGB", (8, 8)).save(folder / "sheet.png")
    assert list_runs(tmp_path / "output")[0].picture == folder / "sheet.png"
