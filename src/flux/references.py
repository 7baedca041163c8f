"""What a picture that a model looks at adds to its inputs.

Channels for Control and Fill models, tokens for Kontext, text for Redux.
Pictures are RGB in [-1, 1], (1, 3, H, W). A reference is made of one picture and repeated for several rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from flux.models import kontext_size
from flux.modules.autoencoder import AutoEncoder
from flux.packing import image_ids, pack
from flux.pictures.opening import open_picture

Source = str | Path | Image.Image
"""A picture, or its file."""

ControlEncoder = Callable[[Tensor], Tensor]
"""RGB in [-1, 1] to a map of the same size, (1, 3, H, W); see `flux.modules.image_embedders`."""

PictureEncoder = Callable[[Image.Image], Tensor]
"""A picture to tokens like T5's, (1, L, C)."""

BLOCK = 8
"""Pixels of a side that one place of a latent stands for."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What a picture adds to the inputs of a flow model; what a model does not take is None.

    channels: joined to the channels of the picture's tokens, (1, L, C).
    tokens, ids: reference tokens behind the picture's own, (1, L_ref, 64) and (1, L_ref, 3).
    text: tokens behind T5's, (1, L, C).
    """

    channels: Tensor | None = None
    tokens: Tensor | None = None
    ids: Tensor | None = None
    text: Tensor | None = None

    def of_denoising(self, rows: int) -> dict[str, Tensor]:
        """The arguments of `flux.sampling.denoise` by name, for so many rows."""
        named = {"img_cond": self.channels, "img_cond_seq": self.tokens, "img_cond_seq_ids": self.ids}
        return {name: repeated(x, rows) for name, x in named.items() if x is not None}

    def to(self, device: torch.device | str) -> "Reference":
        """The same one on a device."""
        parts = (self.channels, self.tokens, self.ids, self.text)
        return Reference(*(None if x is None else x.to(device) for x in parts))


def repeated(x: Tensor, rows: int) -> Tensor:
    """A tensor of one row for so many of them, without a copy; others as they are."""
    return x.expand(rows, *x.shape[1:]) if len(x) == 1 else x


def joined(references: Sequence[Reference]) -> Reference:
    """References of one row each as one of several rows; ValueError where their parts differ in shape."""
    first = references[0]
    if all(each is first for each in references):  # is repeated without a copy
        return first
    parts = {}
    for name in ("channels", "tokens", "ids", "text"):
        tensors = [getattr(each, name) for each in references]
        if all(x is None for x in tensors):
            continue
        shapes = {None if x is None else tuple(x.shape[1:]) for x in tensors}
        if len(shapes) > 1:
            raise ValueError(
                f"the references of pictures made side by side differ in shape ({name}: "
                f"{', '.join(sorted(map(str, shapes)))}): make them one by one"
            )
        parts[name] = torch.cat(tensors)
    return Reference(**parts)


# One function per kind of model


@torch.no_grad()
def control(
    source: Source,
    height: int,
    width: int,
    encoder: ControlEncoder,
    ae: AutoEncoder,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> Reference:
    """A map of the picture's edges or depths, encoded: 64 channels. The picture takes the size asked for."""
    picture = opened(source).resize((width, height), Image.Resampling.LANCZOS)
    drawn = encoder(as_tensor(picture).to(device))
    return Reference(channels=_encoded(ae, drawn, device, dtype))


@torch.no_grad()
def fill(
    source: Source,
    mask: Source,
    height: int,
    width: int,
    ae: AutoEncoder,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> Reference:
    """What is to stay, encoded, and the mask: 64 and 256 channels.

    mask: white where the picture is to be filled, read as shares of grey. ValueError unless picture and mask
    have the size asked for, in pixels.
    """
    picture, white = opened(source), opened(mask)
    check_fill_sizes(picture, white, height, width)
    share = torch.from_numpy(np.array(white.convert("L"))).float()[None, None] / 255
    kept = as_tensor(picture) * (1 - share)
    blocks = rearrange(share, "b 1 (h ph) (w pw) -> b (ph pw) h w", ph=BLOCK, pw=BLOCK)
    masked = pack(blocks).to(device, dtype)
    return Reference(channels=torch.cat((_encoded(ae, kept, device, dtype), masked), dim=-1))


@torch.no_grad()
def redux(
    source: Source,
    encoder: PictureEncoder,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> Reference:
    """The picture as words: tokens that stand behind T5's."""
    return Reference(text=encoder(opened(source)).to(device, dtype))


@torch.no_grad()
def kontext(
    source: Source,
    ae: AutoEncoder,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Reference, Tensor]:
    """The picture as reference tokens, and itself in the size in which the model saw it, (1, 3, H, W)."""
    picture = opened(source)
    picture = as_tensor(picture.resize(kontext_size(*picture.size), Image.Resampling.LANCZOS))
    tokens = _encoded(ae, picture, device, dtype)
    ids = image_ids(picture.shape[2] // (2 * BLOCK), picture.shape[3] // (2 * BLOCK))
    ids[:, 0] = 1  # a reference, not the picture itself
    return Reference(tokens=tokens, ids=ids[None].to(device)), picture


# Pictures


def opened(source: Source) -> Image.Image:
    """8-bit RGB. Raises PictureError, one line, for a file that is no picture."""
    return source.convert("RGB") if isinstance(source, Image.Image) else open_picture(Path(source))


def as_tensor(picture: Image.Image) -> Tensor:
    """RGB in [-1, 1], float32 (1, 3, H, W)."""
    return rearrange(torch.from_numpy(np.array(picture)).float() / 127.5 - 1, "h w c -> 1 c h w")


def check_fill_sizes(picture: Image.Image, mask: Image.Image, height: int, width: int) -> None:
    """Raise ValueError, one line, unless both have the size that is to be filled."""
    for name, image in (("the picture", picture), ("the mask", mask)):
        if image.size != (width, height):
            raise ValueError(
                f"{name} has {image.size[0]} x {image.size[1]} pixels where {width} x {height} are needed: "
                "picture and mask have one size, of multiples of 16"
            )


def _encoded(ae: AutoEncoder, picture: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """A picture's latent, packed, (1, L, 64)."""
    return pack(ae.encode(picture.to(device))).to(dtype)
