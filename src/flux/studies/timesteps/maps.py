"""Attention maps as pictures."""

import numpy as np
from PIL import Image
from torch import Tensor

from flux.studies.pages.sheets import heat, scaled

OCTAVES = 2
SCALE = f"dark: 1/{2**OCTAVES} of the uniform share or less; bright: {2**OCTAVES} times it or more"
"""The colours of attention maps."""


def drawn(received: Tensor, width: int, height: int) -> Image.Image:
    """The attention that image tokens receive, (1, L_img) of the uniform share, at a picture's size."""
    grid = received[0].numpy().reshape(height // 16, width // 16)
    # In powers of two around the uniform share, so that maps compare.
    octaves = np.log2(np.maximum(grid, 1e-9)) + OCTAVES
    return scaled(heat(octaves, 2 * OCTAVES), width, height)
