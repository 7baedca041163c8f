"""Which weight files a run needs and whether they are there. Nothing is downloaded or loaded."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from flux.models import configs
from flux.studies.machine import size_in_words
from flux.studies.run import weights_folder
from flux.studies.spec import Spec
from flux.weights import find as checkpoints
from flux.weights.find import CheckpointError, Part

DOWNLOAD = "not here, to be downloaded"


def needed_files(spec: Spec, others: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Title, place and state, in words, of each part of the spec's model, and of other models.

    others: folder or hub name by title.
    """
    model = configs[spec.model.name]
    for part, file in ((checkpoints.FLOW, model.repo_flow), (checkpoints.AE, model.repo_ae)):
        yield part.title, *_file(spec, part, model.repo_id, file)
    for part, hub_name in ((checkpoints.T5, model.t5), (checkpoints.CLIP, model.clip)):
        yield part.title, *_encoder(spec, part, hub_name)
    for title, source in others.items():
        yield title, source, _there(Path(source)) or _cached(source)


def _file(spec: Spec, part: Part, repo_id: str, file: str) -> tuple[str, str]:
    """Place and state of the flow model or the autoencoder."""
    folder = weights_folder(spec)
    named = folder or os.environ.get(part.env_var) or _in_clone(part, file)
    if not named:
        stored = checkpoints.CHECKPOINTS_DIR / repo_id.replace("/", "_") / file
        there = _there(stored)
        return (str(stored), there) if there else (f"{repo_id}/{file}", _cached(repo_id, file))
    try:
        path = checkpoints.find_file(repo_id, file, part.env_var, weights=folder)
    except CheckpointError as error:
        return str(named), str(error)
    return str(path), _there(path)


def _in_clone(part: Part, file: str) -> str | None:
    """The folder FLUX_REPO names, if it holds the part."""
    clone = os.environ.get("FLUX_REPO")
    if not clone or not ((Path(clone) / file).is_file() or (Path(clone) / part.folder).is_dir()):
        return None
    return clone


def _encoder(spec: Spec, part: Part, hub_name: str) -> tuple[str, str]:
    """Place and state of a text encoder."""
    folder = weights_folder(spec)
    try:
        found = checkpoints.find_text_encoder(part, hub_name, weights=folder)
    except CheckpointError as error:
        return str(folder or os.environ.get(part.env_var) or os.environ.get("FLUX_REPO")), str(error)
    return found, _there(Path(found)) or _cached(found)


def _there(path: Path) -> str:
    """`there, 23.8 GB`; empty for what is not."""
    files = [path] if path.is_file() else list(path.rglob("*.safetensors")) if path.is_dir() else []
    return f"there, {size_in_words(sum(file.stat().st_size for file in files))}" if files else ""


def _cached(repo_id: str, file: str = "config.json") -> str:
    """Whether the hub's cache has it."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return DOWNLOAD
    return "in the hub's cache" if isinstance(try_to_load_from_cache(repo_id, file), str) else DOWNLOAD
