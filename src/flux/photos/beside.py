"""An edit that was generated beside its source comes back to it: what it left alone, pixel by pixel."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from flux.methods.masks import own_mask, unpacked
from flux.photos.framing import Frame
from flux.photos.paste import PASTE_BELOW, nothing_to_paste, paste
from flux.pictures.files import to_pil
from flux.sampling import pack


@dataclass(frozen=True, eq=False)
class GeneratedEdit:
    """An edit and the source that stood beside it.

    source: as it is kept, 8-bit RGB. pictures: what the latents of source and edit show, RGB in about
    [-1, 1], (3, height, width). latents: of both, (16, h, w). spread: the latents' standard deviation.
    mask: where the edit was allowed to change its source, (h, w) in [0, 1]; None: everywhere.
    """

    source: Image.Image
    pictures: tuple[Tensor, Tensor]
    latents: tuple[Tensor, Tensor]
    spread: float = 1.0
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ReturnedEdit:
    """An edit that came back.

    mask: where it changed its source, or was allowed to, (h, w) in [0, 1], on the latents' grid. note:
    what is to be said of it, if anything.
    """

    picture: Image.Image
    mask: Tensor
    pasted: bool
    note: str | None = None

    @property
    def mask_image(self) -> Image.Image:
        """The mask at the picture's size, white where it changed."""
        grey = Image.fromarray((self.mask * 255).round().byte().numpy())
        return grey.resize(self.picture.size, Image.Resampling.BILINEAR)

    @property
    def share(self) -> float:
        """The mean of the mask."""
        return float(self.mask.mean())

    @property
    def figures(self) -> dict[str, Any]:
        """What is known of it beside its pixels."""
        return {"mask": self.share, "pasted": self.pasted, "note": self.note}


def come_back(
    edit: GeneratedEdit, when: bool | Literal["auto"] = "auto", residual: bool | Literal["auto"] = "auto"
) -> ReturnedEdit:
    """Paste an edit into its source by its mask, or else by what it changed.

    when: "auto" where that covers less than `PASTE_BELOW`.
    residual: as `paste` takes it. What comes back whole is the edit's own picture.
    """
    height, width = (8 * side for side in edit.latents[0].shape[1:])
    clean, changed = (pack(each[None]) for each in edit.latents)
    size = (height // 16, width // 16)
    mask = edit.mask
    if mask is None:
        mask = unpacked(own_mask(clean, changed, size, edit.spread), size)[0]
    whole = ReturnedEdit(to_pil(edit.pictures[1]), mask, False)
    if when is False:
        return whole
    if when == "auto" and whole.share >= PASTE_BELOW:
        return replace(whole, note=nothing_to_paste(whole.share))
    frame = Frame((width, height), (width, height), (0, 0, width, height))
    before, after = edit.pictures
    return replace(whole, picture=paste(edit.source, frame, mask, after, before, residual), pasted=True)
