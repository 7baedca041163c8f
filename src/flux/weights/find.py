"""Find, check and download the weight files of a model.

Where each part of a model is looked for, in this order:

1. the argument `weights`, one folder for all parts, such as a clone of the FLUX.1-dev repository;
2. the part's own variable: FLUX_MODEL, FLUX_AE, FLUX_LORA, FLUX_REDUX (a file, or a folder that holds it),
   FLUX_T5 and FLUX_CLIP (a folder);
3. FLUX_REPO, a clone as in 1, if it has the part;
4. `checkpoints/<repository with / replaced by _>/<file>`;
5. the hub: its cache, then its server.

A folder holds a part as one file (`flux1-dev.safetensors`) or as diffusers does (`transformer/`, in shards or
not). Whatever stands in the way is a `CheckpointError`: one line that names the file and the remedy.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS_DIR = Path("checkpoints")

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


@dataclass(frozen=True)
class Part:
    """One part of a model: its title in messages, its variable, its folder in a clone in diffusers layout."""

    title: str
    env_var: str
    folder: str = ""


FLOW = Part("flow model", "FLUX_MODEL", "transformer")
AE = Part("autoencoder", "FLUX_AE", "vae")
LORA = Part("LoRA", "FLUX_LORA")
REDUX = Part("image projector", "FLUX_REDUX")
T5 = Part("T5 text encoder", "FLUX_T5", "text_encoder_2")
CLIP = Part("CLIP text encoder", "FLUX_CLIP", "text_encoder")
PARTS = {part.env_var: part for part in (FLOW, AE, LORA, REDUX, T5, CLIP)}


# Finding


def find_file(
    repo_id: str,
    filename: str,
    env_var: str,
    *,
    weights: str | Path | None = None,
    checkpoints: Path | None = None,
    download: Callable[..., str] | None = None,
) -> Path:
    """The checked weights of a part: a safetensors file, or a folder in diffusers layout.

    repo_id, filename: the part on the hub, downloaded if it is nowhere else.
    env_var: the variable that may name it, see `PARTS`.
    weights: look nowhere but in this folder (or take this file). checkpoints: instead of `CHECKPOINTS_DIR`.
    download: instead of `huggingface_hub.hf_hub_download`.
    """
    part = PARTS.get(env_var, Part("file", env_var))
    for source, value in (("weights", weights), (env_var, os.environ.get(env_var))):
        if value:
            return _checked(_named(source, Path(value).expanduser(), part, repo_id, filename))
    clone = _clone()
    found = clone and _within(clone, part, repo_id, filename)
    folder = checkpoints or CHECKPOINTS_DIR
    return _checked(found or _from_hub(repo_id, filename, env_var, folder, download))


def find_text_encoder(
    part: Part, hub_name: str, *, width: int | None = None, weights: str | Path | None = None
) -> str:
    """The checked folder of T5 or CLIP, or `hub_name` where the user names no folder.

    width: channels the encoder must have. weights: look nowhere but in this folder.
    """
    for source, value in (("weights", weights), (part.env_var, os.environ.get(part.env_var))):
        if value:
            folder = Path(value).expanduser()
            _require(folder, source)
            found = _encoder_within(folder, part)
            if found is None:
                raise CheckpointError(
                    f"{source} names {folder}, which holds no {part.title}, neither {part.folder}/ "
                    "nor config.json: name the encoder's folder or a clone of FLUX.1-dev"
                )
            return str(_checked_encoder(found, part, width))
    clone = _clone()
    found = clone and _encoder_within(clone, part)
    return str(_checked_encoder(found, part, width)) if found else hub_name


def _clone() -> Path | None:
    value = os.environ.get("FLUX_REPO")
    if not value:
        return None
    clone = Path(value).expanduser()
    if not clone.is_dir():
        raise CheckpointError(
            f"FLUX_REPO names {clone}, which is not a folder: name a clone of FLUX.1-dev or unset it"
        )
    return clone


def _named(source: str, path: Path, part: Part, repo_id: str, filename: str) -> Path:
    """What `path` means for a part. `source` is the argument or variable that named it, for messages."""
    _require(path, source)
    if not path.is_dir():
        return path
    found = _within(path, part, repo_id, filename)
    if found is None:
        also = f" nor {part.folder}/ of that model" if part.folder else ""
        raise CheckpointError(
            f"{source} names the folder {path}, which holds neither {filename}{also}: name the "
            f"{part.title}'s file, or a clone of {repo_id}"
        )
    return found


def _require(path: Path, source: str) -> None:
    if not path.exists():
        raise CheckpointError(
            f"{source} names {path}, which does not exist: correct the path or leave {source} out"
        )


def _within(folder: Path, part: Part, repo_id: str, filename: str) -> Path | None:
    """A part in a folder: its file, its diffusers folder, or the folder itself as diffusers has it."""
    file, inner = folder / filename, folder / part.folder
    candidates = [file] if file.is_file() else []
    if part.folder:
        foreign = part is FLOW and _is_other_model(folder, repo_id, filename)
        candidates += [inner] if weight_files(inner) and not foreign else []
        candidates += [folder] if weight_files(folder) else []
    # In a clone made to save space, only one of the two layouts may have been pulled.
    pulled = (path for path in candidates if not any(map(_is_pointer, files_of(path))))
    return next(pulled, candidates[0] if candidates else None)


def _is_other_model(folder: Path, repo_id: str, filename: str) -> bool:
    """Whether a folder is the clone of another FLUX.1 repository, as far as its files or its path tell.

    Several FLUX.1 models have the same shapes, so that their weights cannot tell them apart.
    """
    if any(file.name != filename for file in folder.glob("flux1-*.safetensors")):
        return not (folder / filename).is_file()
    names = re.findall(r"flux\.1-(?:dev|schnell|[a-z]+-dev)", str(folder.absolute()).lower())
    return bool(names) and names[-1] != repo_id.rpartition("/")[2].lower()


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


def _checked(path: Path) -> Path:
    for file in files_of(path):
        read_header(file)
    return path


def _encoder_within(folder: Path, part: Part) -> Path | None:
    return next((f for f in (folder / part.folder, folder) if (f / "config.json").is_file()), None)


def _checked_encoder(folder: Path, part: Part, width: int | None) -> Path:
    """A text encoder's folder, after a look at its config, its weights and its tokenizer."""
    _check_encoder_config(folder, part, width)
    if not weight_files(folder) and not any(folder.glob("pytorch_model*.bin")):
        raise CheckpointError(f"{folder} has no weights: download the encoder's model.safetensors into it")
    _checked(folder)
    tokenizer = folder.with_name(folder.name.replace("text_encoder", "tokenizer"))
    files = [file for place in {folder, tokenizer} if place.is_dir() for file in place.iterdir()]
    for file in files:
        if _is_pointer(file):
            raise _pointer_error(file)
    if not TOKENIZER_FILES.intersection(file.name for file in files):
        raise CheckpointError(
            f"{folder} has no tokenizer: put {tokenizer.name}/ beside it, or tokenizer.json into it"
        )
    return folder


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


def read_json(file: Path) -> dict:
    """The object in a JSON file; CheckpointError if it cannot be read or is something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is not a JSON object: download it again")
    return found


# Checking


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


def _is_pointer(file: Path) -> bool:
    try:
        with open(file, "rb") as stream:
            return stream.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER
    except OSError:
        return False


def _pointer_error(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} is a git-lfs pointer, not the weights: run `git lfs pull` in the clone, or download the file"
    )


# Downloading


def _from_hub(
    repo_id: str,
    filename: str,
    env_var: str,
    checkpoints: Path,
    download: Callable[..., str] | None,
) -> Path:
    """`checkpoints/<repository>/<file>`, downloaded there unless it, or a copy in the hub's cache, exists."""
    import huggingface_hub

    folder = checkpoints / repo_id.replace("/", "_")
    if (folder / filename).exists():
        return folder / filename
    cached = huggingface_hub.try_to_load_from_cache(repo_id, filename)
    if isinstance(cached, str):
        return Path(cached)
    try:
        fetch = download or huggingface_hub.hf_hub_download
        return Path(fetch(repo_id, filename, local_dir=folder))
    except Exception as error:  # The hub's client raises whatever its HTTP library of the day does.
        raise CheckpointError(
            f"{hub_problem(repo_id, filename, error)}, or set {env_var} to a file you have"
        ) from error


def hub_problem(repo_id: str, filename: str, error: Exception) -> str:
    """Why a download failed and what to do, in words."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    login = "log in with `hf auth login` or HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{filename} needs a licence: accept it at {page} and {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{filename}: {page} is not there or not open to you: {login}, check HF_ENDPOINT"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{filename} is not in the cache and HF_HUB_OFFLINE forbids to download it: unset HF_HUB_OFFLINE"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return f"{filename} cannot be downloaded, no answer from {page}: check the network or set HF_ENDPOINT"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{filename} is not at {page}: check HF_ENDPOINT"
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) in (401, 403):
        return f"{filename} is not open to you: accept the licence at {page} and {login}"
    reason = next(iter(str(error).strip().splitlines()), "")
    problem = f"{type(error).__name__}: {reason}"
    return f"{filename} cannot be downloaded from {page} ({problem}): check network and disk"
