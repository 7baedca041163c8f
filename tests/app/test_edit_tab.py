"""What the tab Edit asks for and is filled with, without a browser."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
import gradio as gr  # noqa: E402

from flux.app.fields import SIDE_BY_SIDE  # noqa: E402
from flux.app.tab_edit import EditTab, source_alone  # noqa: E402
from flux.studies.folder import RECORD  # noqa: E402

EDIT = {"source": "a big red house", "edits": ["a big blue house"]}


@pytest.fixture(scope="module")
def tab(desk):
    with gr.Blocks():
        made = EditTab(desk)
        made.connect()
        return made


def heard(component, event):
    """What is called when a component tells of an event."""
    page = component
    while page.parent is not None:
        page = page.parent
    return next(each.fn for each in page.fns.values() if each.targets == [(component._id, event)])


def asked_again(tab, asked):
    """The spec of the fields that a spec fills, as the browser would send them."""
    *values, _, more = tab.filled(asked)
    return tab.desk.read("edit", tab.ask(*values, more))


def test_a_saved_mask_on_a_drawn_source_is_there_again(tab, desk):
    file = desk.uploads / "mask-of-a-test.png"
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(file)
    asked = desk.read("edit", EDIT | {"mask": str(file), "width": 64, "height": 64})
    assert asked_again(tab, asked).recipe == asked.recipe


@pytest.mark.parametrize(("method", "then"), [(SIDE_BY_SIDE, "gentle"), ("flowedit", gr.skip())])
def test_a_photo_leaves_the_method_that_was_chosen(tab, method, then):
    photo = Path(__file__).parents[2] / "json" / "photos" / "scene.png"
    assert heard(tab.file, "change")(str(photo), method)[5] == then


def test_a_click_on_one_of_many_sources_is_answered_in_one_line(tab, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "edit.png")
    edit = {"prompt": "a big blue house", "files": {"edit": "edit.png", "source": "edit.png"}}
    (tmp_path / RECORD).write_text(json.dumps({"edits": [edit]}), encoding="utf-8")
    recipe = {"sources": [{"prompt": "a big red house", "edit": "a big blue house"}]}
    click = SimpleNamespace(index=(3, 3))
    (said,) = heard(tab.point, "select")((str(tmp_path), recipe), 0, click, None)
    assert "sources: a click is for edits of one source" in said[tab.panel.status]


def test_nothing_of_an_earlier_run_stays_when_another_begins(tab, desk):
    *values, _, more = tab.filled(desk.read("edit", EDIT | {"steps": 1, "width": 64, "height": 64}))
    reader = SimpleNamespace(session_hash="a reader")
    try:
        begun = next(heard(tab.panel.go, "click")(reader, *values, more))
    finally:
        tab.panel.leave(reader)
    assert begun[tab.panel.saved] == begun[tab.panel.command] == begun[tab.panel.film] == ""
    assert not any(begun[each]["visible"] for each in (tab.panel.reading, tab.panel.text, tab.pictures))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"method": "gentle"},
        {"method": "fireflow", "steps": 4},
        {"method": "stable-flow", "integrator": "midpoint", "steps": 3},
        {"source": {"prompt": "a big red house", "prompt_2": "a red house"}, "steps": 2},
        {"negative_prompt": "snow", "true_cfg": 2.0, "steps": 2},
        {"method": "flowedit", "negative_prompt": "snow", "true_cfg": 2.0, "steps": 2},
    ],
)
def test_the_source_that_is_drawn_to_paint_on_is_the_one_that_is_edited(desk, tmp_path, more):
    spec = EDIT | {"source": {"prompt": EDIT["source"]}, "seed": 7, "width": 64, "height": 64} | more
    drawn, edited = (tmp_path / name for name in ("drawn", "edited"))
    alone = source_alone(spec, desk.record) | {"output": str(drawn)}
    whole = spec | {"output": str(edited), "checks": {"gate": False, "dino": "off"}}
    for demo, asked in (("demo_0_test", alone), ("demo_4_edit", whole)):
        (tmp_path / "spec.json").write_text(json.dumps(asked), encoding="utf-8")
        main = runpy.run_path(str(Path(__file__).parents[2] / "demos" / f"{demo}.py"))["main"]
        assert main([str(tmp_path / "spec.json")]) == 0
    (picture,) = drawn.glob("picture-*.png")
    levels = [np.asarray(Image.open(file), dtype=int) for file in (picture, edited / "source.png")]
    assert np.abs(levels[0] - levels[1]).max() <= 1  # as the batch is another


def test_a_photo_is_what_is_painted_on(tab):
    photo = str(Path(__file__).parents[2] / "json" / "photos" / "scene.png")
    values = [None, photo, *[None] * (len(tab.inputs) - 2)]
    (told,) = heard(tab.draw, "click")(None, *values)
    assert told[tab.canvas] == photo and told[tab.mask] == "painted"
