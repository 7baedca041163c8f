"""Any picture as 8-bit RGB, as a viewer shows it."""

import numpy as np
from PIL import Image

SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB: 16-bit levels scaled, what is transparent laid on white.

    Pillow's own conversion cuts 16-bit levels off at 255 and drops transparency.
    """
    if image.mode in SIXTEEN_BITS:
        levels = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
