"""Where are the weight files of a model? Each part is looked for in this order:

1. the argument `weights`, one folder for all parts, such as a clone of the FLUX.1-dev repository;
2. the part's own variable: FLUX_MODEL, FLUX_AE, FLUX_LORA, FLUX_REDUX (a file, or a folder that holds it),
   FLUX_T5 and FLUX_CLIP (a folder, or a file such as ComfyUI's);
3. FLUX_REPO, a clone as in 1, if it has the part; or the name of a model that comes with the package;
4. `checkpoints/<repository with / replaced by _>/<file>`;
5. the hub: its cache, then its server.

A folder holds a part as one file (`flux1-dev.safetensors`) or as diffusers does (`transformer/`, in shards
or not); the hub's cache keeps such folders, and one shard or the index stands for all. Whatever stands in
the way is a `CheckpointError`: one line that names the file and the remedy.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flux.models import ModelSpec, configs
from flux.weights.check import (
    CheckpointError,
    check_encoder,
    check_files,
    files_near,
    files_of,
    has_tokenizer,
    is_pointer,
    tokenizer_folder,
    tokenizer_name,
    weight_files,
)
from flux.weights.hub import fetch_file
from flux.weights.parts import FLOW, PARTS, Part

CHECKPOINTS_DIR = Path("checkpoints")


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
    env_var: the variable that may name it, see `flux.weights.parts`.
    weights: look nowhere but in this folder (or take this file). checkpoints: instead of `CHECKPOINTS_DIR`.
    download: instead of `huggingface_hub.hf_hub_download`.
    """
    found = locate_file(repo_id, filename, env_var, weights=weights, checkpoints=checkpoints)
    if found is not None:
        return found
    folder = _stored(repo_id, checkpoints)
    return check_files(fetch_file(repo_id, filename, folder, env_var=env_var, download=download))


def locate_file(
    repo_id: str,
    filename: str,
    env_var: str,
    *,
    weights: str | Path | None = None,
    checkpoints: Path | None = None,
) -> Path | None:
    """What `find_file` takes without asking the hub or its cache, checked; None where it would ask them."""
    part = PARTS.get(env_var, Part("file", env_var))
    for source, value in (("weights", weights), (env_var, os.environ.get(env_var))):
        if value:
            return check_files(_named(source, _opened(source, value), part, repo_id, filename), part)
    clone, stored = _clone(), _stored(repo_id, checkpoints) / filename
    found = clone and _within(clone, part, repo_id, filename)
    if found is None and stored.exists():
        found = stored
    return found and check_files(found)


def _stored(repo_id: str, checkpoints: Path | None) -> Path:
    return (checkpoints or CHECKPOINTS_DIR) / repo_id.replace("/", "_")


def find_text_encoder(
    part: Part, hub_name: str, *, width: int | None = None, weights: str | Path | None = None
) -> str:
    """The checked folder or file of T5 or CLIP, or `hub_name` where the user names none.

    width: channels the encoder must have. weights: look nowhere but in this folder (or take this file).
    """
    for source, value in (("weights", weights), (part.env_var, os.environ.get(part.env_var))):
        if value:
            path = _opened(source, value)
            found = _encoder_within(path, part) if path.is_dir() else path
            if found is None:
                raise CheckpointError(
                    f"{source} names {path}, which holds no {part.title}, neither {part.folder}/ "
                    f"nor config.json: name the encoder's folder or a clone of FLUX.1-dev{files_near(path)}"
                )
            return str(check_encoder(found, part, width))
    clone = _clone()
    found = clone and _encoder_within(clone, part)
    return str(check_encoder(found, part, width)) if found else hub_name


def find_tokenizer(part: Part, encoder: Path, hub_name: str) -> str:
    """The folder of the tokenizer that goes with an encoder's folder or file, else the hub's name.

    It is looked for with the encoder, beside it as a clone has it, and in FLUX_REPO.
    """
    name = tokenizer_name(Path(part.folder), part)
    if encoder.is_dir():
        return str(tokenizer_folder(encoder, part))
    clone = _clone()
    places = (encoder.parent / name, encoder.parent, clone and clone / name)
    return next((str(place) for place in places if place and has_tokenizer(place)), hub_name)


def stand_in(spec: ModelSpec, part: Part) -> ModelSpec | None:
    """The model of the package that FLUX_REPO names, where it is asked for a part of another one.

    So a script that asks for flux-dev runs on flux-tiny, see `flux.weights.load`.
    """
    plain = spec.params.in_channels == spec.params.out_channels and spec.lora_repo_id is None
    clone = _clone() if plain and not spec.embedded and not os.environ.get(part.env_var) else None
    if clone is None or (clone / spec.repo_flow).exists():
        return None
    embedded = (record for record in configs.values() if record.embedded)
    return next((replace(e, home=clone) for e in embedded if (clone / e.repo_flow).is_file()), None)


def _clone() -> Path | None:
    value = os.environ.get("FLUX_REPO")
    if not value:
        return None
    named = configs.get(value)
    if named is not None and named.home is not None and not Path(value).exists():
        return named.home
    clone = Path(value).expanduser()
    if not clone.is_dir():
        raise CheckpointError(
            f"FLUX_REPO names {clone}, which is not a folder: name a clone of FLUX.1-dev or unset it "
            "(FLUX_MODEL, FLUX_AE, FLUX_T5 and FLUX_CLIP name single files)"
        )
    return _snapshot(clone)


def _named(source: str, path: Path, part: Part, repo_id: str, filename: str) -> Path:
    """What `path` means for a part. `source` is the argument or variable that named it, for messages."""
    if not path.is_dir():
        return path
    found = _within(path, part, repo_id, filename)
    if found is None:
        also = f" nor {part.folder}/ of that model" if part.folder else ""
        raise CheckpointError(
            f"{source} names the folder {path}, which holds neither {filename}{also}: name the "
            f"{part.title}'s file, or a clone of {repo_id}{files_near(path)}"
        )
    return found


def _opened(source: str, value: str | Path) -> Path:
    """What the user names, see `_snapshot`. source: the argument or variable that named it, for messages."""
    path = Path(value).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"{source} names {path}, which does not exist: correct the path or leave {source} out"
        )
    return _snapshot(path)


def _snapshot(path: Path) -> Path:
    """The path itself, or of a model's folder in the hub's cache (`models--...`) the release it holds."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    main = path / "refs" / "main"
    releases = sorted(release for release in snapshots.iterdir() if release.is_dir())
    if main.is_file():
        named = snapshots / main.read_text(encoding="utf-8", errors="replace").strip()[:100]
        releases = [named] if named.is_dir() else releases
    if len(releases) == 1:
        return releases[0]
    raise CheckpointError(
        f"{path} holds {len(releases)} releases in snapshots/: name the folder of one of them"
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
    pulled = (path for path in candidates if not any(map(is_pointer, files_of(path))))
    return next(pulled, candidates[0] if candidates else None)


def _is_other_model(folder: Path, repo_id: str, filename: str) -> bool:
    """Whether a folder is the clone of another FLUX.1 repository, as far as its files or its path tell.

    Several FLUX.1 models have the same shapes, so that their weights cannot tell them apart.
    """
    if any(file.name != filename for file in folder.glob("flux1-*.safetensors")):
        return not (folder / filename).is_file()
    names = re.findall(r"flux\.1-(?:dev|schnell|[a-z]+-dev)", str(folder.absolute()).lower())
    return bool(names) and names[-1] != repo_id.rpartition("/")[2].lower()


def _encoder_within(folder: Path, part: Part) -> Path | None:
    return next((f for f in (folder / part.folder, folder) if (f / "config.json").is_file()), None)
