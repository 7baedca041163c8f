"""What was found about pictures, kept beside them, so that nothing is computed twice.

A file belongs to one model, by its identity, and knows each picture by the sha256 of its file: a picture that
changed is a new one. A file that is damaged, or of another model, counts as empty and is written anew.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np

from flux.files import write_atomically


@dataclass
class FeatureCache:
    """Features by picture. model: the identity of what made them. problem: why the file counted as empty."""

    path: Path
    model: str
    features: dict[str, np.ndarray] = field(default_factory=dict)
    problem: str | None = None

    @staticmethod
    def open(path: Path, model: str) -> "FeatureCache":
        """What the file holds; empty where there is none. Never raises."""
        cache = FeatureCache(path, model)
        try:
            with np.load(path, allow_pickle=False) as file:
                names, features = file["sha256"], file["features"]
                if str(file["model"]) != model:
                    cache.problem = f"{path}: is of another model and is made again"
                elif features.ndim != 3 or len(names) != len(features) or features.dtype != np.float32:
                    cache.problem = f"{path}: is damaged and is made again"
                else:
                    cache.features = dict(zip(map(str, names), features, strict=True))
        except FileNotFoundError:
            pass
        except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile):
            cache.problem = f"{path}: is damaged and is made again"
        return cache

    def save(self) -> None:
        """Raises OSError where nothing can be written."""
        stream = BytesIO()
        features = np.stack([*self.features.values()]) if self.features else np.zeros((0, 1, 1), np.float32)
        np.savez(stream, model=np.array(self.model), sha256=np.array([*self.features]), features=features)
        write_atomically(self.path, stream.getvalue())


@dataclass
class PairCache:
    """Figures of two pictures, such as their SSIM, by metric and both pictures; None where there is none."""

    path: Path
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    problem: str | None = None

    @staticmethod
    def open(path: Path) -> "PairCache":
        """What the file holds; empty where there is none. Never raises."""
        cache = PairCache(path)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not _is_table(found):
                raise ValueError
            cache.figures = found
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError):
            cache.problem = f"{path}: is damaged and is made again"
        return cache

    def save(self) -> None:
        """Raises OSError where nothing can be written."""
        write_atomically(self.path, json.dumps(self.figures).encode())


def _is_table(found: object) -> bool:
    """{metric: {pair: number or null}}"""
    return isinstance(found, Mapping) and all(
        isinstance(pairs, Mapping)
        and all(value is None or type(value) in (int, float) for value in pairs.values())
        for pairs in found.values()
    )
