"""Files that come from a browser: pictures and specs, looked at before anything is made of them."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from flux.files import write_atomically
from flux.pictures.opening import PictureError, open_picture
from flux.text_files import parse_json

KINDS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "MPO": ".jpg"}
"""What is taken, by Pillow's name, and how it is kept. MPO is a JPEG with more behind it, as phones make."""
MOST_MEGAPIXELS = 40
LONGEST_SPEC = 2**20


def take_picture(file: str | Path, folder: Path, most_mib: int) -> Path:
    """Keep an uploaded picture in a folder under its SHA-256, with the bytes it has; returns its path.

    Raises ValueError, one line, for a file that is too large, of another kind, or of too many pixels.
    """
    file = Path(file)
    size = file.stat().st_size
    if size > most_mib * 2**20:
        raise ValueError(
            f"{file.name}: has {size / 2**20:.0f} MiB, and {most_mib} are taken at most: shrink it"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:  # reads no more than the header
                kind, (width, height) = image.format, image.size
    except Exception:  # what it is instead is said below
        kind, width, height = None, 0, 0
    if kind is not None and kind not in KINDS:
        raise ValueError(f"{file.name}: is {kind}, and PNG, JPEG, WEBP are taken: save it as PNG")
    if width * height > MOST_MEGAPIXELS * 1e6:
        raise ValueError(
            f"{file.name}: has {width * height / 1e6:.0f} million pixels, and {MOST_MEGAPIXELS} are taken at "
            "most: shrink it"
        )
    try:
        open_picture(file)
    except PictureError as error:
        raise ValueError(f"{file.name}: {error.reason}") from None
    data = file.read_bytes()
    kept = folder / f"{hashlib.sha256(data).hexdigest()[:32]}{KINDS[kind]}"
    if not kept.is_file():
        write_atomically(kept, data)
    return kept


def take_spec(file: str | Path) -> dict[str, Any]:
    """The object in a dropped JSON file. Raises ValueError, one line."""
    file = Path(file)
    if file.stat().st_size > LONGEST_SPEC:
        raise ValueError(f"{file.name}: is longer than a spec may be, {LONGEST_SPEC // 2**20} MiB")
    try:
        value = parse_json(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{file.name}: cannot be read as UTF-8 text: save it as UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file.name}: must hold a JSON object, {{...}}; got {type(value).__name__}")
    return value
