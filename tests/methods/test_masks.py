"""Masks against their formulas written out, and what they owe: shapes, ends, rows by themselves."""

import numpy as np
import pytest
import torch
from helpers_methods import small_task

from flux.methods.masks import feathered, own_mask, packed, token_weights, unpacked
from flux.models import configs
from flux.sampling import unpack
from flux.tiny.scenes import render, sample_scene
from flux.weights.load import load_ae


def latents(seed: int, rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 6, 64, generator=torch.Generator().manual_seed(seed))


def test_a_mask_is_packed_as_latents_are():
    grid = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(1))
    mask = packed(grid)
    assert mask.shape == (2, 6, 64)
    assert torch.equal(unpack(mask, 32, 48), grid[:, None].expand(-1, 16, -1, -1))
    torch.testing.assert_close(unpacked(mask, (2, 3)), grid)
    token = grid[1, 2:4, 4:6].mean()  # the last of 2 x 3 tokens
    torch.testing.assert_close(token_weights(mask)[1, 5], token)


def own_by_hand(clean, edit, spread, threshold, peak, whole, softness) -> torch.Tensor:
    """(2 h, 2 w), position by position, of one picture of 2 x 3 tokens."""
    change = unpack((edit - clean)[None].double(), 32, 48)[0]
    squared = (change**2).mean(dim=0)
    r = torch.zeros(4, 6, dtype=torch.float64)
    for row in range(4):
        for column in range(6):
            around = squared[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            r[row, column] = around.mean().sqrt()
    plain = 1 / (1 + torch.exp(-(r / (threshold * spread)).log() / softness))
    if plain.mean() > whole:
        return plain
    limit = max(threshold * spread, peak * float(r.max()))
    return 1 / (1 + torch.exp(-(r / limit).log() / softness))


@pytest.mark.parametrize("whole", [0.2, 0.95], ids=["a whole scene", "a part of one"])
@pytest.mark.parametrize("peak", [0.0, 0.3, 0.95], ids=["no peak", "below the threshold", "above it"])
def test_an_edits_own_mask_is_the_formula(peak, whole):
    clean, edit = latents(1), latents(2)
    mask = own_mask(clean, edit, (2, 3), 1.7, threshold=0.8, peak=peak, whole=whole, softness=0.3)
    for row in range(3):
        expected = own_by_hand(clean[row], edit[row], 1.7, 0.8, peak, whole, 0.3)
        torch.testing.assert_close(unpacked(mask, (2, 3))[row].double(), expected, rtol=1e-5, atol=1e-6)


def test_an_edit_that_changed_nothing_has_an_empty_mask():
    clean = latents(1)
    assert own_mask(clean, clean, (2, 3)).max() < 1e-6
    assert own_mask(clean, clean + 5, (2, 3)).min() > 0.999


def test_what_changed_little_beside_what_changed_much_is_left_out_of_its_own_picture_alone():
    clean = torch.zeros(3, 64, 64)
    grid = torch.zeros(3, 16, 16)
    grid[0, :, :10] = 0.5
    grid[0, 2:7, 2:7] = 3.0
    grid[1, :, :10] = 0.5
    grid[2] = 0.5  # a night: all changes, the sky far more than the ground
    grid[2, :8] = 3.0
    mask = unpacked(own_mask(clean, packed(grid), (8, 8)), (8, 8))
    assert mask[0, 4, 4] > 0.99 and mask[0, 12, 4] < 0.05
    assert mask[1, 4, 4] > 0.99 and mask[1, 12, 4] > 0.99
    assert mask[2].min() > 0.99


def test_what_shows_no_photo_says_nothing_of_what_an_edit_changed():
    """Neither what changed most nor the mean counts the padding, here below row 8 of 16."""
    clean, shown = torch.zeros(2, 64, 64), torch.zeros(2, 16, 16)
    shown[:, :8] = 1
    grid = torch.zeros(2, 16, 16)
    grid[0, 2:5, 2:5], grid[0, 10:14, 2:14] = 0.5, 9.0  # much is drawn anew in the padding
    grid[1, :8], grid[1, :8, :8] = 0.5, 3.0  # all of the photo changes, and half of the picture
    by_all, by_shown = (
        unpacked(own_mask(clean, packed(grid), (8, 8), shown=each), (8, 8)) for each in (None, shown)
    )
    assert by_all[0, 3, 3] < 0.05 and by_shown[0, 3, 3] > 0.95
    assert by_all[1, 3, 13] < 0.05 and by_shown[1, :7].min() > 0.99
    both = [own_mask(clean, packed(grid), (8, 8), shown=each) for each in (None, torch.ones_like(shown))]
    assert torch.equal(*both)


def test_a_feather_is_a_gaussian_in_pixels():
    ndimage = pytest.importorskip("scipy.ndimage")
    grid = torch.rand(2, 40, 30, generator=torch.Generator().manual_seed(1))
    soft = unpacked(feathered(packed(grid), (20, 15), 12), (20, 15))
    for row in range(2):
        expected = ndimage.gaussian_filter(grid[row].double().numpy(), 1.5, mode="mirror", truncate=4)
        torch.testing.assert_close(soft[row].double(), torch.from_numpy(expected), rtol=0, atol=2e-3)
    torch.testing.assert_close(feathered(packed(grid), (20, 15), 0), packed(grid))


def test_thresholds_are_relative_to_what_the_record_says_of_the_model():
    assert small_task().spread == configs["flux-tiny"].latent_spread
    rng = np.random.default_rng(1)
    scenes = np.stack([np.asarray(render(sample_scene(rng))) for _ in range(24)])
    photos = torch.from_numpy(scenes).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        latents = load_ae("flux-tiny", device="cpu").encode(photos)
    assert float(latents.std()) == pytest.approx(configs["flux-tiny"].latent_spread, rel=0.02)
