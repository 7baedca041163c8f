"""What the tab Edit asks for and is filled with, without a browser."""

import pytest
from PIL import Image

pytest.importorskip("gradio")
import gradio as gr  # noqa: E402

from flux.app.tab_edit import EditTab  # noqa: E402

EDIT = {"source": "a big red house", "edits": ["a big blue house"]}


@pytest.fixture(scope="module")
def tab(desk):
    with gr.Blocks():
        return EditTab(desk)


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
