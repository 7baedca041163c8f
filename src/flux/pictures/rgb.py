"""Any picture as 8-bit RGB, as a viewer shows it."""

import numpy as np
from PIL import ExifTags, Image, ImageOps

DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Modes of one channel with more than 8 bits."""

WHITES = (1.0, 255.0, 65535.0)
"""The usual values of white: of shares and masks, of 8 and of 16 bits."""

PART = 2**24
"""So many values are scaled at once."""


def rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, turned upright as its EXIF says, what is transparent laid on white.

    A channel of 16 or 32 bits or of floats is scaled: white is the first of 1, 255 and 65535 that no value
    exceeds, else the largest value. So a picture that has anything to show is never black. CMYK, palettes and
    other colour spaces are converted by Pillow, without colour profiles. Of an animation it is the frame the
    picture stands at, which is the first one after opening. Raises ValueError for colours that Pillow cannot
    convert, and what Pillow raises for a file that cannot be read to its end.
    """
    image.load()
    image = _upright(image)
    if image.mode in DEEP:
        return _to_8_bits(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; as it is stored where there is none, or one that is damaged."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # damaged fields fail in many ways, none of which concerns the pixels
        return image


def _to_8_bits(levels: np.ndarray) -> Image.Image:
    """One channel (H, W) as a grey picture."""
    largest = float(levels.max(initial=0, where=np.isfinite(levels)))
    white = next((value for value in WHITES if largest <= value), largest)
    # In parts, since in double precision a large picture takes gigabytes.
    parts = [_scaled(part, white) for part in np.array_split(levels, max(1, levels.size // PART))]
    return Image.fromarray(np.concatenate(parts)).convert("RGB")


def _scaled(levels: np.ndarray, white: float) -> np.ndarray:
    """Levels of 8 bits. Shares are rounded; whole levels are cut, as 257 of 16 bits are one of 8."""
    levels = np.nan_to_num(levels.astype(np.float64), nan=0.0, posinf=white, neginf=0.0).clip(0, white)
    return (levels * (255 / white) + (0.5 if white <= 1 else 0)).astype(np.uint8)
