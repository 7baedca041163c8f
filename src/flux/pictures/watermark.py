"""The invisible watermark of FLUX pictures: 46 bits that the `invisible-watermark` package reads (`dwtDct`).

What its reader does: take the chroma channel U of an 8-bit picture, sum each 2 x 2 pixels and halve the sum
(the low band of a Haar wavelet), cut these coefficients into blocks of 4 x 4, row by row, and look at the
largest coefficient of each block but its first. The remainder of that one modulo 36 is a vote for one bit: 1
above 18, 0 below. Block n votes for bit n modulo 46.

So marking a block means moving its largest coefficient to the middle of the right half of a step of 36. Luma
(Y) and the other chroma channel (V) stay as they are, and most pixels keep their value to the bit.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

WATERMARK_MESSAGE = 0b001010101111111010000111100111001111010100101110
WATERMARK_BITS = [int(digit) for digit in f"{WATERMARK_MESSAGE:b}"]  # without the message's leading zeros

MIN_PIXELS = 256 * 256  # the reader refuses smaller pictures
STEP = 36.0
MARGIN = 4.0  # by how much a block's largest coefficient leads, so that rounding cannot dethrone it
AGREEMENT = 0.6  # the share of its votes every bit must win
HIGHEST = 478.0  # the largest coefficient there is: four pixels of pure blue

RGB_TO_U = (-0.147, -0.289, 0.436)
U_TO_RGB = (0.0, -0.395, 2.032)  # what one more of U does to a pixel of the same Y and V


class WatermarkEmbedder:
    """Writes `watermark`, a list of 0 and 1, into pictures."""

    def __init__(self, watermark: Sequence[int]):
        self.watermark = list(watermark)
        if not self.watermark or set(self.watermark) - {0, 1}:
            raise ValueError(f"a watermark is a list of 0 and 1; got {watermark!r}")
        self.num_bits = len(self.watermark)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Mark RGB pictures in [-1, 1], (..., 3, H, W); returns a tensor of the same shape, dtype and device.

        Values come back on the 256 levels of an 8-bit picture. Pictures of fewer than 256 x 256 pixels are
        returned as they are, which is said once per process. Raises ValueError for other than three channels.
        """
        height, width = _checked_size(image)
        if height * width < MIN_PIXELS:
            _say_too_small()
            return image
        rgb = _to_levels(image).reshape(-1, 3, height, width)
        marked = torch.stack([self._mark(picture) for picture in rgb])
        return (marked / 127.5 - 1).reshape(image.shape).to(image)

    def _mark(self, rgb: Tensor) -> Tensor:
        """rgb: (3, H, W), whole numbers from 0 to 255."""
        bits = torch.tensor(self.watermark)
        change = _change_of_u(to_u(rgb), bits)
        marked = _shift_u(rgb, change)
        votes = _votes(to_u(marked).round(), self.num_bits)
        if (torch.where(bits == 1, votes, 1 - votes) < AGREEMENT).any():
            # Large white, black or saturated areas: there a change of U alone leaves what RGB can show.
            marked = _shift_u(rgb, change, insist=True)
        return marked


embed_watermark = WatermarkEmbedder(WATERMARK_BITS)


class WatermarkEncoder:
    """`invisible-watermark`'s encoder as far as clients of FLUX use it: bits or bytes, method `dwtDct`."""

    def __init__(self, content: bytes = b""):
        self.set_watermark("bytes", content)

    def set_watermark(self, wmType: str = "bytes", content: bytes | str | Sequence[int] = b"") -> None:
        """wmType: "bits", a sequence of 0 and 1; or "bytes", highest bits first. ValueError for another."""
        if wmType not in ("bits", "bytes"):
            raise ValueError(f"a watermark is bits or bytes here, not {wmType!r}: use invisible-watermark")
        if wmType == "bits":
            self._bits = [int(bit) for bit in content]
        else:
            octets = content.encode() if isinstance(content, str) else content
            self._bits = [int(digit) for octet in octets for digit in f"{octet:08b}"]

    def get_length(self) -> int:
        return len(self._bits)

    def encode(self, cv2Image: np.ndarray, method: str = "dwtDct", **configs: Any) -> np.ndarray:
        """Mark BGR as OpenCV has it, uint8 (H, W, 3); returns a new one. ValueError for another method."""
        if method != "dwtDct" or configs:
            asked = ", ".join([method, *configs])
            raise ValueError(
                f"only dwtDct, without options, is carried, not {asked}: use invisible-watermark"
            )
        rgb = torch.from_numpy(cv2Image[..., ::-1].copy()).movedim(-1, -3)
        marked = WatermarkEmbedder(self._bits)(rgb.float() / 127.5 - 1)
        return ((marked + 1) * 127.5).round().byte().movedim(-3, -1).numpy()[..., ::-1].copy()


def read_watermark(image: Tensor, length: int = len(WATERMARK_BITS)) -> list[int]:
    """Read `length` bits, as the package's reader does, from RGB in [-1, 1], (3, H, W) or (1, 3, H, W).

    Any picture gives some bits; it carries our mark if they equal `WATERMARK_BITS`. Raises ValueError for
    several pictures, or one too small to hold every bit.
    """
    height, width = _checked_size(image)
    if image.numel() != 3 * height * width:
        raise ValueError(f"give one picture, (3, H, W) or (1, 3, H, W); got {tuple(image.shape)}")
    if (height // 8) * (width // 8) < length:
        raise ValueError(f"{width} x {height} pixels cannot hold {length} bits: each needs 8 x 8")
    u = to_u(_to_levels(image).reshape(3, height, width)).round()
    return (_votes(u, length) * 255 > 127).int().tolist()


def to_u(rgb: Tensor) -> Tensor:
    """The chroma channel U of the YUV colour space, (H, W), of RGB from 0 to 255, (3, H, W); grey has 128."""
    return torch.einsum("c,chw->hw", rgb.new_tensor(RGB_TO_U), rgb) + 128


def _checked_size(image: Tensor) -> tuple[int, int]:
    if image.ndim < 3 or image.shape[-3] != 3:
        raise ValueError(f"a picture to mark is RGB, (..., 3, H, W); got {tuple(image.shape)}")
    return image.shape[-2], image.shape[-1]


@cache
def _say_too_small() -> None:
    warnings.warn("pictures of fewer than 256 x 256 pixels are too small to carry a watermark", stacklevel=3)


def _to_levels(image: Tensor) -> Tensor:
    """To whole numbers from 0 to 255, in float32 on the CPU, so that every device gives the same picture."""
    return ((image.float().cpu().clamp(-1, 1) + 1) * 127.5).round()


def _blocks(u: Tensor) -> Tensor:
    """Coefficients of each block, (blocks, 16), of U, (H, W); pixels beyond whole blocks are left out."""
    height, width = u.shape
    whole = u[: height // 8 * 8, : width // 8 * 8]
    return rearrange(whole, "(H h a) (W w b) -> (H W) (h w) (a b)", h=4, w=4, a=2, b=2).sum(-1) / 2


def _votes(u: Tensor, length: int) -> Tensor:
    """The share of votes for 1, (length,), of U as whole numbers, (H, W)."""
    largest = _blocks(u)[:, 1:].amax(dim=1)
    vote = (largest % STEP > STEP / 2).float()
    bit = torch.arange(len(vote)) % length
    ones = torch.zeros(length).index_add(0, bit, vote)
    return ones / torch.bincount(bit, minlength=length)


def _change_of_u(u: Tensor, bits: Tensor) -> Tensor:
    """What to add to U, (H, W), so that block n votes for bit n modulo the number of bits."""
    blocks = _blocks(u)
    bit = bits[torch.arange(len(blocks)) % len(bits)]
    change = (_mark_blocks(blocks, bit) - blocks) / 2  # a coefficient is twice the mean of its four pixels
    grid = repeat(change, "(H W) (h w) -> (H h a) (W w b)", H=u.shape[0] // 8, h=4, w=4, a=2, b=2)
    full = torch.zeros_like(u)
    full[: grid.shape[0], : grid.shape[1]] = grid
    return full


def _mark_blocks(blocks: Tensor, bit: Tensor) -> Tensor:
    """The blocks, (blocks, 16), changed as little as makes each vote for its bit, (blocks,).

    The largest coefficient goes to one of the nearest places that mean the bit. Where that place is a lower
    one, coefficients above it are lowered too, or the reader would look at one of them.
    """
    largest, where = blocks[:, 1:].max(dim=1)
    phase = 0.25 + 0.5 * bit
    nearest = ((largest / STEP - phase).round() + phase) * STEP
    places = nearest[:, None] + STEP * torch.arange(-1, 3)  # (blocks, 4)

    ways = repeat(blocks, "n c -> n way c", way=4).clone()
    ways[..., 1:] = torch.minimum(ways[..., 1:], places[..., None] - MARGIN)
    ways.scatter_(2, repeat(where + 1, "n -> n way 1", way=4), places[..., None])

    cost = (ways - blocks[:, None]).square().sum(-1)
    cost = cost.masked_fill((places < 0) | (places > HIGHEST), torch.inf)
    best = cost.argmin(dim=1)
    return ways[torch.arange(len(blocks)), best]


def _shift_u(rgb: Tensor, change: Tensor, insist: bool = False) -> Tensor:
    """Add `change`, (H, W), to the U of RGB from 0 to 255, (3, H, W); returns whole numbers.

    Y and V stay where the 8-bit range allows. What it clips off is lost, unless `insist`: then the missing
    rest is taken from the channels that can still move, at the cost of some luma.
    """
    shifted = (rgb + rgb.new_tensor(U_TO_RGB)[:, None, None] * change).clamp(0, 255)
    if insist:
        wanted = to_u(rgb) + change
        toward = rgb.new_tensor(RGB_TO_U)[:, None, None]
        toward = toward / toward.square().sum()  # the shortest step in RGB that adds one to U
        for _ in range(12):
            missing = (wanted - to_u(shifted)) * (change != 0)
            shifted = (shifted + toward * missing).clamp(0, 255)
    return shifted.round()
