"""Photographs edited from end to end, by small random models."""

import numpy as np
import pytest
import torch
from helpers_demos import small_models
from PIL import Image

from flux.generate import Sampling, generate
from flux.photos.editing import EditSource, PhotoRequest, SourceEdit, edit_photo, edit_photo_steps

SAMPLING = Sampling(4, 3.5, 64, 64)


def photograph(width=100, height=60, seed=0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def results(request):
    return {i: each for step in edit_photo_steps(small_models(), request) for i, each in step.results.items()}


def three(**changes) -> PhotoRequest:
    sources = (
        EditSource("a dog", photograph(), seed=1),
        EditSource("a fish", seed=2),
        EditSource("a cow", photograph(64, 64, 5), seed=3),
    )
    edits = (
        SourceEdit("a cat", 0),
        SourceEdit("a bird", 1),
        SourceEdit("a goat", 2),
        SourceEdit("a boat", 0),
    )
    return PhotoRequest(sources, edits, SAMPLING, **changes)


def test_one_photo_is_three_lines(tmp_path):
    photograph().save(tmp_path / "photo.png")
    edited = edit_photo(
        small_models(), tmp_path / "photo.png", "a dog", "a cat", steps=3, options={"paste": True}
    )
    assert edited.pasted.size == (100, 60)
    once = 2 * 3 + 2  # a try and its check
    assert edited.evaluations in (once, 2 * once)


def test_the_result_does_not_depend_on_the_batch():
    together, alone = results(three(batch=4)), results(three(batch=1))
    assert list(together) == [0, 3, 1, 2]
    for i, each in together.items():
        torch.testing.assert_close(each.latent, alone[i].latent, rtol=1e-4, atol=1e-4)
        assert each.evaluations == alone[i].evaluations


def test_a_generated_source_is_the_picture_that_is_generated():
    made = generate(small_models(), ["a fish"], [2], SAMPLING)[0]
    source = results(three())[1].source
    assert torch.equal(source.picture, made) and torch.equal(source.reconstruction, made)
    assert source.gate is None


def test_progress_comes_before_results_and_sources_before_both():
    steps = list(edit_photo_steps(small_models(), three()))
    first = next(i for i, step in enumerate(steps) if step.phase == "edit")
    assert {number for step in steps[:first] for number in step.sources} == {0}
    assert [step.phase for step in steps if step.index == 1][:5] == ["sample"] * 4 + ["open"]
    gates = {number: source.gate for step in steps for number, source in step.sources.items()}
    assert gates[0].autoencoder.psnr > 0 and gates[1] is None


def test_own_change_by_a_first_pass_takes_as_much_again():
    assert results(three(mask="auto"))[0].evaluations == 2 * results(three())[0].evaluations


def test_given_masks_are_where_photos_change():
    mask = Image.new("L", (100, 60))
    mask.paste(255, (0, 0, 50, 60))
    edits = (SourceEdit("a cat", mask=mask), SourceEdit("a cat", mask=(0, 0, 50, 60)))
    request = PhotoRequest((EditSource("a dog", photograph()),), edits, SAMPLING, paste=True)
    by_picture, by_box = results(request).values()
    assert by_picture.pasted.tobytes() == by_box.pasted.tobytes() != photograph().tobytes()
    right = (58, 0, 100, 60)  # beyond the bilinear edge of the mask
    assert by_picture.pasted.crop(right).tobytes() == photograph().crop(right).tobytes()


@pytest.mark.parametrize("method", ["flow-edit", "flux.methods:nothing", "no.such.module"])
def test_a_method_that_does_not_exist(method):
    with pytest.raises(ValueError, match="method"):
        results(three(method=method))


def test_methods_that_invert_tell_how_well_sources_come_back_from_noise():
    """What the method's own free replay leaves of the latent, as `reconstruct` has it; not counted."""
    request = three(method="stable-flow", settings={"integrator": "midpoint", "nudge": 1.0})
    steps = list(edit_photo_steps(small_models(), request))
    gates = {number: source.gate for step in steps for number, source in step.sources.items()}
    assert gates[0].autoencoder is not None and gates[0].replay.psnr > 0
    assert gates[1].autoencoder is None and gates[1].replay.psnr > 0
    assert [step.step for step in steps if step.phase == "gate" and step.index == 0] == [0, 1, 2, 3] * 2
    first = next(i for i, step in enumerate(steps) if step.phase == "edit")
    assert 0 in {number for step in steps[:first] for number in step.sources}
    unasked = results(three(method="stable-flow", settings=request.settings, gate=False))
    for step in steps:
        for number, each in step.results.items():
            assert each.evaluations == unasked[number].evaluations
            assert torch.equal(each.latent, unasked[number].latent)


def test_settings_that_a_method_does_not_take():
    with pytest.raises(ValueError, match="flowedit takes no strength: its settings are start, last"):
        results(three(method="flowedit", settings={"strength": 1}))
