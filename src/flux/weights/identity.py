"""What a model's weights are known by: the same on every machine, and another after any training."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from flux.models import ModelSpec
from flux.weights.find import AE, CLIP, FLOW, T5, files_of, find_file, find_text_encoder, weight_files

WHOLE, SAMPLES, SAMPLE = 2**26, 64, 2**20
"""Bytes up to which a file is read whole; of larger ones, how many samples are read, and bytes of each."""


def weights_id(model: ModelSpec, folder: Path | None) -> dict[str, str]:
    """A digest of each part's files, or the hub's name of an encoder that comes from there.

    folder: holds all of them; None: they are looked for where loading looks.

    A file that is nowhere is downloaded. Raises CheckpointError as loading does.
    """
    return dict(_parts(model, folder))


def _parts(model: ModelSpec, folder: Path | None) -> Iterator[tuple[str, str]]:
    for part, name in ((FLOW, model.repo_flow), (AE, model.repo_ae)):
        found = find_file(model.repo_id, name, part.env_var, weights=folder)
        yield part.title, digest(files_of(found))
    for part, hub_name in ((T5, model.t5), (CLIP, model.clip)):
        found = find_text_encoder(part, hub_name, weights=folder)
        files = weight_files(Path(found)) or sorted(Path(found).glob("pytorch_model*.bin"))
        yield part.title, digest(files) if files else found


def digest(files: Iterable[Path]) -> str:
    """16 digits over sizes and contents. Of large files it reads samples, which training changes all."""
    total = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        total.update(f"{file.name} {size}".encode())
        with open(file, "rb") as stream:
            for start, length in _slices(size):
                stream.seek(start)
                total.update(stream.read(length))
    return total.hexdigest()[:16]


def _slices(size: int) -> Iterator[tuple[int, int]]:
    if size <= WHOLE:
        yield 0, size
    else:
        yield from (((size - SAMPLE) * i // (SAMPLES - 1), SAMPLE) for i in range(SAMPLES))
