"""Photographs as people have them, opened to be edited; and what is said of files that are none."""

import struct
import zlib

import numpy as np
import pytest
import torch
from helpers_demos import small_models
from PIL import ExifTags, Image
from skimage import data

from flux.finite import NotFinite
from flux.generate import Sampling, decode, encode_pictures
from flux.photos.editing import EditSource, PhotoRequest, SourceEdit, edit_photo_steps
from flux.photos.framing import Frame
from flux.photos.sources import frame_source, open_photo, to_tensor
from flux.pictures.files import to_pil
from flux.sampling import pack, unpack

SIZE = (64, 64)


def picture(width=96, height=48) -> Image.Image:
    return Image.fromarray(data.rocket()).resize((width, height))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(tmp_path) -> bytes:
    picture().save(tmp_path / "whole.jpg")
    return (tmp_path / "whole.jpg").read_bytes()


BAD = {
    "nothing.jpg": (lambda folder: None, "No such file"),
    "empty.jpg": (lambda folder: b"", "it is empty"),
    "cut.jpg": (lambda folder: jpeg(folder)[:600], "cut short"),
    "words.jpg": (lambda folder: b"a red house", "no picture"),
    "page.jpg": (lambda folder: b"<!doctype html><html></html>", "web page"),
    "bomb.png": (lambda folder: png_that_claims(60000, 60000), "3600 million pixels"),
    "nil.png": (lambda folder: png_that_claims(0, 0), "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_photographs_are_told_in_one_line(name, tmp_path):
    content, reason = BAD[name]
    if (content := content(tmp_path)) is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: .*{reason}") as error:
        frame_source(EditSource("a dog", tmp_path / name), "fit", SIZE, None)
    assert "\n" not in str(error.value)


def test_a_line_of_pixels_is_told_with_its_file(tmp_path):
    Image.new("RGB", (1, 5000)).save(tmp_path / "line.png")
    with pytest.raises(ValueError, match=r"line.png: a photo of 1 x 5000 pixels is too small"):
        frame_source(EditSource("a dog", tmp_path / "line.png"), "fit", SIZE, None)


def test_all_photos_are_looked_at_before_anything_is_made(tmp_path):
    sources = (EditSource("a dog", picture()), EditSource("a fish", tmp_path / "gone.png"))
    edits = (SourceEdit("a cat", 0), SourceEdit("a bird", 1))
    models = small_models()
    with pytest.raises(ValueError, match="gone.png"):
        next(edit_photo_steps(models, PhotoRequest(sources, edits, Sampling(4, 3.5, *SIZE))))
    assert models.t5.calls == []


def as_saved(kind: str, folder) -> tuple[Image.Image, Image.Image]:
    """A photo as it is opened, and what it shows."""
    shown = picture()
    file = folder / "photo.png"
    if kind == "turned":
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        shown.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    elif kind == "transparent":
        alpha = Image.new("L", shown.size, 255)
        alpha.paste(0, (0, 0, 48, 48))
        layered = shown.copy()
        layered.putalpha(alpha)
        layered.save(file)
        shown.paste("white", (0, 0, 48, 48))
    elif kind == "animated":
        file = folder / "photo.webp"
        others = [Image.new("RGB", shown.size, colour) for colour in ("red", "blue")]
        shown.save(file, save_all=True, append_images=others, lossless=True)
    elif kind == "grey":
        shown = shown.convert("L")
        shown.save(file)
        shown = shown.convert("RGB")
    elif kind == "16 bit":
        grey = np.asarray(shown.convert("L"))
        Image.fromarray(grey.astype(np.uint16) * 257).save(file)
        shown = Image.fromarray(grey).convert("RGB")
    return open_photo(file), shown


@pytest.mark.parametrize("kind", ["turned", "transparent", "animated", "grey", "16 bit"])
def test_photos_of_every_kind_come_as_they_are_seen(kind, tmp_path):
    opened, shown = as_saved(kind, tmp_path)
    assert opened.mode == "RGB" and opened.tobytes() == shown.tobytes()


# Latents


def test_a_latent_is_the_mean_that_the_encoder_gives_each_picture_by_itself():
    models = small_models(torch.bfloat16)
    pictures = torch.stack([to_tensor(picture(64, 48)), -to_tensor(picture(64, 48))])
    latents = encode_pictures(models, pictures)
    assert latents.dtype == torch.float32 and latents.shape == (2, 12, 64)
    for each, latent in zip(pictures, latents, strict=True):
        mean = models.ae.encoder(each[None]).chunk(2, dim=1)[0]
        expected = models.ae.scale_factor * (mean - models.ae.shift_factor)
        assert torch.equal(pack(expected)[0], latent)
    assert unpack(latents, 48, 64).shape == (2, 16, 6, 8)


def test_pictures_that_are_no_numbers_end_as_such():
    with pytest.raises(NotFinite, match="encoded pictures are not finite"):
        encode_pictures(small_models(), torch.full((1, 3, 32, 32), torch.nan))


def test_a_latent_that_is_known_is_taken_as_it_is():
    models, sampling = small_models(), Sampling(4, 3.5, *SIZE)
    latent = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
    edits = (SourceEdit("a cat"),)
    request = PhotoRequest((EditSource("a dog", latent=latent),), edits, sampling, gate=False)
    shown = [each for step in edit_photo_steps(models, request) for each in step.sources.values()]
    assert torch.equal(shown[0].latent, latent) and shown[0].frame == Frame(SIZE, SIZE, (0, 0, *SIZE))
    assert torch.equal(shown[0].picture, decode(models, latent[None], sampling)[0])


def test_a_latent_of_a_photo_that_is_too_large_for_the_model_is_of_the_smaller_picture():
    photo, size = picture(256, 256), (256, 256)
    for tokens, edited in ((64, 128), (256, 256)):
        source = EditSource("a dog", photo, latent=torch.zeros(tokens, 64))
        assert frame_source(source, "fit", size, 128) == Frame(size, (edited,) * 2, (0, 0, *size))


def test_pictures_to_8_bits_and_back():
    assert to_pil(to_tensor(picture())).tobytes() == picture().tobytes()
