"""Fields that several tabs have, each in the bounds of the model and of the page's caps."""

import gradio as gr

from flux.app.options import JobCaps
from flux.models import ModelSpec


def photo_field(label: str, elem_id: str) -> gr.File:
    types = [".png", ".jpg", ".jpeg", ".webp"]
    return gr.File(label=label, file_types=types, height=92, elem_id=elem_id, elem_classes="photo")


def steps_field(record: ModelSpec, caps: JobCaps, elem_id: str) -> gr.Slider:
    return gr.Slider(
        *(1, min(100, caps.steps), min(record.num_steps, caps.steps)),
        step=1,
        label="Steps",
        min_width=160,
        elem_id=elem_id,
    )


def guidance_field(record: ModelSpec, info: str | None = None) -> gr.Slider:
    """Hidden where the model has no guidance."""
    return gr.Slider(
        *(0, 10, record.guidance or 0),
        step=0.1,
        label="Guidance",
        info=info,
        min_width=160,
        visible=record.guidance is not None,
    )


def size_fields(record: ModelSpec, caps: JobCaps) -> tuple[gr.Slider, gr.Slider]:
    """Width and height, at most what the cap on pixels leaves to a strip of 16."""
    most = min(2048, caps.pixels // 16)
    size = min(record.size, most)
    width, height = (
        gr.Slider(16, most, size, step=16, label=label, min_width=160) for label in ("Width", "Height")
    )
    return width, height


def more_field(kind: str) -> gr.Textbox:
    """For what of a spec has no field."""
    return gr.Textbox(
        "",
        label="More keys",
        info="of the spec, as a JSON object; they win over the fields",
        placeholder='{"batch": 1}',
        lines=2,
        max_lines=12,
        elem_id=f"{kind}-more",
        elem_classes="code",
    )
