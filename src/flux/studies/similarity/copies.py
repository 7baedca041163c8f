"""Small copies of pictures, for pages and sheets."""

from pathlib import Path

from PIL import Image

from flux.pictures.opening import open_picture


def small_copy(path: Path, side: int = 320) -> Image.Image:
    """The picture, shrunk where a side is longer. Raises PictureError."""
    copy = open_picture(path)
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy
