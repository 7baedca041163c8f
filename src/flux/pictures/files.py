"""Pictures to files: watermark, NSFW check, JPEG and its EXIF fields."""

import re
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from torch import Tensor

from flux.files import unwritable, write_atomically, write_new
from flux.models import configs
from flux.pictures.safety import NSFW_THRESHOLD, Classifier, is_nsfw
from flux.pictures.usage import track_usage_via_api
from flux.pictures.watermark import embed_watermark

MAX_DESCRIPTION = 32 * 1024  # bytes; a JPEG has room for 64 KiB of EXIF


def save_image(
    nsfw_classifier: Classifier | None,
    name: str,
    output_name: str,
    idx: int,
    x: Tensor,
    add_sampling_metadata: bool,
    prompt: str | Sequence[str],
    nsfw_threshold: float = NSFW_THRESHOLD,
    track_usage: bool = False,
    *,
    replace: bool = True,
) -> int:
    """Mark, check and save pictures, each whole or not at all; returns the next free index.

    nsfw_classifier: see `flux.pictures.safety`; None for no check. What fails it is not saved,
        which is printed.
    output_name: the file's name with `{idx}` in it; its folder is made. idx: the index of the first picture.
    x: RGB in [-1, 1], (3, H, W) or (B, 3, H, W).
    prompt: one, or one per picture, each written into its own file; none is, without add_sampling_metadata.
    track_usage: say that how many were saved is not reported, see `flux.pictures.usage`.
    replace: whether a file that has a picture's index is replaced; if not, the next free index is taken, also
        where several processes save into one folder.
    Raises OSError, one line, where a file cannot be written, and ValueError if there are neither one prompt
    nor as many as pictures.
    """
    pictures = x.reshape(-1, *x.shape[-3:])
    prompts = [prompt] * len(pictures) if isinstance(prompt, str) else list(prompt)
    if len(prompts) != len(pictures):
        raise ValueError(f"{len(prompts)} prompts for {len(pictures)} pictures: give one, or one for each")
    saved = 0
    for picture, text in zip(embed_watermark(pictures.float()), prompts, strict=True):
        image = to_pil(picture)
        if nsfw_classifier is not None and is_nsfw(nsfw_classifier, image, nsfw_threshold):
            print("a picture may hold NSFW content and was not saved: try another prompt or seed")
            continue
        exif = exif_of(name, text if add_sampling_metadata else None)
        idx = 1 + _save(image, output_name, idx, replace, exif=exif, quality=95, subsampling=0)
        saved += 1
    if track_usage and saved:
        track_usage_via_api(name, saved)
    return idx


def _save(image: Image.Image, output_name: str, idx: int, replace: bool, **options: Any) -> int:
    """Write a picture under its index, or the next free one; returns the one it has."""

    def place(number: int) -> Path:
        return Path(output_name.format(idx=number))

    path = place(idx)
    Image.init()
    if path.suffix.lower() not in Image.EXTENSION:
        raise ValueError(f"{path}: a picture's name ends with .jpg, .png or the like")
    write = partial(image.save, format=Image.EXTENSION[path.suffix.lower()], **options)
    try:
        if replace:
            write_atomically(path, write)
            return idx
        numbers = count(idx)
        write_new(map(place, numbers), write)
        return next(numbers) - 1  # the last one that was tried
    except OSError as error:
        raise unwritable(path, error) from error


def to_pil(x: Tensor) -> Image.Image:
    """An 8-bit picture of RGB in [-1, 1], (3, H, W); values outside are clamped."""
    levels = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round()
    return Image.fromarray(levels.byte().permute(1, 2, 0).contiguous().cpu().numpy())


def exif_of(name: str, prompt: str | None) -> Image.Exif:
    """The EXIF fields of a picture by the model `name`; without a prompt the description is left out."""
    task = configs[name].task if name in configs else "txt2img"
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = f"AI generated;{task};flux"
    exif[ExifTags.Base.Make] = "Black Forest Labs"
    exif[ExifTags.Base.Model] = name
    if prompt is not None:
        # As bytes, since Pillow writes text as ASCII and would make ? of every other character.
        description = prompt.encode("utf-8")[:MAX_DESCRIPTION]
        exif[ExifTags.Base.ImageDescription] = description.decode("utf-8", "ignore").encode("utf-8")
    return exif


def next_index(output_dir: str | Path) -> int:
    """One more than the highest number among a folder's files `img_<number>.jpg`; 0 if there are none."""
    names = (re.fullmatch(r"img_(\d+)\.jpg", path.name) for path in Path(output_dir).glob("img_*.jpg"))
    return max((int(name[1]) + 1 for name in names if name), default=0)
