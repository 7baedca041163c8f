"""Picture files of any kind that Pillow opens, and in words why one cannot be opened. Imports no torch."""

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from flux.pictures.rgb import rgb

NOT_DRAWN = frozenset({"BUFR", "EPS", "FPX", "GRIB", "HDF5", "IPTC", "MIC", "MPEG", "WMF"})
"""What Pillow knows by its first bytes and cannot draw by itself; for EPS it would run another program."""

KINDS: Mapping[str, str] = {
    r"\s*<(!doctype html|html|head|body)": "it is a web page (HTML): download the picture itself",
    r"version https://git-lfs": "it is a pointer of Git LFS: get the picture with git lfs pull",
    r"(\s*<\?xml.*)?\s*<svg": "it is an SVG drawing: export it as PNG",
    r"....ftyp(heic|heix|heim|hevc|mif1|msf1)": "it is a HEIC photograph: save it as JPEG or PNG",
    r"....ftyp(?!avif|avis)": "it is a film: save a frame of it as PNG",
    r"%PDF": "it is a PDF: export the page as PNG",
    r"%!PS|\xc5\xd0\xd3\xc6": "it is an EPS drawing: export it as PNG",
    r"(II\*\x00|MM\x00\*)": "it is a TIFF of a layout that Pillow does not know: save it as PNG",
}
"""What files are that are no pictures to Pillow, by a pattern of their first bytes."""


class PictureError(ValueError):
    """A picture that cannot be opened. The message is one line, `<path>: <reason>`."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def open_picture(path: Path) -> Image.Image:
    """The picture in a file, read to its end, as `flux.pictures.rgb.rgb` makes it: 8-bit RGB, upright.

    Any format that Pillow opens counts, whatever the file's name ends in; of an animation the first frame.
    Raises PictureError, which says why in words, for everything else: no file, an empty or a damaged one, no
    picture, or one with more pixels than Pillow opens (`PIL.Image.MAX_IMAGE_PIXELS`, twice).
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise PictureError(path, "it is a folder" if path.is_dir() else "it is no file")
    # Pillow warns of what does not keep a picture from being read.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:  # reads no more than the header
                if image.format in NOT_DRAWN:
                    raise UnidentifiedImageError
                return rgb(image)
        # Some forty decoders read what comes from anywhere, and fail in as many ways.
        except Exception as error:
            raise PictureError(path, _reason(path, error)) from error


class Opened(Sequence[Image.Image]):
    """Pictures by their files, opened one at a time: a batch of large ones takes the memory of one."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Image.Image:
        return open_picture(self._paths[index])


# Made when first used: it imports all of Pillow's decoders.
@cache
def endings() -> frozenset[str]:
    """What the names of pictures end in, in lower case: `.png`, `.jfif`, ..."""
    Image.init()
    opened = set(Image.ID) - NOT_DRAWN
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in opened)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"(\d+) pixels", str(error))
        size = f"it has {int(pixels[1]) / 1e6:.0f} million pixels" if pixels else "it has too many pixels"
        most = f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million"
        return f"{size}, and Pillow opens {most} at most, as a small file can claim any number: shrink it"
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(path)
    if isinstance(error, MemoryError):
        return "there is not enough memory for it: shrink it"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or str(error)
    said = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in said.lower() or isinstance(error, EOFError):
        return "it is cut short: get the file again"
    return f"it is damaged, or of a kind that Pillow does not read ({said[:200]})"


def _what_it_is(path: Path) -> str:
    """Of a file that Pillow does not know, by its first bytes."""
    with open(path, "rb") as stream:
        head = stream.read(512)
    if not head:
        return "it is empty"
    text = head.decode("latin-1").removeprefix("\xef\xbb\xbf")
    kinds = (words for pattern, words in KINDS.items() if re.match(pattern, text, re.IGNORECASE | re.DOTALL))
    return next(kinds, "it is no picture of a kind that Pillow draws, or its beginning is damaged")
