"""What a picture is wanted from beside its prompt, as people say it: by files and boxes.

Imports neither torch nor numpy, so that a spec is checked before they load. All of it is checked here, before
models load; `flux.photos.conditions` opens it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flux.integrators import IntegratorChoice, integrator_record
from flux.models import LayerName
from flux.strength import first_step

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from flux.photos.framing import Fit, Frame

UNIT = 16
"""Pixels of a token's side."""

Box = tuple[float, float, float, float]

Place = Path | Box
"""A part of a picture: a mask, white where it is, or a box of left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class StartPhoto:
    """A photo to start from. mask: where it is painted anew, in the photo's own pixels; None: everywhere.

    strength, rule: see `flux.conditions.Start`. fit: how the photo becomes a picture of the size asked for.
    """

    image: Path
    strength: float = 1.0
    mask: Place | None = None
    fit: Fit = "crop"
    rule: str = "upstream"

    def cut(self, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray | None]:
        """The picture of `size` (width, height), and its mask on the grid of its latent, (height / 8, width
        / 8) in [0, 1].

        Raises ValueError, one line, for a photo that is no picture, too small or too long, and for a mask of
        another size than the photo, or one that leaves nothing to paint or nothing to keep.
        """
        from flux.photos.framing import frame_photo
        from flux.pictures.opening import open_picture

        photo = open_picture(self.image)
        try:
            frame = frame_photo(photo.size, self.fit, size=size)
        except ValueError as error:
            raise ValueError(f"{self.image}: {error}") from None
        return frame.cut(photo), None if self.mask is None else _grid(self.mask, frame)


def _grid(mask: Place, frame: Frame) -> np.ndarray:
    from flux.photos.framing import cut_mask
    from flux.pictures.opening import open_picture

    if not isinstance(mask, Path):
        return cut_mask(mask, frame)
    picture = open_picture(mask)
    try:
        return cut_mask(picture, frame)
    except ValueError as error:
        raise ValueError(f"{mask}: {error}") from None


@dataclass(frozen=True)
class RegionPlace:
    """A part of the picture that is made, and its prompt. where: in pixels of that picture."""

    prompt: str
    where: Place

    def weights(self, size: tuple[int, int]) -> np.ndarray:
        """How much of each token lies in it, float32 (height / 16, width / 16) in [0, 1].

        Raises ValueError, one line, for a mask of another size, and for what covers half of no token.
        """
        import numpy as np

        from flux.pictures.opening import open_picture

        width, height = size
        if isinstance(self.where, Path):
            mask, name = open_picture(self.where).convert("L"), f"{self.where}: the mask"
            if mask.size != size:
                raise ValueError(
                    f"{name} has {mask.width} x {mask.height} pixels and the picture {width} x {height}: "
                    "save it at the picture's size"
                )
            levels = np.asarray(mask, dtype=np.float32) / 255
            weights = levels.reshape(height // UNIT, UNIT, width // UNIT, UNIT).mean(axis=(1, 3))
        else:
            left, top, right, bottom = self.where
            name = f"box {list(self.where)}"
            weights = np.outer(_covered(top, bottom, height // UNIT), _covered(left, right, width // UNIT))
        if not (weights >= 0.5).any():
            raise ValueError(
                f"{name} covers half of no token of {UNIT} x {UNIT} pixels of a picture of {width} x {height}"
            )
        return weights

    def in_frame(self, frame: Frame) -> np.ndarray:
        """The same of a photo's picture, where it is in the photo's pixels."""
        from flux.photos.framing import cut_shares
        from flux.pictures.opening import open_picture

        is_file = isinstance(self.where, Path)
        name = str(self.where) if is_file else f"box {list(self.where)}"
        try:
            weights = cut_shares(open_picture(self.where) if is_file else self.where, frame, UNIT)
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if is_file else str(error)) from None
        if not (weights >= 0.5).any():
            raise ValueError(
                f"{name} covers half of no token of {UNIT} x {UNIT} pixels of a photo that is edited at "
                f"{frame.size[0]} x {frame.size[1]}"
            )
        return weights


def _covered(start: float, stop: float, count: int) -> list[float]:
    """How much of each of `count` tokens in a row lies between two pixels."""
    spans = ((max(start, UNIT * i), min(stop, UNIT * (i + 1))) for i in range(count))
    return [max(0, right - left) / UNIT for left, right in spans]


@dataclass(frozen=True)
class Wanted:
    """What pictures are wanted from beside their prompts; each is absent by default.

    negative_prompt, true_cfg, two_passes: see `flux.conditions.Negative`; both of the first or none.
    layers: those in which regions obey; alone, apart: see `flux.hooks.regions.RegionAttention`.
    """

    negative_prompt: str | None = None
    true_cfg: float | None = None
    two_passes: bool = False
    start: StartPhoto | None = None
    regions: tuple[RegionPlace, ...] = ()
    layers: tuple[LayerName, ...] = ("all",)
    alone: bool = False
    apart: bool = False

    @property
    def prompts(self) -> list[str]:
        """All that are to be encoded for it."""
        negative = [] if self.negative_prompt is None else [self.negative_prompt]
        return negative + [each.prompt for each in self.regions]

    def evaluations(self, steps: int, integrator: IntegratorChoice = "euler") -> int:
        """How many evaluations of one row a picture takes."""
        start = self.start
        left = steps if start is None else steps - first_step(steps, start.strength, start.rule)
        return integrator_record(integrator).evaluations_in(left) * (1 if self.true_cfg is None else 2)

    def in_words(self) -> tuple[str, ...]:
        """A line for each, for people."""
        lines = []
        if self.true_cfg is not None:
            lines.append(f"away from {self.negative_prompt!r} by true_cfg {self.true_cfg:g}")
        if self.start is not None:
            inside = "" if self.start.mask is None else ", inside a mask alone"
            lines.append(f"from {self.start.image.name} at strength {self.start.strength:g}{inside}")
        if self.regions:
            count = len(self.regions)
            lines.append(f"with {count} region{'s' * (count != 1)} of their own prompts")
        return tuple(lines)

    def check(self, size: tuple[int, int], steps: int) -> None:
        """Open every file. Raises ValueError, one line, for what no picture can be made from."""
        if guidance := guidance_problem(self.negative_prompt, self.true_cfg):
            raise ValueError(f"{guidance[0]} {guidance[1]}")
        if self.start is not None:
            first_step(steps, self.start.strength, self.start.rule)
            self.start.cut(size)
        for each in self.regions:
            each.weights(size)


def guidance_problem(negative_prompt: str | None, true_cfg: float | None) -> tuple[str, str] | None:
    """The name of the setting that stands there alone, and what it misses."""
    if negative_prompt is not None and true_cfg is None:
        return "negative_prompt", "guides nothing by itself: give true_cfg too, above 1, such as 2"
    if true_cfg is not None and negative_prompt is None:
        return "true_cfg", 'guides away from a negative_prompt, and there is none: give one; it may be ""'
    if true_cfg is not None and not (math.isfinite(true_cfg) and true_cfg > 1):
        return "true_cfg", f"must be above 1 to guide by a negative prompt; got {true_cfg:g}"
    return None
