"""A folder in the layout of PIE-Bench (arXiv 2310.01506) as a task set.

    FOLDER/mapping_file.json       by key: image_path, original_prompt, editing_prompt, editing_type_id, mask
    FOLDER/annotation_images/...   the pictures

A mask is a list of starts and lengths of runs of pixels, row by row, that an edit may change, at 512 x 512.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from editing_parts.catalogue import DEFAULT
from editing_parts.rows import Row, chosen
from editing_parts.tasks import TaskSet, decoded, encode_together, encoded
from flux.pictures.opening import open_picture
from flux.pictures.rgb import rgb
from flux.weights.load import Models

MAPPING, PICTURES = "mapping_file.json", "annotation_images"
MASK_SIDE = 512
PROMPTS = ("original_prompt", "editing_prompt")
KINDS = (
    "random",
    "change object",
    "add object",
    "delete object",
    "change content",
    "change pose",
    "change colour",
    "change material",
    "change background",
    "change style",
)
"""Kinds of edits by their `editing_type_id`."""


@dataclass(frozen=True)
class PieCase:
    """One edit of the folder. attribute: its kind. mask: runs of pixels, see `decode_mask`."""

    key: str
    attribute: str
    prompts: tuple[str, str]
    picture: Path
    mask: tuple[int, ...]
    seed: int = 0


def read_cases(folder: Path, count: int | None = None) -> list[PieCase]:
    """The first `count` edits of a folder, all without it; ValueError, in one line, for a damaged one."""
    file = folder / MAPPING
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {MAPPING}: name a folder in PIE-Bench's layout") from None
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{file} must hold edits by key")
    return [_case(folder, key, entry) for key, entry in list(entries.items())[:count]]


def _case(folder: Path, key: str, entry: dict) -> PieCase:
    place = f"{folder / MAPPING}: {key}"
    try:
        # Brackets mark the words that change.
        prompts = [entry[name].replace("[", "").replace("]", "") for name in PROMPTS]
        kind, mask = int(entry["editing_type_id"]), tuple(map(int, entry["mask"]))
        picture = folder / PICTURES / entry["image_path"]
    except KeyError as error:
        raise ValueError(f"{place} has no {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{place} cannot be read: {error}") from None
    if not 0 <= kind < len(KINDS):
        raise ValueError(f"{place}: editing_type_id is {kind}, and there are 0 to {len(KINDS) - 1}")
    return PieCase(key, KINDS[kind], (prompts[0], prompts[1]), picture, mask)


def decode_mask(runs: Sequence[int], side: int = MASK_SIDE) -> np.ndarray:
    """Runs as starts and lengths, row by row, to bool (side, side): True where the edit is.

    As in the benchmark the border counts as edited, since annotators missed it. ValueError for runs that are
    no pairs or begin outside.
    """
    starts, lengths = runs[::2], runs[1::2]
    if len(starts) != len(lengths) or any(not 0 <= start < side**2 for start in starts):
        raise ValueError(f"a mask must be pairs of a start, 0 to {side**2 - 1}, and a length")
    flat = np.zeros(side**2, dtype=bool)
    for start, length in zip(starts, lengths, strict=True):
        flat[start : start + max(0, length)] = True
    mask = flat.reshape(side, side)
    mask[[0, -1]] = mask[:, [0, -1]] = True
    return mask


def draw_folder(models: Models, cases: Sequence[PieCase], size: int, batch: int) -> TaskSet:
    """The folder's pictures at size x size pixels, ready for editing; PictureError where one is none."""
    photos = np.stack([_photo(case.picture, size) for case in cases])
    masks = np.stack([_mask(case, size) for case in cases])
    texts = encode_together(models, dict.fromkeys([p for case in cases for p in case.prompts] + [""]))
    clean = encoded(models, photos, batch)
    rebuilt = decoded(models, clean, (size, size), batch)
    return TaskSet(tuple(cases), texts, photos, clean, rebuilt, None, masks, batch)


def _photo(file: Path, size: int) -> np.ndarray:
    picture = rgb(open_picture(file))
    return np.asarray(
        picture.resize((size, size), Image.Resampling.LANCZOS) if picture.size != (size, size) else picture
    )


def _mask(case: PieCase, size: int) -> np.ndarray:
    try:
        mask = Image.fromarray(decode_mask(case.mask))
    except ValueError as error:
        raise ValueError(f"{case.key}: {error}") from None
    return np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))


def rows_for(rows: Sequence[Row], names: Sequence[str] | None) -> list[Row]:
    """The rows that a folder can be edited by, which has masks and no right answers."""
    able = [row for row in rows if row.run is not None and "photos" in row.sources]
    return chosen(able, names, "photos")


def default_of(rows: Sequence[Row]) -> str:
    """The row that others are compared with: the default, or the first."""
    names = [row.name for row in rows]
    return DEFAULT["photos"] if DEFAULT["photos"] in names else names[0]
