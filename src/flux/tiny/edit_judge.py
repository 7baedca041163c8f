"""A judge of edits: what flux-tiny's judge of pictures says of an edit whose prompts are captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flux.tiny.asked import read_caption
from flux.tiny.judge import load_judge
from flux.tiny.remarks import Lost, Unmet, remarks

FILE = "judge.safetensors"
SIDES = (96, 128)
"""Lengths of sides, in pixels, at which the judge reads right and flux-tiny still draws its world."""


class EditJudge:
    """folder: holds the judge beside the model's weights.

    Raises FileNotFoundError where it does not, ValueError where the file is something else.
    """

    def __init__(self, folder: Path):
        from safetensors import SafetensorError

        try:
            self._judge = load_judge(folder / FILE)
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{folder / FILE} is not flux-tiny's judge") from error

    def __call__(
        self, prompts: tuple[str, str], pictures: Sequence[Image.Image]
    ) -> tuple[list[str], list[str]] | None:
        """What got lost of the source, and what the edit's prompt asks for in vain, in words.

        prompts, pictures: the source's and the edit's. None where a prompt is no caption, or the pictures
        have a size that the judge does not know.
        """
        asked = [read_caption(prompt) for prompt in prompts]
        if None in asked or not all(SIDES[0] <= side <= SIDES[1] for side in pictures[0].size):
            return None
        levels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
        seen = self._judge.read(torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1)
        found = list(remarks(*asked, *seen))
        return tuple([each.text for each in found if isinstance(each, kind)] for kind in (Lost, Unmet))
