"""What is measured of an edit, pair by pair. Pictures are uint8 (N, H, W, 3), as a file holds them.

A figure is NaN where a pair has none, such as what was kept outside an edit that fills the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editing_parts.tasks import TaskSet, to_model
from flux.extras import need
from flux.pictures.features import Dino
from flux.pictures.metrics import WINDOW
from flux.tiny.edit_pairs import EditScore, region, score
from flux.tiny.judge import Judge, Reading


@dataclass(frozen=True)
class Column:
    """A figure of each pair. unit: how it is shown, a format. paired: whether rows are compared by it."""

    name: str
    about: str
    unit: str = "{:.1f}"
    paired: bool = True


COLUMNS = (
    Column("made", "the judge finds the change", "{:.3f}"),
    Column("others", "share of all other attributes that are right, by the judge", "{:.3f}"),
    Column("kept", "PSNR to the photo outside the edit's region, dB"),
    Column("below", "dB below what the autoencoder alone keeps there", paired=False),
    Column("equal", "PSNR to the photo at the very pixels that the two renderings share, dB"),
    Column("ssim", "SSIM to the photo there", "{:.3f}"),
    Column("dino", "patch-by-patch DINO similarity to the photo there", "{:.3f}"),
    Column("truth", "PSNR to the rendered target, whole picture, dB"),
    Column("inside", "PSNR to the rendered target where it differs from the photo, dB"),
    Column("share", "share of the picture that its mask covers", "{:.3f}", paired=False),
    Column("evaluations", "evaluations of the model for one row, its source's included", "{:.1f}"),
    Column("rebuilt", "PSNR to the autoencoder's reconstruction when nothing is asked for, dB", paired=False),
)


@dataclass(frozen=True)
class Measures:
    """The columns of a table. decisive: a row beats the default that is better in one of these and not worse
    in another. by_kind: those shown for each kind of edit. axes: of the front, across and up."""

    columns: tuple[Column, ...]
    decisive: tuple[str, ...]
    by_kind: tuple[str, ...]
    axes: tuple[str, str]

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


TINY = Measures(COLUMNS, ("made", "inside"), ("made", "kept", "truth", "inside"), ("kept", "made"))
"""With the judge and the right answers of flux-tiny's world."""

MEASURES = {"photos": TINY, "generated": replace(TINY, decisive=("made", "kept"))}
"""By what is edited. Generated pictures have no right answer: what they keep decides in its place."""

NOISE = 1e-6
"""The least squared error, of a range of 1, that is told from none: pictures count as alike at 60 dB."""
FEWEST = 64
"""Pixels outside an edit; with fewer, nothing is measured there."""

Figures = dict[str, list[float]]

Alike = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes two lists of pictures; returns how alike they are patch by patch, (N, h, w)."""


def read(judge: Judge, pictures: np.ndarray, together: int = 64) -> list[Reading]:
    return [reading for part in to_model(pictures).split(together) for reading in judge.read(part)]


@dataclass(frozen=True)
class Yardstick:
    """What edits of a task set are held against.

    outside: where they should change nothing, bool (N, H, W). ceiling: `kept` of the autoencoder alone, (N,).
    """

    tasks: TaskSet
    judge: Judge
    alike: Alike
    readings: Sequence[Reading]
    outside: np.ndarray
    ceiling: np.ndarray

    @classmethod
    def of(cls, tasks: TaskSet, judge: Judge, alike: Alike) -> "Yardstick":
        readings = read(judge, tasks.photos)
        if tasks.differs is not None:
            outside = ~tasks.differs
        else:  # what the judge sees says where the thing is
            outside = ~np.stack(
                [
                    region(pair, tasks.size, seen, seen).numpy()
                    for pair, seen in zip(tasks.pairs, readings, strict=True)
                ]
            )
        made = cls(tasks, judge, alike, readings, outside, np.zeros(len(tasks)))
        return replace(made, ceiling=np.array([told.kept for told in made.scores(tasks.rebuilt)]))

    def measure(self, pictures: np.ndarray) -> Figures:
        """All columns that pictures alone tell."""
        tasks, rows = self.tasks, range(len(pictures))
        told = self.scores(pictures)
        found: Figures = {
            "made": [float(each.made) for each in told],
            "others": [each.others for each in told],
            "kept": [each.kept for each in told],
            "ssim": [ssim_at(tasks.photos[i], pictures[i], self.outside[i]) for i in rows],
            "dino": self._alike_outside(pictures),
        }
        if tasks.targets is not None:
            found["below"] = (self.ceiling[: len(pictures)] - found["kept"]).tolist()
            found["equal"] = [psnr_at(tasks.photos[i], pictures[i], self.outside[i]) for i in rows]
            found["truth"] = whole_psnr(tasks.targets[: len(pictures)], pictures)
            found["inside"] = [psnr_at(tasks.targets[i], pictures[i], ~self.outside[i], 1) for i in rows]
        return found

    def scores(self, pictures: np.ndarray) -> list[EditScore]:
        """What the package says of edits whose region it knows by the judge, see `flux.tiny.edit_pairs`."""
        tasks = self.tasks
        return [
            score(tasks.pairs[i], to_model(np.stack((tasks.photos[i], picture))), [self.readings[i], seen])
            for i, (picture, seen) in enumerate(zip(pictures, read(self.judge, pictures), strict=True))
        ]

    def _alike_outside(self, pictures: np.ndarray) -> list[float]:
        similar = self.alike(self.tasks.photos[: len(pictures)], pictures)
        sides = [whole // patches for whole, patches in zip(self.tasks.size, similar.shape[1:], strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(self.outside, sides, axis=(1, 2))
        whole = windows[: len(pictures), :: sides[0], :: sides[1]].all(axis=(-2, -1))
        return [float(row[at].mean()) if at.any() else np.nan for row, at in zip(similar, whole, strict=True)]


def psnr_at(a: np.ndarray, b: np.ndarray, where: np.ndarray, fewest: int = FEWEST) -> float:
    """PSNR in dB of two pictures at some pixels (H, W), at most 60; NaN where they are fewer."""
    if where.sum() < fewest:
        return float("nan")
    error = np.square(a[where].astype(np.float64) - b[where]).mean() / 255**2
    return float(-10 * np.log10(max(error, NOISE)))


def ssim_at(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """The mean of SSIM over windows that lie at these pixels wholly."""
    measure = need("skimage.metrics", "similarity", "SSIM").structural_similarity
    _, each = measure(a, b, win_size=WINDOW, channel_axis=-1, data_range=255, full=True)
    windows = np.lib.stride_tricks.sliding_window_view(where, (WINDOW, WINDOW)).all(axis=(-2, -1))
    margin = WINDOW // 2
    inner = each[margin:-margin, margin:-margin].mean(axis=-1)
    return float(inner[windows].mean()) if windows.any() else float("nan")


def whole_psnr(a: np.ndarray, b: np.ndarray) -> list[float]:
    everywhere = np.ones(a.shape[1:3], dtype=bool)
    return [psnr_at(*each, everywhere) for each in zip(a, b, strict=True)]


def patch_similarity(folder: Path) -> Alike:
    """Patch by patch, how alike pictures are to the DINO model of a folder: cosines, (N, h, w)."""
    dino = Dino(folder)

    def tokens(pictures: np.ndarray) -> Tensor:
        return torch.cat([dino.patches([Image.fromarray(picture)]) for picture in pictures])

    def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        cosines = (tokens(a) * tokens(b)).sum(dim=-1)
        side = round(cosines.shape[1] ** 0.5)
        return cosines.view(-1, side, side).numpy()

    return alike
