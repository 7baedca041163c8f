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


LEAST_PSNR = 25.0
"""dB. flux-tiny's autoencoder gives 45 of 45 rendered scenes back at 25.9 or more, and 13 of 13 photographs
of the real world, of which it knows nothing, at 24.1 or less."""

LEAST_SSIM = 0.85
"""The same scenes have .904 or more, the photographs .804 or less."""


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
    if _is_poor(alone):
        yield (
            f"the autoencoder alone gives the picture back at {_in_words(alone)}: what the edit draws anew "
            "will be as coarse; crop the photo to what is to be edited, or ask for more pixels if the model "
            "draws them"
        )
    if again is not None and again.psnr < LEAST_PSNR:
        yield (
            f"from noise the picture comes back at {again.psnr:.1f} dB ({LEAST_PSNR:.0f} or more is good): "
            "take a nudge, more steps, an integrator of second order, or a method that does not invert"
        )


def _is_poor(likeness: Likeness) -> bool:
    structure = 1.0 if likeness.ssim is None else likeness.ssim
    return likeness.psnr < LEAST_PSNR or structure < LEAST_SSIM


def _in_words(likeness: Likeness) -> str:
    structure = "" if likeness.ssim is None else f" and SSIM {likeness.ssim:.2f}"
    good = f"{LEAST_PSNR:.0f} dB" + (f" and {LEAST_SSIM}" if structure else "") + " or more is good"
    return f"{likeness.psnr:.1f} dB{structure} ({good})"
