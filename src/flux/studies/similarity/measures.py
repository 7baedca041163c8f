"""What similarity is called, and the types that figures come in. Imports no torch."""

from pathlib import Path

Pair = tuple[Path, Path]

Figures = dict[str, float | None]
"""By metric; None for pictures that a metric cannot compare, and infinity for the PSNR of equal ones."""

MEASURES = {
    "dino": "DINO similarity",
    "dino-patches": "DINO similarity, patch by patch",
    "dino-whitened": "whitened DINO similarity, patch by patch",
    "clip": "CLIP similarity",
    "psnr": "PSNR",
    "ssim": "SSIM",
}
"""The titles of metrics. DINO's without more is that of one token of the whole picture, the class token."""

PATCHES = ("dino-patches", "dino-whitened")
"""Metrics of patch tokens that stand at the same place; the second is whitened by a sweep's references."""

REFERENCES = 16
"""So many references of a sweep, the first ones, suffice to whiten by."""
