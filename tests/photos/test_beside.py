"""Generated edits that come back to the source that they stood beside."""

import numpy as np
import pytest
import torch
from PIL import Image

from flux.photos.beside import GeneratedEdit, come_back
from flux.pictures.files import to_pil

SPREAD = 1.3


def edited(reach: int) -> GeneratedEdit:
    """An edit of the left `reach` of 12 columns of a latent of 8 x 12, which shows in the same pixels."""
    generator = torch.Generator().manual_seed(0)
    source, latent = (torch.randn(size, generator=generator) for size in ((3, 64, 96), (16, 8, 12)))
    source, edit, other = source.clamp(-1, 1), source.clamp(-1, 1).clone(), latent.clone()
    edit[:, :, : 8 * reach] *= -1
    other[:, :, :reach] += 2 * torch.randn((16, 8, reach), generator=generator)
    return GeneratedEdit(to_pil(source), (source, edit), (latent, other), SPREAD)


def test_what_it_left_alone_is_the_source_pixel_by_pixel():
    edit = edited(4)
    back = come_back(edit)
    levels, source = np.asarray(back.picture), np.asarray(edit.source)
    assert back.pasted and back.picture.size == back.mask_image.size == (96, 64)
    assert np.array_equal(levels[:, 56:], source[:, 56:]) and np.any(levels[:, :24] != source[:, :24])
    drawn = np.asarray(to_pil(edit.pictures[1]))
    assert abs(levels[:, :24].astype(int) - drawn[:, :24]).mean() < 2


def test_the_mask_is_the_change_against_the_spread_and_the_most():
    edit = edited(4)
    change = ((edit.latents[1] - edit.latents[0]).double() ** 2).mean(dim=0)

    def around(y, x):
        return change[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean().sqrt().clamp(min=1e-10)

    most = max(around(y, x) for y in range(change.shape[0]) for x in range(change.shape[1]))
    limit = max(0.2 * SPREAD, 0.3 * float(most))
    for y, x in ((0, 0), (3, 3), (4, 4), (7, 11)):
        expected = 1 / (1 + (limit / around(y, x)) ** (1 / 0.15))
        assert float(come_back(edit).mask[y, x]) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("when", "reach", "pasted"),
    [("auto", 4, True), ("auto", 12, False), (True, 12, True), (False, 4, False), ("auto", 0, True)],
)
def test_when_it_is_pasted(when, reach, pasted):
    edit = edited(reach)
    back = come_back(edit, when)
    assert back.pasted is pasted
    assert (back.note is not None and "nothing to paste it into" in back.note) == (
        when == "auto" and not pasted
    )
    if not pasted:
        assert back.picture.tobytes() == to_pil(edit.pictures[1]).tobytes()
    if reach == 0:
        assert back.share == 0 and back.picture.tobytes() == edit.source.tobytes()


def test_a_source_that_was_kept_is_what_it_comes_back_to():
    """It may differ by a rounding from the one that stood beside the edit."""
    edit = edited(4)
    kept = Image.fromarray(np.asarray(edit.source) ^ 1)
    back = come_back(GeneratedEdit(kept, edit.pictures, edit.latents, SPREAD))
    assert np.array_equal(np.asarray(back.picture)[:, 56:], np.asarray(kept)[:, 56:])
