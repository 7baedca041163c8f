"""Figures of pairs by DINO's patch tokens. Similarities are kept on the disk, tokens are not."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from flux.pictures.feature_cache import PairCache
from flux.pictures.features import Dino
from flux.pictures.opening import Opened
from flux.pictures.patches import Whitening, alike
from flux.studies.similarity.measures import Pair

HELD = 256
"""Tokens of so many pictures are held at a time: 200 MB of DINOv2-base's."""


class Tokens:
    """Patch tokens of pictures, those of the latest `HELD` held. block: see `Dino.patches`."""

    def __init__(self, dino: Dino, block: int | None, batch: int):
        self._dino, self._block, self._batch = dino, block, batch
        self._held: dict[Path, Tensor] = {}
        self.computed = 0

    def of(self, paths: Sequence[Path]) -> Tensor:
        """(N, patches, C) of at most `HELD` pictures."""
        missing = [path for path in dict.fromkeys(paths) if path not in self._held]
        for start in range(0, len(missing), self._batch):
            some = missing[start : start + self._batch]
            self._held |= zip(some, self._dino.patches(Opened(some), self._block, scaled=False), strict=True)
        self.computed += len(missing)
        found = torch.stack([self._held[path] for path in paths])
        # The latest stand last.
        self._held |= {path: self._held.pop(path) for path in dict.fromkeys(paths)}
        for path in list(self._held)[:-HELD]:
            del self._held[path]
        return found


def whitened_by(references: Sequence[Path], tokens: Tokens) -> Whitening:
    """The whitening that a sweep's references give."""
    return Whitening.of(tokens.of(references))


def in_tiles(pairs: Sequence[Pair]) -> list[tuple[Path, list[Path]]]:
    """The pairs by their first picture, in an order in which few pictures are read twice."""
    places = {path: i for i, path in enumerate(dict.fromkeys(path for pair in pairs for path in pair))}
    tile = HELD // 2
    grouped: dict[tuple[int, int, Path], list[Path]] = {}
    for a, b in pairs:
        grouped.setdefault((places[a] // tile, places[b] // tile, a), []).append(b)
    return [(key[2], grouped[key]) for key in sorted(grouped, key=lambda key: (*key[:2], places[key[2]]))]


def name_of(metric: str, model: str, block: int | None, references: Sequence[str]) -> str:
    """Under which name similarities are kept: with all that decides them. references: their digests."""
    place = "" if block is None else f" block {block}"
    by = hashlib.sha256(" ".join(references).encode()).hexdigest()[:12] if references else ""
    return f"{metric} {model[:12]}{place} {by}".rstrip()


def measure_pairs(
    known: Mapping[Path, PairCache],
    name: str,
    pairs: Sequence[Pair],
    digests: Mapping[Path, str],
    tokens: Tokens,
    whitening: Whitening | None,
) -> None:
    """Add the similarity of each pair to the cache of its first picture. known: by that picture."""
    with tqdm(total=len(pairs), desc="patch by patch", disable=None, leave=False) as bar:
        for first, others in in_tiles(pairs):
            for start in range(0, len(others), HELD - 1):
                some = others[start : start + HELD - 1]
                found = tokens.of([first, *some])
                values = alike(found[0], found[1:], whitening)
                table = known[first].figures.setdefault(name, {})
                for other, value in zip(some, values, strict=True):
                    both = f"{digests[first]} {digests[other]}"
                    table[both] = 1.0 if digests[first] == digests[other] else value
                bar.update(len(some))
