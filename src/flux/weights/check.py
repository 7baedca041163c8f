"""Are the weights of a part whole, and are they that part's? A look at names, sizes and headers.

No tensor is read. Whatever is wrong is a `CheckpointError`: one line that names the file and the remedy.
"""

import os
from pathlib import Path
from typing import Any

from flux.files import read_json_object
from flux.formats.folder import files_of, weight_files
from flux.formats.gguf_file import is_gguf
from flux.formats.header import CheckpointError, is_pointer, pointer_error, read_header, refuse_pipes
from flux.formats.weights import check_file
from flux.modules import encoders
from flux.weights.parts import CLIP, FLOW, T5, Part

__all__ = [
    "CheckpointError",
    "check_encoder",
    "check_files",
    "encoder_files",
    "files_of",
    "is_pointer",
    "read_header",
    "read_json",
    "tokens_read",
    "weight_files",
]

TOKENIZER_FILES = {"tokenizer.json", "spiece.model", "vocab.json"}


def encoder_files(source: Path) -> list[Path]:
    """The weight files of a text encoder's folder or file; empty where there are none."""
    return files_of(source) if source.exists() else []


def check_files(path: Path, part: Part | None = None) -> Path:
    """The path itself, after a check of each of its files, see `flux.formats.weights.check_file`.

    part: what it is to hold; flow models and T5 may be GGUF files.
    """
    for file in files_of(path):
        check_file(file, gguf=part in (FLOW, T5))
    return path


def files_near(folder: Path) -> str:
    """The weight files in a folder that one may have meant, in words; empty where there are none."""
    kinds = (".safetensors", ".gguf", ".pth", ".pt", ".ckpt", ".bin")
    names = sorted(file.name for file in folder.iterdir() if file.suffix in kinds and file.is_file())
    few = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f" (it holds {few}: name the file itself)" if names else ""


# Text encoders


def encoder_kind(part: Part) -> encoders.TextEncoder:
    return encoders.CLIP if part is CLIP else encoders.T5


def check_encoder(source: Path, part: Part, width: int | None) -> Path:
    """A text encoder's folder or file, after a look at its config, its weights and its tokenizer.

    width: channels it must have, None for any.
    """
    if source.is_dir():
        refuse_pipes(source)
        _check_config(source, part, width)
        if not encoder_files(source):
            raise CheckpointError(
                f"{source} has no weights: download the encoder's model.safetensors into it"
                f"{files_near(source)}"
            )
    check_files(source, part)
    kind = encoder_kind(part)
    if source.is_file():
        _require_width(source, kind.config(source), part, width)
    if source.is_dir():
        _check_tokenizer(source, part)
    # Unpickling may take gigabytes, which is for loading.
    if all(file.suffix == ".safetensors" or is_gguf(file) for file in files_of(source)):
        kind.check(source)
    return source


def _check_config(folder: Path, part: Part, width: int | None) -> None:
    config = read_json(folder / "config.json")
    kind = str(config.get("model_type", ""))
    if not any(name in kind for name in (("clip",) if part is CLIP else ("t5",))):
        raise CheckpointError(
            f"{folder} holds a model of type {kind[:80]!r}: name the folder of a {part.title} by "
            f"{part.env_var}"
        )
    _require_width(folder, config.get("text_config", config), part, width)


def _require_width(source: Path, config: Any, part: Part, width: int | None) -> None:
    found = config.get("d_model" if part is T5 else "hidden_size") if isinstance(config, dict) else None
    if width is not None and found is not None and found != width:
        raise CheckpointError(
            f"{source} holds a {part.title} of width {found}: name one of width {width} by {part.env_var}"
        )


def _check_tokenizer(folder: Path, part: Part) -> None:
    tokenizer = tokenizer_folder(folder, part)
    for place in (folder, tokenizer):
        refuse_pipes(place)
    files = [file for place in {folder, tokenizer} for file in place.iterdir()]
    for file in files:
        if is_pointer(file):
            raise pointer_error(file)
        if file.name in ("tokenizer.json", "vocab.json") and not read_json(file):
            raise CheckpointError(f"{file} is an empty JSON object: download it again")
    if not has_tokenizer(folder) and not has_tokenizer(tokenizer):
        raise CheckpointError(
            f"{folder} has no tokenizer: put {tokenizer_name(folder, part)}/ beside it, or tokenizer.json "
            "into it"
        )


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def tokenizer_name(folder: Path, part: Part) -> str:
    """What the tokenizer's folder beside an encoder's is called; as in clones, if that has its own name."""
    name = folder.name if "text_encoder" in folder.name else part.folder
    return name.replace("text_encoder", "tokenizer")


def tokenizer_folder(folder: Path, part: Part) -> Path:
    """Where the tokenizer of a text encoder's folder is, in the layout of a clone or in the folder itself."""
    folder = Path(os.path.abspath(folder))
    beside = folder.with_name(tokenizer_name(folder, part)) if folder.name else folder
    own = "text_encoder" not in folder.name and has_tokenizer(folder)
    return beside if beside.is_dir() and not own else folder


def tokens_read(source: Path, part: Part, tokenizer: Path) -> int | None:
    """The most tokens a text encoder takes, by its tokenizer and its positions; None: not told."""
    config = encoder_kind(part).config(source)
    settings = tokenizer / "tokenizer_config.json"
    told = [config.get("max_position_embeddings")]
    told += [read_json(settings).get("model_max_length")] if settings.is_file() else []
    numbers = [int(length) for length in told if isinstance(length, int | float) and 0 < length < 1e6]
    return min(numbers, default=None)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError if it cannot be read or is something else."""
    found = read_json_object(file) if file.is_file() else None
    if found is None:
        raise CheckpointError(f"{file} is not a JSON object: download it again")
    return found
