"""The watermark: our reader finds it, and so does the package whose reader it is made for."""

import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from flux.pictures import watermark
from flux.pictures.watermark import WATERMARK_BITS, WatermarkEmbedder, embed_watermark, read_watermark

PACKAGES = ("invisible-watermark==0.2.0", "PyWavelets")
SIZES = [(256, 256), (768, 1360), (300, 333), (257, 511), (64, 1024)]
FLAT = [*itertools.product((0, 128, 255), repeat=3), (10, 200, 90), (250, 251, 249), (3, 0, 7)]


def noise(height: int, width: int) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def natural(height: int, width: int) -> Tensor:
    """Colours at all scales, the coarser the stronger, with some clipped to white and black."""
    generator = torch.Generator().manual_seed(1)
    picture = torch.zeros(1, 3, height, width)
    for cells in (3, 6, 12, 24, 48):
        grey = torch.randn(1, 1, cells, cells, generator=generator)
        colour = torch.randn(1, 3, cells, cells, generator=generator)
        layer = F.interpolate(grey + 0.3 * colour, size=(height, width), mode="bicubic")
        picture = picture + layer * 1.5 / cells**0.5
    return picture[0].clamp(-1, 1)


def flat(colour: tuple[int, int, int], height: int = 264, width: int = 260) -> Tensor:
    return (torch.tensor(colour) / 127.5 - 1)[:, None, None].expand(3, height, width)


def to_bgr(picture: Tensor) -> np.ndarray:
    levels = ((picture + 1) * 127.5).round().clamp(0, 255).byte()
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy()[..., ::-1])


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * torch.log10(((a - b) / 2).square().mean()).item()


@pytest.fixture(scope="module")
def package_reader(tmp_path_factory) -> Callable[[Tensor], list[int]]:
    """The decoder of `invisible-watermark`, installed beside this environment and not into it."""
    folder = tmp_path_factory.mktemp("packages")
    install(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        decoder = pytest.importorskip("imwatermark").WatermarkDecoder("bits", len(WATERMARK_BITS))
        yield lambda picture: [int(bit) for bit in decoder.decode(to_bgr(picture), "dwtDct")]


def install(folder: Path) -> None:
    options = ["--no-deps", "--target", str(folder), "--retries", "1", "--timeout", "20", "--quiet"]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options, *PACKAGES]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=120)
    unreachable = ("Retrying", "from versions: none", "No module named pip")
    if done.returncode and any(sign in done.stderr for sign in unreachable):
        pytest.skip(f"pip cannot reach a registry: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def test_message_has_46_bits():
    assert len(WATERMARK_BITS) == 46 and WATERMARK_BITS[0] == 1
    assert int("".join(map(str, WATERMARK_BITS)), 2) == watermark.WATERMARK_MESSAGE


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("make", [noise, natural])
def test_pictures(package_reader, make, height, width):
    marked = embed_watermark(make(height, width))
    assert package_reader(marked) == WATERMARK_BITS
    assert read_watermark(marked) == WATERMARK_BITS


def test_flat_colours(package_reader):
    """White, black and the purest colours too, in which a change of U alone leaves what RGB can show."""
    unread = [colour for colour in FLAT if package_reader(embed_watermark(flat(colour))) != WATERMARK_BITS]
    assert not unread


@pytest.mark.parametrize("make", [noise, natural, *(lambda h, w, c=c: flat(c, h, w) for c in FLAT)])
def test_our_reader(make):
    assert read_watermark(embed_watermark(make(260, 300))) == WATERMARK_BITS


def test_readers_agree_on_unmarked_pictures(package_reader):
    for make in (noise, natural):
        picture = make(300, 333)
        theirs = package_reader(picture)
        assert theirs != WATERMARK_BITS
        differing = sum(a != b for a, b in zip(theirs, read_watermark(picture), strict=True))
        assert differing <= 4  # votes near a draw may fall either way, as OpenCV's YUV is rounded otherwise


def test_any_message(package_reader):
    bits = [0, 1] * 23
    assert package_reader(WatermarkEmbedder(bits)(natural(256, 320))) == bits


def test_the_mark_is_hard_to_see():
    picture = natural(256, 384)
    levels = ((picture + 1) * 127.5).round() / 127.5 - 1
    marked = embed_watermark(picture)
    assert psnr(levels, marked) > 38
    touched = (marked - levels).abs().amax(0) > 1e-5
    assert touched.float().mean() < 0.35
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    assert ((marked - levels) * grey).sum(0).abs().mean() * 127.5 < 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("lead", [(), (2,), (2, 1)])
def test_shape_and_type_are_kept(dtype, lead):
    pictures = natural(256, 256).expand(*lead, 3, 256, 256).to(dtype)
    before = pictures.clone()
    marked = embed_watermark(pictures)
    assert marked.shape == pictures.shape and marked.dtype == dtype and marked.device == pictures.device
    assert torch.equal(pictures, before) and marked.abs().max() <= 1
    for picture in marked.reshape(-1, 3, 256, 256):
        assert read_watermark(picture) == WATERMARK_BITS


def test_survives_callers_that_cut_instead_of_round():
    marked = embed_watermark(natural(256, 256))
    cut = (127.5 * (marked + 1.0)).byte()
    assert read_watermark(cut / 127.5 - 1) == WATERMARK_BITS


def test_values_outside_the_range_are_clamped():
    assert read_watermark(embed_watermark(natural(256, 256) * 3)) == WATERMARK_BITS


def test_small_pictures_pass_and_it_is_said_once():
    watermark._say_too_small.cache_clear()
    picture = noise(255, 256)
    with pytest.warns(UserWarning, match="too small to carry a watermark"):
        assert torch.equal(embed_watermark(picture), picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed_watermark(picture)


def test_mistakes():
    with pytest.raises(ValueError, match="RGB"):
        embed_watermark(torch.zeros(1, 4, 256, 256))
    with pytest.raises(ValueError, match="list of 0 and 1"):
        WatermarkEmbedder([0, 2])
    with pytest.raises(ValueError, match="one picture"):
        read_watermark(torch.zeros(2, 3, 256, 256))
    with pytest.raises(ValueError, match="cannot hold 46 bits"):
        read_watermark(torch.zeros(3, 48, 56))
