"""The brush that paints a mask over a picture, and what was painted as a mask's file."""

import hashlib
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from flux.files import write_atomically
from flux.pictures.opening import open_picture

LONGEST_SIDE = 1600
"""Pixels of what is painted on: of a phone's photo, all of them as a PNG would take a browser long to get."""


class Brush:
    """Gradio's editor, with one colour and without tools that would change the picture."""

    def __init__(self, name: str, about: str):
        gr.HTML(
            value=name,
            html_template=f"<p class='hint'>{about}.</p>",
            js_on_load=files("flux.app").joinpath("brush.js").read_text(encoding="utf-8"),
            padding=False,
        )
        self.editor = gr.ImageEditor(
            show_label=False,
            type="pil",
            image_mode="RGBA",
            sources=(),
            transforms=(),
            layers=False,
            format="png",
            brush=gr.Brush(colors=["rgba(255, 64, 96, 0.6)"], color_mode="fixed", default_size=24),
            height=360,
            buttons=[],
            elem_id=name,
            elem_classes="brush",
            visible=False,
        )

    @staticmethod
    def value(picture: str | Path) -> dict[str, Any]:
        """The editor's value: a picture with nothing painted on it, in small where it is large."""
        shown = open_picture(Path(picture))
        shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return {"background": shown, "layers": [], "composite": None}

    @staticmethod
    def showing(picture: str | Path) -> Any:
        """The editor with a picture."""
        return gr.ImageEditor(Brush.value(picture), visible=True)

    @staticmethod
    def empty() -> Any:
        """No editor, since there is nothing to paint on."""
        return gr.ImageEditor(None, visible=False)


PAINTED = 24
"""The alpha, of 255, from which on a pixel counts as painted."""


def mask_file(painted: dict[str, Any] | None, picture: str | Path, folder: Path) -> str | None:
    """What was painted as a mask of the picture's size, white inside, in a folder; None for nothing."""
    layers = (painted or {}).get("layers") or []
    alphas = [np.asarray(each.convert("RGBA").getchannel("A")) for each in layers if each is not None]
    if not alphas or not any((alpha >= PAINTED).any() for alpha in alphas):
        return None
    size = open_picture(Path(picture)).size
    inside = np.zeros((size[1], size[0]), dtype=bool)
    for alpha in alphas:
        own = Image.fromarray(np.where(alpha >= PAINTED, 255, 0).astype(np.uint8))
        inside |= np.asarray(own if own.size == size else own.resize(size, Image.Resampling.NEAREST)) > 0
    stream = io.BytesIO()
    Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).save(stream, format="PNG")
    data = stream.getvalue()
    file = folder / f"mask-{hashlib.sha256(data).hexdigest()[:32]}.png"
    if not file.is_file():
        write_atomically(file, data)
    return str(file)
