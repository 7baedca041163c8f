"""One way to open a picture: what comes out of files as people have them, and what is said of the others."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, features

from flux.pictures import metrics
from flux.pictures.features import LONGEST, _middle
from flux.pictures.opening import PictureError, endings, open_picture
from flux.pictures.rgb import rgb


def scene(size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Unlike at all four corners, so that no turn goes unnoticed."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, (x + 2 * y) / 3], axis=-1).astype(np.uint8))


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# Turned photographs

STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("turn", STORED)
@pytest.mark.parametrize("ending", ["jpg", "png", "tiff", "webp"])
def test_a_turned_photograph_stands_upright(turn, ending, tmp_path):
    """As a phone stores it: the pixels turned, and in the EXIF how to turn them back."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    path = tmp_path / f"turned.{ending}"
    lossless = {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "jpg" else {}
    scene().transpose(STORED[turn]).save(path, exif=exif, **lossless)
    opened = open_picture(path)
    assert opened.mode == "RGB" and opened.size == scene().size
    assert metrics.psnr(opened, scene()) > 30
    # Once is enough: what is upright is not turned again.
    assert np.array_equal(levels(rgb(opened)), levels(opened))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # when it is written
def test_damaged_exif_leaves_a_picture_as_it_is_stored(tmp_path):
    for number, exif in enumerate((b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"")):
        scene().save(tmp_path / f"{number}.jpg", exif=exif, quality=100)
        assert metrics.psnr(open_picture(tmp_path / f"{number}.jpg"), scene()) > 30


# More than 8 bits


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.float32), [0, 100, 255]),
        (np.array([[0, 32896, 65535]], np.float32), [0, 128, 255]),
        (np.array([[0, 5e5, 1e6]], np.float32), [0, 127, 255]),
        (np.array([[-1, np.nan, 0.5]], np.float32), [0, 0, 128]),
        (np.array([[np.inf, 0, 0.5]], np.float32), [255, 0, 128]),
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 7, 200]], np.uint16), [0, 7, 200]),
        (np.array([[0, 1, 0]], np.uint16), [0, 255, 0]),
        (np.array([[-5, 0, 40000]], np.int32), [0, 0, 155]),
        (np.array([[0, 2**20, 2**21]], np.int32), [0, 127, 255]),
        (np.zeros((1, 3), np.float32), [0, 0, 0]),
    ],
)
def test_deep_levels_are_scaled_and_not_cut(array, expected, tmp_path):
    Image.fromarray(array).save(tmp_path / "deep.tiff")
    opened = levels(open_picture(tmp_path / "deep.tiff"))
    assert opened[0, :, 0].tolist() == expected and np.ptp(opened, axis=-1).max() == 0


def test_large_deep_pictures_are_scaled_in_parts(monkeypatch):
    array = np.random.default_rng(0).integers(0, 65536, (50, 40), dtype=np.uint16)
    whole = levels(rgb(Image.fromarray(array)))
    monkeypatch.setattr("flux.pictures.rgb.PART", 100)
    assert np.array_equal(levels(rgb(Image.fromarray(array))), whole)
    assert np.array_equal(whole[..., 0], array // 257)


# Colours


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "PA", "RGBa"])
def test_every_mode_becomes_rgb(mode):
    grey = Image.new("L", (4, 4), 255)
    through = {"PA": "LA", "RGBa": "RGBA"}.get(mode)
    picture = grey.convert(through).convert(mode) if through else grey.convert("RGB").convert(mode)
    assert rgb(picture).getpixel((1, 1)) == (255, 255, 255)


def test_cmyk_and_transparency(tmp_path):
    Image.new("RGB", (16, 16), (200, 40, 40)).convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    red, green, blue = open_picture(tmp_path / "print.jpg").getpixel((8, 8))
    assert abs(red - 200) < 4 and abs(green - 40) < 4 and abs(blue - 40) < 4
    clear = Image.new("P", (4, 4), 1)
    clear.putpalette([255, 0, 0, 0, 0, 255])
    clear.save(tmp_path / "clear.gif", transparency=1)
    assert open_picture(tmp_path / "clear.gif").getpixel((0, 0)) == (255, 255, 255)


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for ending, options in (("gif", {}), ("webp", {"lossless": True}), ("png", {}), ("tiff", {})):
        path = tmp_path / f"moving.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert open_picture(path).getpixel((0, 0)) == (255, 0, 0), ending


# Whatever Pillow opens


@pytest.mark.parametrize("ending", ["jfif", "avif", "qoi", "tga", "jp2", "ico", "ppm", "apng", "webp", "bmp"])
def test_unusual_endings(ending, tmp_path):
    kinds = {"jfif": "JPEG", "apng": "PNG"}
    if ending in ("avif",) and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"picture.{ending}"
    scene((64, 64)).save(path, format=kinds.get(ending))
    assert f".{ending}" in endings()
    assert metrics.psnr(open_picture(path), scene((64, 64))) > 30
    # A name says little: the first bytes count.
    path.rename(tmp_path / "picture.txt")
    assert open_picture(tmp_path / "picture.txt").size == (64, 64)


def test_no_other_program_is_run_for_a_picture(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("a program was started"))
    (tmp_path / "a.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(PictureError, match="it is an EPS drawing: export it as PNG"):
        open_picture(tmp_path / "a.eps")
    assert not {".eps", ".ps", ".pdf", ".mpg", ".h5"} & endings()


# What is no picture


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\1\0IDAT"


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><title>404</title>", "it is a web page"),
        (b"\xef\xbb\xbf\n<html><body>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "it is an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "it is a HEIC photograph"),
        (b"\0\0\0\x18ftypisom" + bytes(64), "it is a film"),
        (b"%PDF-1.7\n", "it is a PDF"),
        (b"just words", "no picture of a kind that Pillow draws"),
        (b"II*\0" + bytes(20), "TIFF of a layout that Pillow does not know"),
        (png_of(20000, 20000), "it has 400 million pixels, and Pillow opens 179 million at most"),
        (png_of(10, 10), "it is"),
    ],
    ids=lambda value: value.split(" ")[-1] if isinstance(value, str) else "",
)
def test_the_reason_is_said_in_words(content, says, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=says) as caught:
        open_picture(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}" and "\n" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path):
    for path, says in ((tmp_path / "none.png", "No such file"), (tmp_path, "it is a folder")):
        with pytest.raises(PictureError, match=says):
            open_picture(path)


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "webp", "gif", "bmp", "tiff", "avif", "tga", "jp2", "psd", "ico"]
)
def test_whatever_is_damaged_ends_in_one_line(ending, tmp_path):
    """Files cut short, and with bytes changed: a picture or one line, and no warning, whatever decoder."""
    whole = tmp_path / f"whole.{ending}"
    if ending == "psd":
        whole.write_bytes(b"8BPS\0\1" + bytes(200))
    else:
        scene((64, 64)).save(whole)
    data, rng = whole.read_bytes(), np.random.default_rng(0)
    cut = [data[: int(len(data) * share)] for share in (0.02, 0.1, 0.5, 0.9)]
    changed = []
    for _ in range(20):
        array = np.frombuffer(data, np.uint8).copy()
        array[rng.integers(0, min(len(array), 400), 3)] = rng.integers(0, 256, 3)
        changed.append(array.tobytes())
    path = tmp_path / f"damaged.{ending}"
    for content in (*cut, *changed):
        path.write_bytes(content)
        try:
            assert open_picture(path).mode == "RGB"
        except PictureError as error:
            assert "\n" not in str(error) and len(error.reason) < 300


def test_a_large_picture_is_opened_without_a_warning(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    scene().save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").size == (48, 32) and not recwarn.list
    scene((60, 60)).save(tmp_path / "b.png")
    with pytest.raises(PictureError, match="shrink it"):
        open_picture(tmp_path / "b.png")


def test_opening_needs_no_torch():
    code = (
        "import sys, flux.pictures.opening, flux.studies.similarity.places; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Large pictures, in parts


def test_figures_are_the_same_in_bands(monkeypatch):
    rng = np.random.default_rng(0)
    first = Image.fromarray(rng.integers(0, 256, (90, 70, 3), dtype=np.uint8))
    second = Image.fromarray((levels(first) * 0.8).astype(np.uint8))
    whole = metrics.psnr(first, second), metrics.ssim(first, second)
    error = np.square(levels(first) - levels(second)).mean()
    assert whole[0] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-12)
    for pixels in (70, 500, 3000):
        monkeypatch.setattr(metrics, "BAND", pixels)
        assert metrics.psnr(first, second) == whole[0]
        assert metrics.ssim(first, second) == pytest.approx(whole[1], abs=1e-12)


class Processor:
    """As DINOv2's on the hub: the shorter side to 32 pixels, then the middle 28 x 28."""

    def __init__(self, **size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        scale = 32 / min(image.size)
        large = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - 28) // 2 for side in large.size)
        return torch.tensor(levels(large.crop((left, top, left + 28, top + 28))))


@pytest.mark.parametrize("size", [(900, 12), (12, 900), (100, 60)])
def test_of_a_very_long_picture_the_middle_is_what_a_processor_sees(size):
    long = scene(size)
    processor = Processor(shortest_edge=32)
    middle = _middle(long, processor)
    assert max(middle.size) <= LONGEST * min(middle.size)
    assert torch.equal(processor(middle), processor(long))
    # One that scales both sides sees all of it.
    assert _middle(long, Processor(height=32, width=32)) is long


def test_the_reason_can_be_printed_for_any_name(tmp_path):
    from flux.studies.similarity.places import printable

    assert printable(Path("a\nb\udcff \u202e.png")) == "a\\nb\\udcff \\u202e.png"
    assert printable(Path("Bär 猫 🐈.png")) == "Bär 猫 🐈.png"
