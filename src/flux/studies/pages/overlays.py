"""Maps laid over a picture: one large, or a table of them with a row per layer and a column per step."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from flux.pictures.rgb import rgb
from flux.studies.pages.sheets import (
    INK,
    PAPER,
    QUIET,
    TEXT_SIZE,
    cell_width,
    draw_lines,
    heat,
    scaled,
)

CELL, GAP, LABEL = 128, 4, 150
"""Pixels of an overlay's width in a table, between two, and of the names at its left."""

MARKS = ("#22d3ee", "#0e1116")
"""Colours of what is marked in a picture, and of the line around it."""


def overlay(picture: Image.Image, values: np.ndarray, largest: float) -> Image.Image:
    """A picture in grey with a map over it, from 0 (dark) to `largest` (bright).

    values: (h, w), one per token of the picture.
    """
    size = picture.size
    grey = ImageOps.grayscale(rgb(picture)).convert("RGB")
    colours = heat(values, largest).resize(size, Image.Resampling.NEAREST)
    return Image.blend(grey, colours, 0.65)


def overlay_table(
    pictures: Sequence[Image.Image],
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
) -> Image.Image:
    """Overlays of maps (rows, columns, h, w): all of a row are in the colours of the row's largest value.

    pictures: what lies below, one for each row. rows, columns: what stands beside and above them.
    """
    width, height = CELL, max(1, round(CELL * pictures[0].height / pictures[0].width))
    top = round(1.8 * TEXT_SIZE)
    across, down = len(columns) * (width + GAP), len(rows) * (height + GAP)
    sheet = Image.new("RGB", (LABEL + across, top + down), PAPER)
    for column, text in enumerate(columns):
        draw_lines(sheet, (LABEL + column * (width + GAP), 4), [text], QUIET)
    for row, text in enumerate(rows):
        y, largest = top + row * (height + GAP), float(values[row].max())
        draw_lines(sheet, (0, y + 4), text.splitlines(), INK)
        small = scaled(pictures[row], width, height)
        for column in range(len(columns)):
            x = LABEL + column * (width + GAP)
            sheet.paste(overlay(small, values[row, column], largest), (x, y))
    return sheet


def with_places(
    picture: Image.Image, points: Sequence[tuple[int, int]], box: Sequence[int] | None
) -> Image.Image:
    """A picture with points, numbered from 1, and a box marked in it; small ones are enlarged."""
    factor = max(1, cell_width(picture.width) // picture.width)
    large = scaled(picture, picture.width * factor, picture.height * factor)
    draw, thick = ImageDraw.Draw(large), max(2, large.width // 200)
    for colour, out, line in ((MARKS[1], thick // 2, 2 * thick), (MARKS[0], 0, thick)):
        if box is not None:
            left, top, right, bottom = (factor * side for side in box)
            draw.rectangle((left - out, top - out, right - 1 + out, bottom - 1 + out), None, colour, line)
    for number, (x, y) in enumerate(points, start=1):
        x, y, r = factor * x + factor // 2, factor * y + factor // 2, 5 * thick // 2
        draw.ellipse((x - r, y - r, x + r, y + r), MARKS[0], MARKS[1], thick)
        font = ImageFont.load_default(8 * thick + 4)
        place = (x + r + 2 * thick, y)
        draw.text(place, str(number), MARKS[0], font, "lm", stroke_width=thick, stroke_fill=MARKS[1])
    return large
