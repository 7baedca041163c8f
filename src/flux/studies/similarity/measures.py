"""What similarity is called, and the types that figures come in. Imports no torch."""

from pathlib import Path

Pair = tuple[Path, Path]

Figures = dict[str, float | None]
"""By metric; None for pictures that a metric cannot compare, and infinity for the PSNR of equal ones."""

MEASURES = {"dino": "DINO similarity", "clip": "CLIP similarity", "psnr": "PSNR", "ssim": "SSIM"}
"""The titles of metrics."""
