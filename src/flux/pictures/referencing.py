"""The picture that a model looks at, made into what the model takes, with the encoder that it needs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from flux import references
from flux.formats.folder import files_of
from flux.formats.weights import Weights
from flux.generate import at_work
from flux.models import configs
from flux.modules.image_embedders import CannyImageEncoder, DepthImageEncoder, ReduxImageEncoder
from flux.pictures.looked_at import LookedAt
from flux.placement.modes import Offload
from flux.references import Reference
from flux.weights.find import find_file
from flux.weights.load import Models
from flux.weights.parts import REDUX

SIGLIP_WIDTH = 1152

Encoder = CannyImageEncoder | DepthImageEncoder | ReduxImageEncoder


def find_projector(weights: str | Path | None = None, find: Callable[..., Path] = find_file) -> Path:
    """The file of FLUX.1-Redux: in `weights` if it is there, else where FLUX_REDUX and all others look."""
    record = configs["flux-dev-redux"]
    inside = weights is not None and (Path(weights).expanduser() / record.repo_flow).is_file()
    return find(record.repo_id, record.repo_flow, REDUX.env_var, weights=weights if inside else None)


def load_encoder(kind: str, models: Models, projector: Path | None = None) -> Encoder | None:
    """What looks at the picture for a kind of reference; None where the autoencoder does.

    projector: for Redux its file, see `find_projector`. Raises OSError or ValueError, one line, for models
    that cannot be had.
    """
    if kind == "canny":
        return CannyImageEncoder(models.device)
    if kind == "depth":
        return DepthImageEncoder(models.device)
    if kind == "redux":
        file = find_projector() if projector is None else projector
        up = Weights(files_of(file)).shapes().get("redux_up.weight")
        width = SIGLIP_WIDTH if up is None or up.ndim != 2 else up.shape[1]
        context = models.spec.params.context_in_dim
        return ReduxImageEncoder(models.device, file, width, context, models.dtype)
    return None


@torch.no_grad()
def make_reference(
    kind: str,
    models: Models,
    seen: LookedAt,
    height: int,
    width: int,
    encoder: Encoder | None = None,
    *,
    offload: Offload = False,
) -> Reference:
    """The reference of a picture for models of a kind, in the models' dtype and on their device.

    height, width: of what is made, in pixels. encoder: as `load_encoder` gives it.
    """
    where = {"device": models.device, "dtype": models.dtype}
    if kind == "redux":
        return references.redux(seen.picture, encoder, **where)
    with at_work(models.device, offload, models.ae):
        if kind == "fill":
            return references.fill(seen.picture, seen.mask, height, width, models.ae, **where)
        if kind == "kontext":
            return references.kontext(seen.picture, models.ae, **where)[0]
        return references.control(seen.picture, height, width, encoder, models.ae, **where)


def encoder_source(kind: str) -> tuple[str, str] | None:
    """The title, and the folder or the hub's name, of the model that looks at the picture for a kind of
    reference; None where none does."""
    sources = {
        "depth": ("Depth Anything", DepthImageEncoder.depth_model_name),
        "redux": ("SigLIP", ReduxImageEncoder.siglip_model_name),
    }
    return sources.get(kind)


def make_references(
    kind: str,
    models: Models,
    seen: Sequence[LookedAt],
    height: int,
    width: int,
    *,
    offload: Offload = False,
    weights: str | Path | None = None,
) -> dict[LookedAt, Reference]:
    """The references of several pictures, each made once; the encoder is let go behind them.

    weights: the folder in which Redux's projector is looked for first.
    """
    sized = [(each, height, width) for each in seen]
    made = make_sized(kind, models, sized, offload=offload, weights=weights)
    return {seen: reference for (seen, *_), reference in made.items()}


Sized = tuple[LookedAt, int, int]
"""A picture that is looked at, and height and width of what is made."""


def make_sized(
    kind: str,
    models: Models,
    wanted: Sequence[Sized],
    *,
    offload: Offload = False,
    weights: str | Path | None = None,
) -> dict[Sized, Reference]:
    """The same for pictures of several sizes."""
    encoder = load_encoder(kind, models, find_projector(weights) if kind == "redux" else None)
    return {
        each: make_reference(kind, models, *each, encoder, offload=offload) for each in dict.fromkeys(wanted)
    }
