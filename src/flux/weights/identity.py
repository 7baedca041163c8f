"""Which weights are these? Three answers, for three ends; what runs have recorded is compared with them.

- `weights_id`, from contents: the same on every machine, and another after any training;
- `file_digests`, file by file, of a folder;
- `pretrained_id`, of a model of `transformers`: all that decides what it says of a picture.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flux.files import sha256_of
from flux.formats.gguf_file import is_gguf
from flux.models import ModelSpec, configs
from flux.weights.check import encoder_files, files_of
from flux.weights.find import find_file, find_text_encoder
from flux.weights.hub import cached_file
from flux.weights.parts import AE, CLIP, FLOW, LORA, REDUX, T5, Part

WHOLE, SAMPLES, SAMPLE = 2**26, 64, 2**20
"""Bytes up to which a file is read whole; of larger ones, how many samples are read, and bytes of each."""

PRETRAINED_CONFIGS = ("config.json", "preprocessor_config.json")


def file_digests(folder: Path | None) -> dict[str, str]:
    """The digest of each weight file in a folder and below, by its path in there; {} for None.

    A copy has its original's, so that what was begun with one may go on with the other.
    """
    kinds = ("*.safetensors", "*.gguf")
    files = sorted(file for kind in kinds for file in folder.rglob(kind)) if folder else []
    return {str(f.relative_to(folder)): digest([f]) for f in files}


def packed_files() -> dict[str, str]:
    """Names and digests of the GGUF files that the variables name, which stay packed; {} where none do."""
    named = {part.title: Path(os.environ.get(part.env_var) or "").expanduser() for part in (FLOW, T5)}
    there = {title: file for title, file in named.items() if file.is_file() and is_gguf(file)}
    return {title: f"{file.name} {digest([file])}" for title, file in there.items()}


def weights_id(model: ModelSpec, folder: Path | None) -> dict[str, str]:
    """A digest of each part's files, or the hub's name of an encoder that comes from there.

    folder: holds all of them; None: they are looked for where loading looks.
    A file that is nowhere is downloaded. Raises CheckpointError as loading does.
    """
    return dict(_parts(model, folder))


def _parts(model: ModelSpec, folder: Path | None) -> Iterator[tuple[str, str]]:
    base = base_of(model)
    for part, name in ((FLOW, base.repo_flow), (AE, base.repo_ae)):
        found = find_file(base.repo_id, name, part.env_var, weights=folder)
        yield part.title, digest(files_of(found))
    for part, repo_id, name in further_files(model):
        inside = folder if folder is not None and (folder / name).is_file() else None
        yield part.title, digest(files_of(find_file(repo_id, name, part.env_var, weights=inside)))
    for part, hub_name in ((T5, model.t5), (CLIP, model.clip)):
        found = find_text_encoder(part, hub_name, weights=folder)
        files = encoder_files(Path(found))
        yield part.title, digest(files) if files else found


def base_of(model: ModelSpec) -> ModelSpec:
    """The model whose flow file and autoencoder a model takes: itself, as most do."""
    return configs[model.flow_name] if model.flow_name else model


def further_files(model: ModelSpec) -> Iterator[tuple[Part, str, str]]:
    """What stands beside a model's flow file: a LoRA, or Redux's projector. Part, repository, file."""
    if model.lora_repo_id is not None and model.lora_filename is not None:
        yield LORA, model.lora_repo_id, model.lora_filename
    if model.reference == "redux":
        yield REDUX, model.repo_id, model.repo_flow


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


def pretrained_id(source: str | Path, dtype: str = "float32") -> str | None:
    """The sha256 of a model's settings and weights, dtype, and the release of transformers.

    source: a folder or the hub's name; None for one that is not in the hub's cache yet.
    """
    folder = Path(source) if Path(source).is_dir() else _cached_folder(str(source))
    if folder is None:
        return None
    total = hashlib.sha256(f"{dtype} {_transformers()}".encode())
    for file in _pretrained_files(folder):
        total.update(f" {file.name} {sha256_of(file)}".encode())
    return total.hexdigest()


def encoder_digest(source: str | Path) -> str:
    """A digest of a folder's settings and weights; of what is no folder its name on the hub."""
    folder = Path(source)
    return digest(_pretrained_files(folder)) if folder.is_dir() else str(source)


def _pretrained_files(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in PRETRAINED_CONFIGS if (folder / name).is_file())
    # As transformers has it: safetensors where there are any.
    yield from sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _cached_folder(name: str) -> Path | None:
    try:
        found = cached_file(name, PRETRAINED_CONFIGS[0])
    except ValueError:  # no name on the hub
        return None
    return found and found.parent


def _transformers() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""
