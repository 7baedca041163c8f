"""What is edited: photographs, generated pictures and latents, opened to what a method takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flux.conditions import Conditions, Region
from flux.generate import Sampling, Texts, decode, encode_pictures, sample_steps
from flux.photos.framing import Fit, Frame, frame_photo
from flux.photos.gate import REMEDIES, Gate, gate_of
from flux.pictures.features import Dino
from flux.pictures.files import to_pil
from flux.pictures.opening import open_picture
from flux.pictures.rgb import rgb
from flux.placement.modes import Offload
from flux.references import Reference
from flux.sampling import Step
from flux.weights.load import Models

Picture = Path | str | Image.Image


@dataclass(frozen=True, eq=False)
class EditSource:
    """What is edited, and the prompt that describes it.

    photo: a file, or a picture of any size and mode. Without one the source is generated from prompt and
    seed. latent: packed, (L, 64), where it is known already: of a picture, or of the photo at the size it is
    edited at. seed: of the method's noise too. regions: parts of it that have prompts of their own, as those
    of edits; of one that is generated they are not asked.
    """

    prompt: str
    photo: Picture | None = None
    seed: int = 0
    latent: Tensor | None = None
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, eq=False)
class OpenedSource:
    """A source as the model sees it. Pictures are RGB in about [-1, 1], float32 (3, height, width).

    picture: the photo at the model's size, or what was generated. reconstruction: what the autoencoder makes
    of it; the same picture where the latent was there first. latent: packed, float32 (L, 64), on the CPU.
    frame: what the picture shows of the photo. gate: None where it was not asked for, or says nothing.
    """

    picture: Tensor
    reconstruction: Tensor
    latent: Tensor
    frame: Frame
    gate: Gate | None = None

    @property
    def image(self) -> Image.Image:
        """The picture, in 8 bits."""
        return to_pil(self.picture)


def open_photo(photo: Picture) -> Image.Image:
    """A photo as 8-bit RGB, upright, at its own size; PictureError for a file that cannot be opened."""
    return rgb(photo) if isinstance(photo, Image.Image) else open_picture(Path(photo))


def frame_source(source: EditSource, fit: Fit, size: tuple[int, int], largest: int | None) -> Frame:
    """What a source's picture shows; raises PictureError and ValueError for a photo that cannot be edited."""
    whole = Frame(size, size, (0, 0, *size))
    if source.photo is None:
        return whole
    photo = open_photo(source.photo)
    # Where the model draws no picture as large, the latent is of a smaller one.
    if photo.size == size and source.latent is not None and 256 * len(source.latent) == size[0] * size[1]:
        return whole
    try:
        return frame_photo(photo.size, fit, size=size, largest=largest)
    except ValueError as error:
        if isinstance(source.photo, Image.Image):
            raise
        raise ValueError(f"{source.photo}: {error}") from None


def latents_of(
    models: Models,
    texts: Texts,
    sources: Sequence[EditSource],
    frames: Sequence[Frame],
    sampling: Sampling,
    *,
    reference: Reference | None = None,
    offload: Offload = False,
) -> Iterator[Step | tuple[int, Tensor]]:
    """Yield the latent of each source, (L, 64) on the CPU, by its index; and steps where it is sampled.

    reference: the picture that the model looks at while it samples.
    """
    drawn = [i for i, each in enumerate(sources) if each.photo is None and each.latent is None]
    if drawn:
        step = None
        prompts, seeds = [sources[i].prompt for i in drawn], [sources[i].seed for i in drawn]
        how = {"offload": offload, "conditions": Conditions(references=(reference,) if reference else ())}
        for step in sample_steps(models, texts, prompts, seeds, sampling, **how):
            yield step
        yield from zip(drawn, step.after.float().cpu(), strict=True)
    for i, (each, frame) in enumerate(zip(sources, frames, strict=True)):
        if each.latent is not None:
            yield i, each.latent.float().cpu()
        elif each.photo is not None:
            picture = to_tensor(frame.cut(open_photo(each.photo)))
            yield i, encode_pictures(models, picture[None], offload=offload)[0].cpu()


def show_source(
    models: Models,
    source: EditSource,
    latent: Tensor,
    frame: Frame,
    sampling: Sampling,
    *,
    replay: Tensor | None = None,
    gate: bool = True,
    remedies: Sequence[str] = REMEDIES,
    dino: Dino | None = None,
    offload: Offload = False,
) -> OpenedSource:
    """A source with its pictures, and how well what it shows of a photo comes back, without padding.

    replay: the latent as it came from noise.
    remedies: what to try where that is poor, see `flux.photos.gate.gate_of`.
    """
    size = replace(sampling, width=frame.size[0], height=frame.size[1])

    def shown(latent: Tensor) -> Tensor:
        return decode(models, latent[None].to(models.device), size, offload=offload)[0]

    back = shown(latent)
    cut = None if source.photo is None else frame.cut(open_photo(source.photo))
    told = None
    if gate and (cut is not None or replay is not None):
        pictures = (cut, to_pil(back), None if replay is None else to_pil(shown(replay)))
        alone, plain, again = (each and frame.without_padding(each) for each in pictures)
        told = gate_of(alone, plain, again, dino, remedies)
    return OpenedSource(back if cut is None else to_tensor(cut), back, latent, frame, told)


def to_tensor(image: Image.Image) -> Tensor:
    """An 8-bit RGB picture as RGB in [-1, 1], float32 (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
