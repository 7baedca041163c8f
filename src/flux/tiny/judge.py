"""The judge: reads a scene's attributes back from a picture of flux-tiny's world.

A small convolutional network marks the centres of things on a grid of 8 x 8 pixels (as CenterNet does, arXiv
1904.07850) and names a thing's attributes there; sky, ground and weather come from the whole picture. It is
trained apart from the flow model and never sees generated pictures.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flux.tiny.scenes import OWNERS, SCENERY, THING_VALUES

CELL = 8
FOUND = 0.35
"""A centre counts as a thing from this probability on."""


@dataclass(frozen=True)
class FoundThing:
    """One thing the judge sees; x, y: its middle in pixels; score: probability that a thing is there."""

    kind: str
    colour: str
    size: str
    hat: bool
    x: float
    y: float
    score: float
    pose: str | None = None
    letter: str | None = None


@dataclass(frozen=True)
class Reading:
    sky: str
    ground: str
    things: tuple[FoundThing, ...]
    weather: str = "clear"


class Judge(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (32, 64, 96)):
        super().__init__()
        layers, before = [], 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.GELU()]
            layers += [Residual(width)]
            before = width
        self.body = nn.Sequential(*layers, Residual(before), Residual(before, dilation=2), Residual(before))
        self.cells = nn.Conv2d(before, 1 + sum(map(len, THING_VALUES.values())), 1)
        self.scenery = nn.Linear(2 * before, sum(map(len, SCENERY.values())))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RGB in [-1, 1], (B, 3, H, W). Returns cell logits (B, 26, H / 8, W / 8) and scenery logits (B,
        10)."""
        h = self.body(x)
        pooled = torch.cat((h.mean(dim=(2, 3)), h.amax(dim=(2, 3))), dim=1)
        return self.cells(h), self.scenery(pooled)

    @torch.no_grad()
    def read(self, x: Tensor) -> list[Reading]:
        """What each picture of (B, 3, H, W), RGB in [-1, 1], shows."""
        cells, scenery = self(x)
        named = {name: part.argmax(-1).tolist() for name, part in split_scenery(scenery).items()}
        return [
            Reading(things=_things(cell), **{name: SCENERY[name][rows[i]] for name, rows in named.items()})
            for i, cell in enumerate(cells)
        ]


class Residual(nn.Module):
    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv2(F.gelu(self.norm(self.conv1(x)))))


def split_cells(cells: Tensor, dim: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Centre logits and the logits of each part."""
    centre, *parts = cells.split((1, *map(len, THING_VALUES.values())), dim=dim)
    return centre, dict(zip(THING_VALUES, parts, strict=True))


def split_scenery(scenery: Tensor) -> dict[str, Tensor]:
    """The logits of sky, ground and weather; scenery: (B, 10)."""
    return dict(zip(SCENERY, scenery.split(tuple(map(len, SCENERY.values())), dim=-1), strict=True))


def load_judge(path: Path) -> Judge:
    from safetensors.torch import load_file

    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return judge.eval()


def _things(cells: Tensor) -> tuple[FoundThing, ...]:
    """Peaks of the centre map, no two within 2 cells, best first; cells: (26, h, w)."""
    centre, parts = split_cells(cells, dim=0)
    score = centre[0].sigmoid()
    peak = (score == F.max_pool2d(score[None], 5, stride=1, padding=2)[0]) & (score > FOUND)
    found = []
    for row, column in torch.nonzero(peak).tolist():
        value = {name: THING_VALUES[name][int(part[:, row, column].argmax())] for name, part in parts.items()}
        value |= {name: None for name, kind in OWNERS.items() if value["kind"] != kind}
        x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
        found.append(FoundThing(**value, x=x, y=y, score=float(score[row, column])))
    return tuple(sorted(found, key=lambda thing: -thing.score))
