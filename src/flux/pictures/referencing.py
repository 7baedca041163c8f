"""The picture that a model looks at, made into what the model takes, with the encoder that it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from flux import references
from flux.formats.folder import files_of
from flux.formats.weights import Weights
from flux.generate import at_work
from flux.models import configs
from flux.modules.image_embedders import CannyImageEncoder, DepthImageEncoder, ReduxImageEncoder
from flux.pictures.opening import PictureError, open_picture
from flux.references import Reference
from flux.weights.find import find_file
from flux.weights.load import Models
from flux.weights.parts import REDUX

SIGLIP_WIDTH = 1152

Encoder = CannyImageEncoder | DepthImageEncoder | ReduxImageEncoder


@dataclass(frozen=True)
class LookedAt:
    """A picture's file, and for Fill the mask's."""

    picture: Path
    mask: Path | None = None


def picture_problem(kind: str, seen: LookedAt) -> tuple[str, str] | None:
    """What is wrong with the files for a kind of reference: "picture" or "mask", and why, in words.

    kind: as in `flux.models.ModelSpec.reference`. Asked before weights are loaded.
    """
    try:
        picture = open_picture(seen.picture)
    except PictureError as error:
        return "picture", str(error)
    if kind != "fill":
        return None
    width, height = picture.size
    if width % 16 or height % 16:
        fitting = f"{width // 16 * 16} x {height // 16 * 16}"
        return (
            "picture",
            f"{seen.picture}: {width} x {height} pixels are no multiples of 16: cut it to {fitting}",
        )
    if seen.mask is None:
        return "mask", "missing: name a picture of the same size, white where it is to be filled"
    try:
        mask = open_picture(seen.mask)
    except PictureError as error:
        return "mask", str(error)
    if mask.size != picture.size:
        size = f"{mask.size[0]} x {mask.size[1]} pixels, the picture {width} x {height}"
        return "mask", f"{seen.mask}: has {size}: they must have one size"
    return None


def own_size(kind: str, picture: Path) -> tuple[int, int] | None:
    """The width and height that a picture decides, where none are asked for; None where it decides none."""
    size = open_picture(picture).size
    return {"fill": size, "kontext": references.kontext_size(*size)}.get(kind)


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
    offload: bool = False,
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


def make_references(
    kind: str,
    models: Models,
    seen: Sequence[LookedAt],
    height: int,
    width: int,
    *,
    offload: bool = False,
) -> dict[LookedAt, Reference]:
    """The references of several pictures, each made once; the encoder is let go behind them."""
    encoder = load_encoder(kind, models)
    size = (height, width, encoder)
    return {each: make_reference(kind, models, each, *size, offload=offload) for each in dict.fromkeys(seen)}
