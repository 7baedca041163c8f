"""Are the weights whole, and what are they? A look at names, sizes and headers; no tensor is read.

Whatever is wrong is a `CheckpointError`: one line that names the file and the remedy.
"""

import json
from pathlib import Path
from typing import Any

from flux.files import read_json_object
from flux.weights.parts import CLIP, T5, Part

GIT_LFS_POINTER = b"version https://git-lfs"
TOKENIZER_FILES = {"tokenizer.json", "spiece.model", "vocab.json"}
# The largest header the safetensors format allows; a larger number in its place is no header length.
MAX_HEADER = 100_000_000
OTHER_FORMATS = {
    b"PK\x03\x04": "a PyTorch .pt file",
    b"\x80\x02": "a PyTorch .pt file",
    b"GGUF": "a GGUF file",
    b"<": "a web page",
}


class CheckpointError(ValueError):
    """A weight file cannot be had or used. The message is one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


# Files of a path


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder in diffusers or transformers layout, empty if it is none of these."""
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _shards(index)
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
    return []


def _shards(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return [index.parent / name for name in sorted(set(weight_map.values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: download it again") from error


def files_of(path: Path) -> list[Path]:
    """The safetensors files of a path as `find` returns it, a file or a folder."""
    return weight_files(path) if path.is_dir() else [path]


def encoder_files(folder: Path) -> list[Path]:
    """The weight files of a text encoder, which may be an old .bin; empty where there are none."""
    return weight_files(folder) or sorted(folder.glob("pytorch_model*.bin"))


def check_files(path: Path) -> Path:
    """The path itself, after a check of each of its files, see `read_header`."""
    for file in files_of(path):
        read_header(file)
    return path


# Text encoders


def check_encoder(folder: Path, part: Part, width: int | None) -> Path:
    """A text encoder's folder, after a look at its config, its weights and its tokenizer.

    width: channels it must have, None for any.
    """
    _check_encoder_config(folder, part, width)
    if not encoder_files(folder):
        raise CheckpointError(f"{folder} has no weights: download the encoder's model.safetensors into it")
    check_files(folder)
    tokenizer = tokenizer_folder(folder)
    files = [file for place in {folder, tokenizer} for file in place.iterdir()]
    for file in files:
        if is_pointer(file):
            raise _pointer_error(file)
    if not TOKENIZER_FILES.intersection(file.name for file in files):
        raise CheckpointError(
            f"{folder} has no tokenizer: put {tokenizer.name}/ beside it, or tokenizer.json into it"
        )
    return folder


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of a text encoder's folder is, in the layout of a clone or in the folder itself."""
    beside = folder.with_name(folder.name.replace("text_encoder", "tokenizer"))
    return beside if beside.is_dir() else folder


def _check_encoder_config(folder: Path, part: Part, width: int | None) -> None:
    config = read_json(folder / "config.json")
    kind = str(config.get("model_type", ""))
    if not any(name in kind for name in (("clip",) if part is CLIP else ("t5",))):
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}: name the folder of a {part.title} by {part.env_var}"
        )
    text = config.get("text_config", config)
    found = text.get("d_model" if part is T5 else "hidden_size")
    if width is not None and found is not None and found != width:
        raise CheckpointError(
            f"{folder} holds a {part.title} of width {found}: name one of width {width} by {part.env_var}"
        )


def tokens_read(folder: Path) -> int | None:
    """The most tokens a folder's text encoder takes, by its tokenizer and its positions; None: not told."""
    config = read_json(folder / "config.json")
    tokenizer = tokenizer_folder(folder) / "tokenizer_config.json"
    settings = read_json(tokenizer) if tokenizer.is_file() else {}
    positions = config.get("text_config", config).get("max_position_embeddings")
    told = [
        length for length in (settings.get("model_max_length"), positions) if isinstance(length, int | float)
    ]
    return int(min(told)) if told else None


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError if it cannot be read or is something else."""
    found = read_json_object(file)
    if found is None:
        raise CheckpointError(f"{file} is not a JSON object: download it again")
    return found


# Headers


def read_header(file: Path) -> dict[str, dict]:
    """The tensors a safetensors file lists (key to dtype, shape and data_offsets), after a check of its size.

    Raises CheckpointError for a file that is missing, unreadable, cut short, a git-lfs pointer or another
    format.
    """
    try:
        size = file.stat().st_size
        with open(file, "rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            text = stream.read(min(length, MAX_HEADER))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing: download it") from error
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}): name a file you may read"
        ) from error

    if (start + text).startswith(GIT_LFS_POINTER):
        raise _pointer_error(file)
    for mark, title in OTHER_FORMATS.items():
        if start.startswith(mark) and not text.startswith(b"{"):
            raise CheckpointError(f"{file} is {title}, not safetensors: download the .safetensors file")
    if size < 9:
        raise CheckpointError(f"{file} is empty or cut short, {size} bytes: download it again")
    if length > MAX_HEADER or not text.startswith(b"{"):
        raise CheckpointError(f"{file} is not a safetensors file: download it again")
    if len(text) < length:
        raise _size_error(file, size, f"more than {8 + length:,}")
    return _entries(file, text, size)


def _entries(file: Path, text: bytes, size: int) -> dict[str, dict]:
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        needed = 8 + len(text) + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{file} is not a safetensors file: download it again") from error
    if size != needed:
        raise _size_error(file, size, f"{needed:,}")
    return header


def _size_error(file: Path, found: int, needed: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is damaged, its download broke off: {found:,} bytes where {needed} are needed; "
        "delete it and download it again"
    )


def is_pointer(file: Path) -> bool:
    """Whether git has put a note of the file in its place."""
    try:
        with open(file, "rb") as stream:
            return stream.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER
    except OSError:
        return False


def _pointer_error(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} is a git-lfs pointer, not the weights: run `git lfs pull` in the clone, or download the file"
    )
