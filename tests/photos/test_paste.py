"""An edit's way back into its photograph."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw
from skimage import data

from flux.photos import paste as pasting
from flux.photos.framing import Frame, frame_photo
from flux.photos.paste import paste
from flux.photos.sources import to_tensor

WHOLE = Frame((128, 96), (128, 96), (0, 0, 128, 96))


def noise(width, height, seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def corner(value=1.0) -> torch.Tensor:
    """A mask of the upper left quarter of `WHOLE`, on its latent's grid."""
    mask = torch.zeros(12, 16)
    mask[:6, :8] = value
    return mask


def unlike(a: Image.Image, b: Image.Image) -> np.ndarray:
    return (np.asarray(a) != np.asarray(b)).any(axis=-1)


@pytest.mark.parametrize("residual", [False, True, "auto"])
def test_outside_the_mask_the_photos_bytes_stay(residual):
    photo, edit = noise(128, 96), to_tensor(noise(128, 96, 1))
    pasted = paste(photo, WHOLE, corner(), edit, torch.zeros_like(edit), residual)
    changed = unlike(photo, pasted)
    # Half a position of the grid beyond it, the mask's bilinear slope has ended.
    assert not changed[52:].any() and not changed[:, 68:].any()
    assert changed[:40, :50].mean() > 0.9


def test_a_mask_below_a_hundredth_is_none():
    photo, edit = noise(128, 96), to_tensor(noise(128, 96, 1))
    kept = paste(photo, WHOLE, corner(0.0099), edit, edit, False)
    assert kept.tobytes() == photo.tobytes()
    assert paste(photo, WHOLE, corner(0.0101), edit, edit, False).tobytes() != photo.tobytes()


def test_it_is_the_formula_at_the_models_size():
    photo, edit, back = (noise(128, 96, seed) for seed in range(3))
    mask = torch.rand(96, 128, generator=torch.Generator().manual_seed(0))
    p, e, r, m = (np.asarray(each, dtype=np.float64) for each in (photo, edit, back, mask[..., None]))
    m = np.where(m < 0.01, 0, m)
    for residual, expected in ((False, p + m * (e - p)), (True, p + m * (e - r))):
        pasted = paste(photo, WHOLE, mask, to_tensor(edit), to_tensor(back), residual)
        assert np.abs(np.asarray(pasted) - expected.clip(0, 255)).max() <= 0.51


def test_at_the_photos_own_size_mask_and_edit_are_scaled():
    """Against torch's own way to enlarge."""
    photo = Image.fromarray(data.chelsea()).resize((450, 300))
    frame = frame_photo(photo.size, size=(96, 96))
    edit = to_tensor(noise(*frame.size).resize((12, 8)).resize(frame.size, Image.Resampling.BICUBIC))
    mask = 0.1 + 0.9 * torch.rand(8, 12, generator=torch.Generator().manual_seed(0))
    pasted = np.asarray(paste(photo, frame, mask, edit, edit, False), dtype=np.float64)
    large = {"size": (300, 450), "align_corners": False}
    m = torch.nn.functional.interpolate(mask[None, None], mode="bilinear", **large)[0, 0, ..., None].numpy()
    e = torch.nn.functional.interpolate(edit[None], mode="bicubic", **large)[0].permute(1, 2, 0).numpy()
    expected = np.asarray(photo) + m * ((e + 1) * 127.5 - np.asarray(photo))
    assert np.abs(pasted - expected.clip(0, 255)).max() <= 0.6


def test_of_a_larger_edit_a_photo_takes_every_pixel():
    """Of lines of one pixel, black and white in turn, there is grey in a photo of a third of the pixels."""
    photo, frame = Image.new("RGB", (32, 24), "red"), Frame((32, 24), (96, 80), (0, 0, 32, 24))
    edit = torch.ones(3, 80, 96)
    edit[:, ::2] = edit[:, :, ::2] = -1
    pasted = np.asarray(paste(photo, frame, torch.ones(10, 12), edit, edit, False))
    assert np.abs(pasted.astype(int) - 64).max() <= 12


def test_bands_make_no_seams(monkeypatch):
    photo, edit = Image.fromarray(data.coffee()), to_tensor(noise(128, 80, 1))
    frame = frame_photo(photo.size, size=(128, 80))
    mask = torch.rand(10, 16, generator=torch.Generator().manual_seed(0))
    once = paste(photo, frame, mask, edit, 0 * edit)
    monkeypatch.setattr(pasting, "BAND", 7000)
    assert paste(photo, frame, mask, edit, 0 * edit).tobytes() == once.tobytes()


@pytest.mark.parametrize("how", ["crop", "pad"])
def test_cropped_and_padded_photos_come_back_whole(how):
    """A black square of the photo is drawn white; nothing else changes."""
    photo = Image.new("RGB", (400, 300), "grey")
    photo.paste("black", (150, 100, 250, 200))
    frame = frame_photo(photo.size, how, size=(128, 128))
    cut = to_tensor(frame.cut(photo))
    edit = torch.where(cut < -0.5, 1.0, cut)
    mask = (cut < -0.5).any(dim=0).float()
    pasted = np.asarray(paste(photo, frame, mask, edit, cut))
    assert pasted.shape == (300, 400, 3)
    assert (pasted[110:190, 160:240] == 255).all()
    outside = np.ones((300, 400), bool)
    outside[90:210, 140:260] = False
    assert (pasted[outside] == np.asarray(photo)[outside]).all()


def test_details_stay_where_nothing_changed_and_go_where_something_did():
    photo = Image.fromarray(data.astronaut()).resize((128, 96))
    smooth = to_tensor(photo.resize((16, 12)).resize((128, 96), Image.Resampling.BICUBIC))  # what came back
    edit = smooth.clone()
    edit[:, :, :64] = -edit[:, :, :64].sign()
    pasted = paste(photo, WHOLE, torch.ones(12, 16), edit, smooth)
    assert not unlike(photo, pasted)[:, 72:].any()
    left = to_tensor(pasted)[:, :, :56] - edit[:, :, :56]
    assert left.abs().mean() < 0.02
    everywhere = to_tensor(paste(photo, WHOLE, torch.ones(12, 16), edit, smooth, residual=True))
    assert (everywhere - edit)[:, :, :56].abs().mean() > 0.05


def test_a_thing_that_is_taken_away_leaves_no_ghost(monkeypatch):
    """A yellow disc with a dark outline in a photo of three times the picture's size, on green."""
    photo = Image.new("RGB", (384, 384), (120, 190, 90))
    ImageDraw.Draw(photo).ellipse((120, 120, 260, 260), (250, 210, 60), (20, 20, 20), 4)
    frame = frame_photo(photo.size, size=(128, 128))
    back = to_tensor(frame.cut(photo).resize((64, 64)).resize((128, 128), Image.Resampling.BICUBIC))
    edit = torch.zeros_like(back) + to_tensor(Image.new("RGB", (1, 1), (120, 190, 90)))

    def ghost() -> float:
        pasted = paste(photo, frame, torch.ones(16, 16), edit, back)
        return abs(np.asarray(pasted).astype(float) - (120, 190, 90))[110:270, 110:270].max(axis=-1).mean()

    near = ghost()
    monkeypatch.setattr(pasting, "REDRAWN", 1e9)
    assert near < 0.5 * ghost()


def test_a_large_photo_takes_the_memory_of_its_mask():
    """A spot of a 48-megapixel photo; arrays of all of it in float would be over a gigabyte."""
    import tracemalloc

    photo = Image.new("RGB", (8000, 6000), "grey")
    frame = frame_photo(photo.size, size=(1024, 1024))
    edit = torch.ones(3, frame.size[1], frame.size[0])
    mask = torch.zeros(frame.size[1] // 8, frame.size[0] // 8)
    mask[10:14, 20:24] = 1
    tracemalloc.start()
    pasted = paste(photo, frame, mask, edit, -edit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert pasted.getpixel((1200, 650)) == (255, 255, 255) and pasted.getpixel((4000, 3000)) == (128,) * 3


def test_a_profile_of_rgb_stays_and_no_other_field():
    photo, edit = noise(128, 96), torch.zeros(3, 96, 128)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.info = {"icc_profile": profile, "exif": b"Exif", "dpi": (72, 72)}
    assert paste(photo, WHOLE, corner(), edit, edit).info == {"icc_profile": profile}
    photo.info["icc_profile"] = profile[:16] + b"CMYK" + profile[20:]
    assert paste(photo, WHOLE, corner(), edit, edit).info == {}
