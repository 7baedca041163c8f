"""The tab Runs, without a browser."""

import os
from types import SimpleNamespace

import pytest
from PIL import Image

gr = pytest.importorskip("gradio")

from flux.app.tab_runs import RunsTab  # noqa: E402


def run(root, name, when, picture=True):
    (root / name).mkdir()
    (root / name / "run.json").write_text('{"spec": {"prompts": ["a cat"]}}')
    if picture:
        Image.new("RGB", (16, 16)).save(root / name / "picture.png")
    os.utime(root / name / "run.json", (when, when))


@pytest.fixture
def tab(tmp_path):
    with gr.Blocks() as page:
        with gr.Tab("Runs") as around:
            made = RunsTab(SimpleNamespace(root=tmp_path))
        made.connect(around, None, [])
    made.pick = next(each.fn for each in page.fns.values() if each.targets == [(made.wall._id, "select")])
    return made


def test_a_click_opens_the_run_that_stands_there(tab, tmp_path):
    run(tmp_path, "old", 1)
    run(tmp_path, "bare", 2, picture=False)
    run(tmp_path, "torn", 3)
    (tmp_path / "torn" / "picture.png").write_bytes(b"no picture")
    *_, walled = tab.look()
    run(tmp_path, "new", 4)
    place, report = tab.pick(walled, SimpleNamespace(index=0))
    assert place == "old" and "old has no report" in report
    assert tab.pick(walled, SimpleNamespace(index=1)) == [gr.skip(), gr.skip()]
