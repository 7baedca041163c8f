"""Sheets of pictures with captions, difference maps and heat maps."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flux.pictures.rgb import rgb

GAP, MARGIN, TEXT_SIZE = 12, 24, 15
SMALLEST, LARGEST = 192, 384
"""Pictures on a sheet are scaled to a width between these, in pixels."""

TALLEST = 4
"""A picture on a sheet is at most so many times as tall as its place is wide."""

MOST_LINES = 12
"""A title or a caption has so many lines at most."""

INK, QUIET, PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)

HEAT = np.array([(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)])
"""Colours from nothing to most; they are told apart in grey and by the colour-blind too."""


@dataclass(frozen=True)
class SheetCell:
    """A picture on a sheet, with a line or more of text below it."""

    image: Image.Image
    caption: str = ""


def contact_sheet(
    rows: Sequence[Sequence[SheetCell | None]], title: str = "", margin: int = MARGIN
) -> Image.Image:
    """Cells in rows, all scaled to one width, under a title. None leaves a place empty."""
    width = cell_width(max(cell.image.width for row in rows for cell in row if cell is not None))
    columns = max(len(row) for row in rows)
    total = 2 * margin + columns * width + (columns - 1) * GAP
    heading = _few(wrapped(title, total - 2 * margin, TEXT_SIZE + 3))
    blocks = [[cell and _block(cell, width) for cell in row] for row in rows]
    heights = [max(block.height for block in row if block is not None) for row in blocks]
    top = margin + _text_height(heading, TEXT_SIZE + 3)
    sheet = Image.new("RGB", (total, top + sum(heights) + GAP * (len(rows) - 1) + margin), PAPER)
    draw_lines(sheet, (margin, margin - 4), heading, INK, TEXT_SIZE + 3)
    for row, height in zip(blocks, heights, strict=True):
        for column, block in enumerate(row):
            if block is not None:
                sheet.paste(block, (margin + column * (width + GAP), top))
        top += height + GAP
    return sheet


def cell_width(width: int) -> int:
    """The width to show a picture at: small ones grow by a whole factor, large ones shrink."""
    return min(LARGEST, width * max(1, -(-SMALLEST // width)))


def _block(cell: SheetCell, width: int) -> Image.Image:
    """A picture at `width`, a very tall one narrower, with its caption below."""
    size = width, max(1, round(cell.image.height * width / cell.image.width))
    if size[1] > TALLEST * width:
        size = max(1, round(cell.image.width * TALLEST * width / cell.image.height)), TALLEST * width
    lines = _few(wrapped(cell.caption, width, TEXT_SIZE))
    block = Image.new("RGB", (width, size[1] + 4 + _text_height(lines, TEXT_SIZE)), PAPER)
    block.paste(scaled(cell.image, *size), (0, 0))
    draw_lines(block, (0, size[1] + 4), lines, QUIET, TEXT_SIZE)
    return block


def scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    """A copy of another size; enlarged by a whole factor, pixels stay square."""
    whole = width >= image.width and width % image.width == 0
    return rgb(image).resize((width, height), Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS)


def wrapped(text: str, width: int, size: int) -> list[str]:
    """The text in lines that fit into `width` pixels; a longer word is broken."""
    font = _font(size)
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            while font.getlength(longer) > width and (fits := _fitting(longer, width, font)) < len(longer):
                lines.append(longer[:fits])
                longer = longer[fits:]
            line = longer
        lines.append(line)
    return lines


def _fitting(word: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """How many letters of a word fit into `width` pixels, at least one."""
    return max(1, bisect_right(range(1, len(word) + 1), width, key=lambda end: font.getlength(word[:end])))


def _few(lines: list[str]) -> list[str]:
    """The first lines of a long text, which the page has whole."""
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][:-1] + "…"]


def _text_height(lines: Sequence[str], size: int) -> int:
    return round(len(lines) * size * 1.3) + (GAP // 2 if lines else 0)


def draw_lines(
    image: Image.Image,
    place: tuple[int, int],
    lines: Sequence[str],
    ink: tuple | str,
    size: int = TEXT_SIZE,
) -> None:
    """Lines of text below each other, from their top left corner."""
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((place[0], place[1] + round(i * size * 1.3)), line, fill=ink, font=_font(size))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that a sheet looks the same on every machine."""
    return ImageFont.load_default(size)


def heat(values: np.ndarray, largest: float) -> Image.Image:
    """Numbers (H, W) from 0 to `largest` as a picture, dark to bright."""
    share = np.clip(values / max(largest, 1e-12), 0, 1)
    places = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(share, places, HEAT[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def difference_map(levels: np.ndarray) -> Image.Image:
    """Differences (H, W) of 0 to 255 levels as a picture, small ones lifted by a square root."""
    return heat(np.sqrt(levels), np.sqrt(255.0))
