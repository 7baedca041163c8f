"""Pictures to files: watermark, NSFW check, JPEG and its EXIF fields."""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image
from torch import Tensor

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
) -> int:
    """Mark, check and save pictures; returns the next free index.

    nsfw_classifier: see `flux.pictures.safety`; None for no check. What fails it is not saved,
        which is printed.
    output_name: the file's name with `{idx}` in it; its folder is made. idx: the index of the first picture.
    x: RGB in [-1, 1], (3, H, W) or (B, 3, H, W).
    prompt: one, or one per picture, each written into its own file; none is, without add_sampling_metadata.
    track_usage: report how many were saved, see `flux.pictures.usage`.
    Raises ValueError if there are neither one prompt nor as many as pictures.
    """
    pictures = x.reshape(-1, *x.shape[-3:])
    prompts = [prompt] * len(pictures) if isinstance(prompt, str) else list(prompt)
    if len(prompts) != len(pictures):
        raise ValueError(f"{len(prompts)} prompts for {len(pictures)} pictures: give one, or one for each")
    Path(output_name.format(idx=idx)).parent.mkdir(parents=True, exist_ok=True)
    first = idx
    for picture, text in zip(embed_watermark(pictures.float()), prompts, strict=True):
        image = to_pil(picture)
        if nsfw_classifier is not None and is_nsfw(nsfw_classifier, image, nsfw_threshold):
            print("a picture may hold NSFW content and was not saved: try another prompt or seed")
            continue
        exif = exif_of(name, text if add_sampling_metadata else None)
        image.save(output_name.format(idx=idx), exif=exif, quality=95, subsampling=0)
        idx += 1
    if track_usage and idx > first:
        track_usage_via_api(name, idx - first)
    return idx


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
