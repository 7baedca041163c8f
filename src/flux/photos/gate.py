"""How well a picture comes back before it is edited, and in words what to do where it does not."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from flux.pictures.features import Dino
from flux.pictures.metrics import WINDOW, patch_similarity, psnr, ssim


@dataclass(frozen=True)
class Likeness:
    """A picture beside the one it should be: PSNR in dB, SSIM, and patch by patch the DINO similarity.

    psnr is None for equal pictures; the others are 1 there. ssim is None for pictures below 7 pixels, dino
    where there is no DINO model.
    """

    psnr: float | None
    ssim: float | None
    dino: float | None


@dataclass(frozen=True)
class Gate:
    """What can be told of a source before it is edited.

    autoencoder: what the autoencoder alone makes of it, beside it; None where the latent was there first.
    replay: what comes back when the source is taken to noise and back with nothing asked for, beside what the
    autoencoder makes of it; for methods that invert, see `flux.photos.replays`. advice: in words.
    """

    autoencoder: Likeness | None
    replay: Likeness | None = None
    advice: tuple[str, ...] = ()


LEAST_PSNR = 25.0
"""dB. flux-tiny's autoencoder gives 45 of 45 rendered scenes back at 25.9 or more, and 13 of 13 photographs
of the real world, of which it knows nothing, at 24.1 or less."""

LEAST_SSIM = 0.85
"""The same scenes have .904 or more, the photographs .804 or less."""

LEAST_REPLAY = 25.0
"""dB. On flux-tiny 24 scenes came back by Euler's rule at 14.8 in 8 steps and 18.3 in 16, and at 25.7 to 40.0
by a nudge or by rules of second order."""

REMEDIES = ("a nudge", "more steps", "an integrator of second order")


def liken(a: Image.Image, b: Image.Image, dino: Dino | None = None) -> Likeness:
    """How alike two pictures of one size are."""
    ratio = psnr(a, b)
    return Likeness(
        psnr=None if math.isinf(ratio) else ratio,
        ssim=ssim(a, b) if min(a.size) >= WINDOW else None,
        dino=None if dino is None else patch_similarity(a, b, dino),
    )


def gate_of(
    picture: Image.Image | None,
    reconstruction: Image.Image,
    replay: Image.Image | None = None,
    dino: Dino | None = None,
    remedies: Sequence[str] = REMEDIES,
) -> Gate:
    """The gate of a source: its picture, if it was encoded, what the latent shows, and its replay.

    remedies: what to try where the replay is poor, beside a method that does not invert.
    """
    alone = None if picture is None else liken(picture, reconstruction, dino)
    again = None if replay is None else liken(reconstruction, replay, dino)
    return Gate(alone, again, tuple(_advice(alone, again, remedies)))


def _advice(alone: Likeness | None, again: Likeness | None, remedies: Sequence[str]) -> Iterator[str]:
    if alone is not None and _is_poor(alone):
        yield (
            f"the autoencoder alone gives the picture back at {_in_words(alone)}: what the edit draws anew "
            "will be as coarse; crop the photo to what is to be edited, or ask for more pixels if the model "
            "draws them"
        )
    if again is not None and again.psnr is not None and again.psnr < LEAST_REPLAY:
        yield (
            f"from noise the picture comes back at {again.psnr:.1f} dB ({LEAST_REPLAY:.0f} or more is good): "
            f"take {', '.join(remedies)}, or a method that does not invert"
        )


def _is_poor(likeness: Likeness) -> bool:
    return (likeness.psnr is not None and likeness.psnr < LEAST_PSNR) or (
        likeness.ssim is not None and likeness.ssim < LEAST_SSIM
    )


def _in_words(likeness: Likeness) -> str:
    structure = "" if likeness.ssim is None else f" and SSIM {likeness.ssim:.2f}"
    good = f"{LEAST_PSNR:.0f} dB" + (f" and {LEAST_SSIM}" if structure else "") + " or more is good"
    return f"{likeness.psnr:.1f} dB{structure} ({good})"
