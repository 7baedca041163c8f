"""Colours and letters of the page; those of the system, so that none is fetched."""

import gradio as gr
from gradio.themes.utils import colors, sizes


def theme() -> gr.themes.Base:
    """A quiet page, in which pictures have the colours; it follows the system into the dark."""
    system = [
        gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
    ]
    fixed = [gr.themes.Font(name) for name in ("ui-monospace", "Menlo", "Consolas", "monospace")]
    return gr.themes.Base(
        primary_hue=colors.indigo,
        neutral_hue=colors.slate,
        font=system,
        font_mono=fixed,
        radius_size=sizes.radius_md,
        spacing_size=sizes.spacing_md,
        text_size=sizes.text_md,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_border_width="0px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
    )
