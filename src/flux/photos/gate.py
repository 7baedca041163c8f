"""How well a picture comes back before it is edited, and in words what to do where it does not."""

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from flux.pictures.features import Dino
from flux.pictures.metrics import WINDOW, patch_similarity, psnr, ssim


@dataclass(frozen=True)
class Likeness:
    """A picture beside the one it should be: PSNR in dB, SSIM, and patch by patch the DINO similarity.

    psnr is infinite for equal pictures; the others are 1 there. ssim is None for pictures below 7 pixels,
    dino where there is no DINO model.
    """

    psnr: float
    ssim: float | None
    dino: float | None


@dataclass(frozen=True)
class Gate:
    """What can be told of a source before it is edited.

    autoencoder: its reconstruction by the autoencoder alone, without an edit. replay: what comes back when
    the source is taken to noise and sampled again freely, for methods that invert. advice: in words.
    """

    autoencoder: Likeness
    replay: Likeness | None = None
    advice: tuple[str, ...] = ()


POOR_AUTOENCODER = 25.0
"""dB: below, the autoencoder does not know the picture."""

POOR_REPLAY = 25.0
"""dB, to the autoencoder's own reconstruction: below, inversion loses the picture."""


def liken(a: Image.Image, b: Image.Image, dino: Dino | None = None) -> Likeness:
    """How alike two pictures of one size are."""
    return Likeness(
        psnr=psnr(a, b),
        ssim=ssim(a, b) if min(a.size) >= WINDOW else None,
        dino=None if dino is None else patch_similarity(a, b, dino),
    )


def gate_of(
    picture: Image.Image,
    reconstruction: Image.Image,
    replay: Image.Image | None = None,
    dino: Dino | None = None,
) -> Gate:
    """The gate of a source: its picture, what the autoencoder makes of it, and its free replay, if any."""
    alone = liken(picture, reconstruction, dino)
    again = None if replay is None else liken(reconstruction, replay, dino)
    return Gate(alone, again, tuple(_advice(alone, again)))


def _advice(alone: Likeness, again: Likeness | None) -> Iterator[str]:
    if alone.psnr < POOR_AUTOENCODER:
        yield (
            f"the autoencoder gives the picture back at {alone.psnr:.1f} dB alone (good is "
            f"{POOR_AUTOENCODER:.0f} or more): edit it at more pixels, or crop it to the region of the edit"
        )
    if again is not None and again.psnr < POOR_REPLAY:
        yield (
            f"from noise the picture comes back at {again.psnr:.1f} dB (good is {POOR_REPLAY:.0f} or more): "
            "take more steps, an integrator of second order, or a method without inversion such as flowedit"
        )
