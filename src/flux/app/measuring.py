"""How much of a picture is lost in another one, for the bars of a sweep that is at work."""

from pathlib import Path
from typing import Any

import numpy as np

from flux.app.desk import Desk
from flux.pictures.opening import open_picture
from flux.studies.sweep.cells import Cell
from flux.studies.sweep.folder import CellTable


class PictureLoss:
    """From 0 on: 1 - DINO similarity where a DINO lies beside the weights, else the mean pixel difference.

    None is fetched for it. What was found of a file is kept.
    """

    def __init__(self, desk: Desk):
        home = desk.model.weights or desk.record.home
        self._desk = desk
        self._folder = home / "dino" if home is not None and (home / "dino").is_dir() else None
        self.name = "mean difference of pixels" if self._folder is None else "1 - DINO similarity"
        self._dino: Any = None
        self._known: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, one: Path, other: Path) -> float:
        a, b = self._features(one), self._features(other)
        return float(np.abs(a - b).mean()) if self._folder is None else max(0.0, 1 - float(a @ b))

    def _features(self, file: Path) -> np.ndarray:
        key = str(file), file.stat().st_mtime_ns
        if key not in self._known:
            picture = open_picture(file)
            if self._folder is None:
                self._known[key] = np.asarray(picture, dtype=np.float32) / 255
            else:
                self._known[key] = self._load().features([picture])[0].numpy()
        return self._known[key]

    def _load(self) -> Any:
        if self._dino is None:
            from flux.pictures.features import Dino

            self._dino = Dino(self._folder, self._desk.models.device)
        return self._dino


def lost_by_layers(folder: Path, loss: PictureLoss) -> dict[tuple[int, ...], float]:
    """By group of layers, how much of the reference is lost, of a sweep's first prompt so far."""
    reference = folder / Cell(0).file
    if not reference.is_file():
        return {}
    cells = [row.cell for row in CellTable(folder).rows() if not row.error]
    return {
        tuple(cell.part.layers): loss(reference, folder / cell.file)
        for cell in cells
        if cell.part and not cell.repeat and cell.prompt == 0 and (folder / cell.file).is_file()
    }
