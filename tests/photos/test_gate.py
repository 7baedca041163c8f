"""How well a picture comes back, and what is said where it does not."""

import numpy as np
import pytest
from helpers_sweeps import save_dino
from PIL import Image, ImageFilter
from skimage import data, metrics

from flux.photos.gate import gate_of, liken
from flux.pictures.features import Dino
from flux.pictures.metrics import patch_similarity


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> Dino:
    return Dino(save_dino(tmp_path_factory.mktemp("dino")))


def photo() -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((128, 96))


def blurred(radius: float) -> Image.Image:
    return photo().filter(ImageFilter.GaussianBlur(radius))


def test_figures_are_those_of_independent_measures(dino):
    a, b = photo(), blurred(1)
    found = liken(a, b, dino)
    arrays = [np.asarray(each) for each in (a, b)]
    assert found.psnr == pytest.approx(metrics.peak_signal_noise_ratio(*arrays))
    assert found.ssim == pytest.approx(metrics.structural_similarity(*arrays, channel_axis=-1, win_size=7))
    assert found.dino == patch_similarity(a, b, dino)


def test_the_same_picture_is_alike_in_everything(dino):
    found = liken(photo(), photo(), dino)
    assert found.psnr is None and found.ssim == 1 and found.dino == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_measured_is_left_out():
    tiny = photo().resize((6, 16))
    assert liken(tiny, tiny).ssim is None and liken(photo(), photo()).dino is None


def test_a_picture_that_comes_back_well_needs_no_advice():
    assert gate_of(photo(), blurred(0.3), blurred(0.4)).advice == ()


def test_advice_says_what_is_poor_and_what_to_do():
    gate = gate_of(photo(), blurred(4), Image.new("RGB", (128, 96)))
    alone, again = gate.advice
    assert "the autoencoder alone" in alone and "crop the photo" in alone
    assert "from noise" in again and "a method that does not invert" in again
    assert all("\n" not in each for each in gate.advice)
    # Of the replay what counts is how far it is from what the autoencoder gives back anyway.
    assert len(gate_of(photo(), blurred(4), blurred(4)).advice) == 1
