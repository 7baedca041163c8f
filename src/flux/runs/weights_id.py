"""What a model's weights are known by: the same on every machine, and another after any training."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from flux import checkpoints, util
from flux.runs.common import weights_folder
from flux.spec import Spec

WHOLE, SAMPLES, SAMPLE = 2**26, 64, 2**20
"""Bytes up to which a file is read whole; of larger ones, how many samples are read, and bytes of each."""


def weights_id(spec: Spec) -> dict[str, str]:
    """A digest of each part's files, or the hub's name of an encoder that comes from there.

    A file that is nowhere is downloaded. Raises CheckpointError as loading does.
    """
    return dict(_parts(spec))


def _parts(spec: Spec) -> Iterator[tuple[str, str]]:
    model, folder = util.configs[spec.model.name], weights_folder(spec)
    for part, name in ((checkpoints.FLOW, model.repo_flow), (checkpoints.AE, model.repo_ae)):
        place = {"weights": folder, "checkpoints": util.CHECKPOINTS_DIR}
        found = checkpoints.find(model.repo_id, name, part.env_var, **place)
        yield part.title, digest(checkpoints.files_of(found))
    for part, hub_name in ((checkpoints.T5, model.t5), (checkpoints.CLIP, model.clip)):
        found = checkpoints.find_text_encoder(part, hub_name, weights=folder)
        files = checkpoints.weight_files(Path(found)) or sorted(Path(found).glob("pytorch_model*.bin"))
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
