"""Small copies of pictures, for pages and sheets."""

from pathlib import Path

from PIL import Image

from flux.pictures.rgb import rgb


def small_copy(path: Path, side: int = 320) -> Image.Image:
    """The picture, shrunk where a side is longer."""
    with Image.open(path) as image:
        copy = rgb(image)
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy
