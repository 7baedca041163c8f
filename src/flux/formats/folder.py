"""Which weight files does a path stand for? Shards belong together; folders have a few names for them."""

import json
import re
from pathlib import Path

from flux.formats.header import CheckpointError

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""How diffusers and transformers call their files."""

SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.safetensors|\.bin)")


def files_of(path: Path) -> list[Path]:
    """The weight files of a path: of a folder, an index of shards, all shards for one of them, or itself."""
    if path.is_dir():
        return weight_files(path)
    if path.name.endswith(".json") and ".index." in path.name:
        return _shards(path)
    shard = SHARD.fullmatch(path.name)
    return _with_siblings(path, *shard.groups()) if shard else [path]


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder in diffusers or transformers layout, empty if it is none of these.

    A variant, such as `model.fp16.safetensors`, is taken where it is the only one.
    """
    for stem in STEMS:
        for kind in ("safetensors", "bin"):
            index, whole = folder / f"{stem}.{kind}.index.json", folder / f"{stem}.{kind}"
            if index.is_file():
                return _shards(index)
            if whole.is_file():
                return [whole]
        variants = [*folder.glob(f"{stem}.safetensors.index.*.json")]
        variants = [*variants, *(f for f in folder.glob(f"{stem}.*.safetensors") if not SHARD.match(f.name))]
        if len(variants) == 1:
            return files_of(variants[0])
        if variants:
            names = ", ".join(sorted(file.name for file in variants))
            raise CheckpointError(f"{folder} holds several variants, {names}: name the file of one of them")
    return []


def _shards(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        if not names:
            raise ValueError("no shards")
        return [index.parent / name for name in names]
    except OSError as error:
        raise CheckpointError(
            f"{index} cannot be read ({error.strerror}): name a file you may read"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is not an index of shards: download it again") from error


def _with_siblings(path: Path, stem: str, count: str, kind: str) -> list[Path]:
    """All shards where one of them is named, which nobody means alone."""
    if not 0 < int(count) <= 10_000:
        return [path]
    return [path.with_name(f"{stem}-{i + 1:05}-of-{count}{kind}") for i in range(int(count))]
