"""Edits of pairs with a right answer, in ways that are named; what was made before is read from a file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from flux.files import write_atomically
from flux.generate import Sampling
from flux.hooks import CopySource
from flux.methods.stable_flow import Edit, EditRequest, Row, edit
from flux.pictures.features import Dino
from flux.studies.similarity.trying import ByRegion
from flux.tiny.edit_pairs import EditPair, JudgedPairs
from flux.util import TINY_WEIGHTS, load_models
from flux.weights.load import Models

BATCH = 8


@dataclass(frozen=True, order=True)
class EditWay:
    """Layers in which an edit looks at its source, in which steps and how strongly."""

    layers: tuple[int, ...] = ()
    steps: tuple[int, int] | None = None
    strength: float = 1.0

    @property
    def name(self) -> str:
        steps = "" if self.steps is None else "@{}-{}".format(*self.steps)
        strength = "" if self.strength == 1 else f"x{self.strength:g}"
        return ("+".join(map(str, self.layers)) or "none") + steps + strength

    def edit(self, prompt: str) -> Edit:
        return Edit(prompt, self.layers, CopySource(steps=self.steps, strength=self.strength))


class Edits:
    """Figures of edits by pair and way: made, 0 or 1, and kept, in dB, by the judge; made by region.

    The last is what demo 3 goes by where there is no judge: with the judge's it says how good that is.
    """

    def __init__(self, file: Path, pairs: Sequence[EditPair], steps: int):
        self._file, self._steps = file, steps
        self._judged, self._region = JudgedPairs(TINY_WEIGHTS), ByRegion(Dino(TINY_WEIGHTS / "dino"))
        self._models: Models | None = None
        self.pairs = pairs
        self._known: dict[str, dict[str, list[float]]] = (
            json.loads(file.read_text()) if file.is_file() else {}
        )

    def of(self, ways: Iterable[EditWay], numbers: Sequence[int]) -> dict[EditWay, np.ndarray]:
        """(pairs, 3) by way, of the pairs of these numbers."""
        ways = list(dict.fromkeys(ways))
        for number in tqdm(numbers, desc="edits", disable=None):
            known = self._known.setdefault(str(number), {})
            missing = [way for way in ways if way.name not in known]
            if missing:
                known |= self._make(self.pairs[number], missing)
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._file, json.dumps(self._known).encode())
        return {way: np.array([self._known[str(number)][way.name] for number in numbers]) for way in ways}

    @torch.inference_mode()
    def _make(self, pair: EditPair, ways: Sequence[EditWay]) -> dict[str, list[float]]:
        self._models = self._models or load_models("flux-tiny", device="cpu", dtype="float32")
        source, target = pair.prompts
        plain = EditWay()
        asked = [plain, *(way for way in ways if way != plain)]
        request = EditRequest(
            source,
            tuple(way.edit(target) for way in asked),
            Sampling(self._steps, 3.5, pair.source.width, pair.source.height),
            seed=pair.seed,
            batch=BATCH,
            compare=False,
        )
        made = edit(self._models, request).pictures
        first, *edits = (made[row].clamp(-1, 1) for row in (Row("source"), *_rows(asked)))
        found = {
            way.name: [*self._judged.score(pair, first, each), self._region(pair, first, edits[0], each)[0]]
            for way, each in zip(asked, edits, strict=True)
        }
        return {way.name: found[way.name] for way in ways}


def _rows(ways: Sequence[EditWay]) -> list[Row]:
    return [Row("edit", i) for i in range(len(ways))]
