"""How alike two pictures are, and what that says about an edit.

Pictures are 8-bit RGB, so that a figure can be computed again from the files of a run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def difference(a: Image.Image, b: Image.Image) -> np.ndarray:
    """How far each pixel differs in its most different channel: (H, W), 0 to 255."""
    return np.abs(_levels(a) - _levels(b)).max(axis=-1)


def changed_share(a: Image.Image, b: Image.Image, pixel: int = 8) -> float:
    """The share of pixels in which a channel differs by more than `pixel` of 255 levels."""
    return float((difference(a, b) > pixel).mean())


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.square(_levels(a) - _levels(b)).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.float64)


class Dino:
    """DINOv2 features through `transformers`.

    source: a hub name, or a folder with the model and its `preprocessor_config.json`.
    Raises OSError or ValueError where there is no such model, ImportError where `transformers` is missing.
    """

    def __init__(self, source: str | Path, device: str | torch.device = "cpu"):
        from transformers import AutoImageProcessor, AutoModel

        self.source = str(source)
        self.processor = _pretrained(AutoImageProcessor, self.source)
        self.model = _pretrained(AutoModel, self.source).eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """The class token of each picture, scaled to length 1: float32 (N, C) on the CPU."""
        pixels = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        output = self.model(pixels["pixel_values"].to(self.model.device, self.model.dtype))
        return torch.nn.functional.normalize(output.last_hidden_state[:, 0].float(), dim=-1).cpu()

    def similarity(self, a: Image.Image, b: Image.Image) -> float:
        """The cosine of two pictures' features, -1 to 1."""
        first, second = self.features([a, b])
        return float(first @ second)


def _pretrained(kind: type, source: str):
    """From the folder or the hub's cache; only where it is in neither from the hub itself."""
    try:
        return kind.from_pretrained(source, local_files_only=True)
    except OSError:
        if Path(source).is_dir():
            raise
        return kind.from_pretrained(source)


@dataclass(frozen=True)
class Score:
    """An edit's picture compared with the source's; None where it was not measured.

    changed: share of changed pixels. psnr: in dB, None for equal pictures. similarity: DINO similarity.
    plain_*: the same of the picture without injection.
    """

    changed: float
    psnr: float | None
    similarity: float | None = None
    plain_changed: float | None = None
    plain_similarity: float | None = None


def score(
    source: Image.Image,
    edit: Image.Image,
    plain: Image.Image | None = None,
    *,
    dino: Dino | None = None,
    pixel: int = 8,
) -> Score:
    """Compare an edit, and if given the picture of its prompt without injection, with the source."""
    ratio = psnr(source, edit)
    alike: list[float] = []
    if dino is not None:
        first, *others = dino.features([image for image in (source, edit, plain) if image is not None])
        alike = [float(first @ other) for other in others]
    return Score(
        changed=changed_share(source, edit, pixel),
        psnr=None if math.isinf(ratio) else ratio,
        similarity=alike[0] if alike else None,
        plain_changed=None if plain is None else changed_share(source, plain, pixel),
        plain_similarity=alike[1] if len(alike) > 1 else None,
    )


def did_nothing(score: Score, floor: float, threshold: float) -> bool:
    """Whether no more of the picture changed than `threshold`, or than the noise where that is larger."""
    return score.changed <= max(floor, threshold)


def lost_source(score: Score, margin: float = 0.0) -> bool:
    """Whether the edit is no more like the source than the picture without injection is, plus `margin`.

    False where the similarities were not measured.
    """
    if score.similarity is None or score.plain_similarity is None:
        return False
    return score.similarity <= score.plain_similarity + margin
