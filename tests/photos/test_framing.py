"""What of a photo is edited, and at what size."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flux.photos.framing import Frame, cut_mask, cut_shares, frame_photo


@pytest.mark.parametrize(
    "photo, pixels, largest, expected",
    [
        ((4000, 3000), 1024, None, (1184, 880)),
        ((3000, 4000), 1024, None, (880, 1184)),
        ((4000, 3000), 128, 128, (128, 96)),
        ((1024, 1024), 128, 128, (128, 128)),
        ((16, 16), 1024, None, (1024, 1024)),
        ((800, 100), 128, 128, (128, 16)),
    ],
)
def test_fit_shows_all_of_a_photo_in_about_the_pixels_asked_for(photo, pixels, largest, expected):
    frame = frame_photo(photo, size=(pixels, pixels), largest=largest)
    assert frame.size == expected
    assert frame.box == (0, 0, *photo)


def test_crop_and_pad_have_exactly_the_size_and_keep_the_ratio():
    crop = frame_photo((400, 300), "crop", size=(128, 128))
    pad = frame_photo((400, 300), "pad", size=(128, 128))
    assert crop == Frame((400, 300), (128, 128), (50, 0, 350, 300))
    assert pad == Frame((400, 300), (128, 128), (0, -50, 400, 350))


def test_cut_pictures_show_the_box():
    photo = Image.new("RGB", (400, 300), "blue")
    ImageDraw.Draw(photo).rectangle((100, 100, 199, 199), "red")
    photo.putpixel((0, 0), (0, 255, 0))
    crop = np.asarray(frame_photo(photo.size, "crop", size=(96, 96)).cut(photo))
    assert crop.shape == (96, 96, 3)
    # The square is 100 of 300 pixels, from 50 behind the crop's left edge on.
    red = crop[..., 0] > 128
    assert np.argwhere(red).min(axis=0).tolist() == [32, 16]
    assert np.argwhere(red).max(axis=0).tolist() == [63, 47]


def test_padding_repeats_the_edges():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    padded = np.asarray(frame_photo(photo.size, "pad", size=(128, 128)).cut(photo))
    assert np.array_equal(padded[16:112], np.asarray(photo))
    assert (padded[:16] == padded[16]).all() and (padded[112:] == padded[111]).all()


def test_what_shows_the_photo_is_all_but_padding():
    pad = frame_photo((400, 300), "pad", size=(128, 128))
    assert pad.inside == (0, 16, 128, 112)
    whole = Image.fromarray(np.arange(128 * 128, dtype=np.uint8).reshape(128, 128))
    assert np.array_equal(pad.without_padding(whole), np.asarray(whole)[16:112])
    blank = pad.blank_padding(np.ones((128, 128)))
    assert blank[16:112].all() and blank.sum() == 96 * 128
    for size, how in (((400, 300), "fit"), ((400, 300), "crop"), ((128, 128), "pad"), ((301, 203), "fit")):
        frame = frame_photo(size, how, size=(128, 128))
        assert frame.inside == (0, 0, *frame.size)
    # Of rows that show a part of it alone, too.
    assert frame_photo((300, 200), "pad", size=(128, 128)).inside == (0, 21, 128, 107)


def test_a_mean_counts_what_shows_the_photo():
    """With the padding it were 96 of 128 rows where all of a photo is masked."""
    pad = frame_photo((400, 300), "pad", size=(128, 128))
    rows = np.zeros((16, 16), dtype=np.float32)
    rows[2:14] = 1
    assert pad.mean_inside(rows) == 1 and pad.mean_inside(1 - rows) == 0
    # Cells that show a part of it count by that: 2.67 and 10.67 of 16 rows are the padding's edges.
    odd = frame_photo((300, 200), "pad", size=(128, 128))
    first = np.zeros((16, 16))
    first[2] = 1
    assert odd.mean_inside(first) == pytest.approx((3 - 8 / 3) / (32 / 3))
    levels = np.random.default_rng(0).random((12, 20)).astype(np.float32)
    for how in ("fit", "crop"):
        frame = frame_photo((301, 203), how, size=(160, 96))
        assert frame.mean_inside(levels) == pytest.approx(levels.mean())


def test_a_photo_of_the_models_size_is_cut_to_its_very_pixels():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    for how in ("fit", "crop", "pad"):
        assert frame_photo(photo.size, how, size=(96, 64)).cut(photo).tobytes() == photo.tobytes()


@pytest.mark.parametrize("photo", [(1, 5000), (5000, 1), (15, 15), (1000, 100)])
@pytest.mark.parametrize("how", ["fit", "crop", "pad"])
def test_photos_too_small_or_too_long_are_refused_in_one_line(photo, how):
    with pytest.raises(ValueError, match=f"a photo of {photo[0]} x {photo[1]} pixels is too") as error:
        frame_photo(photo, how, size=(128, 128))
    assert "\n" not in str(error.value)


def test_pictures_beyond_the_limit_are_refused():
    with pytest.raises(ValueError, match="a side may have 8192 at most: ask for fewer pixels"):
        frame_photo((8000, 1000), size=(8000, 2000))
    with pytest.raises(ValueError, match="fit is 'stretch': choose from fit, crop, pad"):
        frame_photo((800, 1000), "stretch", size=(128, 128))


# Masks


def middle_of(levels: np.ndarray) -> np.ndarray:
    """The centre of mass, (x, y), in positions of the grid."""
    weights = levels.astype(np.float64)
    y, x = np.indices(weights.shape) + 0.5
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_pads_of_no_whole_pixels_leave_all_where_it_is(turned):
    """1500 x 1000 pixels in 1024 x 1024 begin at 170 2/3 of it, in a mask at cell 21 1/3."""
    size, box = (1500, 1000), (600, 120, 840, 360)
    if turned:
        size, box = size[::-1], (box[1], box[0], box[3], box[2])
    frame = frame_photo(size, "pad", size=(1024, 1024))
    photo = Image.new("L", size)
    photo.paste(255, box)
    place = np.array([720, 240][:: -1 if turned else 1]) - frame.box[:2]
    expected = place * 1024 / (frame.box[2] - frame.box[0])
    assert np.abs(middle_of(np.asarray(frame.cut(photo))) - expected).max() < 0.02
    assert np.abs(middle_of(cut_mask(photo, frame)) - expected / 8).max() < 0.05
    assert np.abs(middle_of(cut_shares(photo, frame, 16)) - expected / 16).max() < 0.05


def test_pads_of_no_whole_pixels_repeat_the_edges():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    padded = np.asarray(frame_photo(photo.size, "pad", size=(128, 128)).cut(photo))  # from row 21 1/3 on
    assert padded.shape == (128, 128, 3)
    assert (padded[:21] == padded[21]).all() and (padded[107:] == padded[106]).all()
    assert (padded[21] != padded[22]).any()
    white = Image.new("L", photo.size, 255)
    white.paste(0, (0, 20, 60, 40))
    levels = cut_mask(white, frame_photo(photo.size, "pad", size=(128, 128)))
    assert (levels[:7] == 1).all() and (levels[9:] == 0).all()


def test_masks_by_picture_and_by_box_lie_on_the_latents_grid():
    frame = frame_photo((256, 128), "crop", size=(128, 128))
    mask = Image.new("L", (256, 128))
    mask.paste(255, (64, 0, 128, 64))
    expected = np.zeros((16, 16), np.float32)
    expected[:8, :8] = 1
    assert np.array_equal(cut_mask(mask, frame), expected)
    assert np.array_equal(cut_mask((64, 0, 128, 64), frame), expected)


@pytest.mark.parametrize(
    "mask, message",
    [
        (Image.new("L", (128, 256), 9), "a mask of 128 x 256 pixels does not fit a photo of 256 x 128"),
        (Image.new("L", (256, 128)), "black all over"),
        (Image.new("RGB", (256, 128), "white"), "white all over"),
        ((0, 0, 257, 10), "does not lie in a photo of 256 x 128"),
        ((9, 0, 9, 10), "does not lie in a photo of 256 x 128"),
    ],
)
def test_masks_of_no_use_are_refused_in_one_line(mask, message):
    with pytest.raises(ValueError, match=message) as error:
        cut_mask(mask, frame_photo((256, 128), size=(128, 128)))
    assert "\n" not in str(error.value)


def test_framing_imports_no_torch():
    line = "import sys, flux.photos.framing; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", line]).returncode == 0
