"""Which weight files a run needs and whether they are there. Nothing is downloaded or loaded."""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from flux.lora.plan import lora_file
from flux.models import configs
from flux.modules.pretrained import check_pretrained
from flux.studies.machine import size_in_words
from flux.studies.run import encoders_of, weights_folder
from flux.studies.spec import Spec
from flux.weights.check import CheckpointError, files_of
from flux.weights.find import find_text_encoder, locate_file
from flux.weights.hub import cached_file
from flux.weights.identity import base_of, further_files
from flux.weights.load import check_ae, check_flow
from flux.weights.parts import AE, CLIP, FLOW, T5, Part


def needed_files(spec: Spec, others: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Title, place and state, in words, of each part of the spec's model, and of other models.

    others: folder or hub name by title.
    """
    model = configs[spec.model.name]
    base = base_of(model)
    # The flow file that a LoRA turns into another model is as wide as its own.
    of_flow = base if model.lora_filename else model
    for part, file, check in (
        (FLOW, base.repo_flow, partial(check_flow, of_flow)),
        (AE, base.repo_ae, partial(check_ae, model)),
    ):
        yield part.title, *_file(spec, part, base.repo_id, file, check)
    for part, repo_id, file in further_files(model):
        folder = weights_folder(spec)
        inside = folder if folder is not None and (folder / file).is_file() else None
        yield part.title, *_located(part, repo_id, file, inside)
    for part, hub_name in ((T5, model.t5), (CLIP, model.clip)):
        yield part.title, *_encoder(spec, part, hub_name)
    for each in spec.model.lora or ():
        yield "LoRA", str(each.file), f"{_there(lora_file(each.file))}, scale {each.scale:g}"
    for title, source in (encoders_of(spec) | dict(others)).items():
        yield title, source, _pretrained(Path(source)) or _cached(source)


def _pretrained(folder: Path) -> str:
    """The state of a folder for `transformers`; empty where there is none."""
    if not folder.is_dir():
        return ""
    try:
        check_pretrained(folder)
    except CheckpointError as error:
        return str(error)
    return _there(folder)


def _located(part: Part, repo_id: str, file: str, folder: Path | None) -> tuple[str, str]:
    """Place and state of a file that stands beside the flow model's."""
    try:
        found = locate_file(repo_id, file, part.env_var, weights=folder)
    except CheckpointError as error:
        return os.environ.get(part.env_var) or repo_id, str(error)
    return (f"{repo_id}/{file}", _cached(repo_id, file)) if found is None else (str(found), _there(found))


def _file(spec: Spec, part: Part, repo_id: str, file: str, check: Callable[[Path], None]) -> tuple[str, str]:
    """Place and state of the flow model or the autoencoder; `check` looks at its headers."""
    try:
        found = locate_file(repo_id, file, part.env_var, weights=weights_folder(spec))
        if found is not None:
            check(found)
    except CheckpointError as error:
        return _named(spec, part) or repo_id, str(error)
    return (f"{repo_id}/{file}", _cached(repo_id, file)) if found is None else (str(found), _there(found))


def _encoder(spec: Spec, part: Part, hub_name: str) -> tuple[str, str]:
    """Place and state of a text encoder."""
    try:
        found = find_text_encoder(part, hub_name, weights=weights_folder(spec))
    except CheckpointError as error:
        return _named(spec, part) or hub_name, str(error)
    return found, _there(Path(found)) or _cached(found)


def _named(spec: Spec, part: Part) -> str | None:
    """The file or folder that the user names for a part."""
    folder = weights_folder(spec)
    return str(folder) if folder else os.environ.get(part.env_var) or os.environ.get("FLUX_REPO")


def _there(path: Path) -> str:
    """`there, 23.8 GB`; empty for what is not."""
    files = files_of(path) if path.exists() else []
    return f"there, {size_in_words(sum(file.stat().st_size for file in files))}" if files else ""


def _cached(repo_id: str, file: str = "config.json") -> str:
    """Whether the hub's cache has it."""
    return "not here, to be downloaded" if cached_file(repo_id, file) is None else "in the hub's cache"
