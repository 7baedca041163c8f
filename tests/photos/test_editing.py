"""Photographs edited from end to end, by small random models."""

import re
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_demos import FakeEncoder, small_models
from PIL import Image

from flux.generate import Sampling, generate
from flux.integrators import Evaluation
from flux.methods import METHODS, method_record
from flux.methods.field import Field
from flux.methods.flowedit import flowedit
from flux.methods.looks import Role, look_at_source
from flux.methods.task import MethodStep
from flux.photos import editing
from flux.photos.editing import EditSource, PhotoRequest, SourceEdit, edit_photo, edit_photo_steps
from flux.photos.gate import liken
from flux.photos.replays import replay_of
from flux.pictures.files import to_pil

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


@pytest.mark.parametrize("mask", ["velocity", "words"])
def test_a_mask_that_is_named_is_found(mask):
    how = {"method": "flowedit", "steps": 3, "size": (64, 64), "mask": mask}
    edited = edit_photo(small_models(), photograph(64, 64), "a dog", "a cat", **how)
    assert edited.evaluations > 6 and edited.share > 0


def test_a_mask_by_name_and_a_size_that_cannot_be_are_said():
    edits, how = (SourceEdit("a cat"),), {"mask": "velocity"}
    with pytest.raises(ValueError, match="mask is 'velocity': give \"auto\" or a function"):
        PhotoRequest((EditSource("a dog", photograph()),), edits, SAMPLING, **how)
    for fit in ("pad", "crop"):
        with pytest.raises(ValueError, match="size is 100 x 64: sides must be multiples of 16"):
            edit_photo(small_models(), photograph(), "a", "b", size=(100, 64), steps=2, options={"fit": fit})


def test_what_is_no_mask_is_said():
    with pytest.raises(ValueError, match="a mask must be a picture, its path, or a box; got a dict"):
        edit_photo(small_models(), photograph(), "a dog", "a cat", mask={"where": "auto"}, steps=2)


def forgetful(task):
    return task.clean


def tensors(task):
    yield task.clean


def cut_short(task):
    yield MethodStep("edit", 0, 1, 1.0, 0.0, task.clean[:, :3])


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (forgetful, "the method forgetful must yield a MethodStep for each step; it returned a Tensor"),
        (tensors, "the method tensors must yield a MethodStep for each step; it yielded a Tensor"),
        (cut_short, "the method cut_short must yield a MethodStep for each step with latents (1, 16, 64)"),
    ],
)
def test_what_a_clients_method_has_to_yield_is_said(method, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        edit_photo(
            small_models(), photograph(64, 64), "a dog", "a cat", method=method, steps=2, size=(64, 64)
        )


def by_hand(task):
    """FlowEdit, as a client's own method."""
    yield from flowedit(task, **method_record("flowedit").defaults)


@pytest.mark.parametrize("method", ["flowedit", "gentle", by_hand])
def test_a_mask_of_one_photo_limits_its_edit(method):
    how = {"method": method, "steps": 3, "size": (64, 64), "mask": (0, 0, 32, 64)}
    photo = photograph(64, 64)
    edited = edit_photo(small_models(), photo, "a dog", "a cat", **how)
    right = torch.arange(16).reshape(4, 4)[:, 2:].flatten()
    torch.testing.assert_close(edited.latent[right], edited.source.latent[right], rtol=0, atol=1e-6)
    assert not torch.allclose(edited.latent, edited.source.latent, atol=1e-2)
    free = edit_photo(small_models(), photo, "a dog", "a cat", **how, options={"operators": ()})
    assert not torch.allclose(free.latent[right], free.source.latent[right], atol=1e-2)


def test_masks_by_words_are_of_what_t5_reads():
    class Reading(FakeEncoder):
        def spans(self, prompt):
            return [found.span() for found in re.finditer(r"\S+", prompt)]

    def words(task):
        asked.extend(task.words)
        return corner(task)

    asked, models = [], small_models()
    models = replace(models, t5=Reading(*models.t5.shape))
    seconds = {"a dog": "in a field a brown dog", "a cat": "in a field a dog"}
    request = three(method=dab, mask=words, seconds=seconds, gate=False)
    list(edit_photo_steps(models, replace(request, edits=(SourceEdit("a cat"),))))
    assert asked == [((4,), ())]


ASKED = [("gentle", {}), ("gentle", {"doubt": 10.0}), ("rf-inversion", {}), ("fireflow", {}), ("inpaint", {})]
ASKED += [("stable-flow", {"integrator": name}) for name in ("midpoint", "euler-released")]


@pytest.mark.parametrize(("method", "settings"), ASKED, ids=str)
def test_all_times_at_which_a_method_asks_are_told_before(method, settings, monkeypatch):
    told, asked, velocity = set(), set(), Field._velocity

    @contextmanager
    def listening(*_, times=()):
        told.update(times)
        yield

    def heard(field, z, t, *more):
        asked.add(t)
        return velocity(field, z, t, *more)

    monkeypatch.setattr(editing, "at_work", listening)
    monkeypatch.setattr(Field, "_velocity", heard)
    mask = corner if method_record(method).needs_mask else None
    request = three(method=method, settings=settings, mask=mask)
    list(edit_photo_steps(small_models(), replace(request, edits=request.edits[2:3])))
    assert asked and asked <= told


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


def dab(task, *, size=9.0):
    """Change a fifth of each picture, as far as its mask lets it, and ask the model once for each edit."""
    clean = task.field.of_edits(task.clean)
    task.field.edit(clean, 1.0, Evaluation(0, 1), 1.0)
    change = torch.zeros_like(clean)
    change[:, : clean.shape[1] // 5] = size
    mask = 1.0 if task.field.mask is None else task.field.mask
    yield MethodStep("edit", 0, 1, 1.0, 0.0, clean + change * mask)


def corner(task):
    """A mask of the first token alone."""
    mask = torch.zeros_like(task.field.of_edits(task.clean))
    mask[:, 0] = 1
    return mask


@pytest.mark.parametrize("found", [None, "auto", corner], ids=["none", "auto", "function"])
def test_a_mask_of_one_edit_leaves_those_beside_it_alone(found):
    """With others in its batch an edit has the mask, the pasted picture and the price that it has alone."""
    edits = (SourceEdit("a cat"), SourceEdit("a hat", mask=(0, 0, 50, 60)), SourceEdit("a boat"))
    source = (EditSource("a dog", photograph()),)
    together, alone = (
        results(PhotoRequest(source, edits, SAMPLING, dab, mask=found, batch=n, gate=False)) for n in (3, 1)
    )
    for i, each in together.items():
        assert torch.equal(each.latent, alone[i].latent) and torch.equal(each.mask, alone[i].mask)
        assert each.pasted.tobytes() == alone[i].pasted.tobytes() != photograph().tobytes()
        assert (each.evaluations, each.note) == (alone[i].evaluations, None)
    assert together[0].share < 0.4 < together[1].share
    assert [each.evaluations for each in together.values()] == ([2, 1, 2] if found == "auto" else [1, 1, 1])


def test_an_edit_changed_nothing_where_its_change_says_so():
    """And not where it may change little: of the photo of 100 x 60 pixels here less than 1 %."""
    source, box = (EditSource("a dog", photograph()),), (0, 0, 7, 7)

    def notes(method, mask, **how):
        request = PhotoRequest(source, (SourceEdit("a cat", mask=mask),), SAMPLING, method, gate=False, **how)
        (each,) = results(request).values()
        return each.share, each.note

    share, note = notes(dab, box)
    assert share < 0.01 and note is None and notes(dab, None)[1] is None
    for mask in (None, box, (60, 30, 100, 60)):  # where it may change the last, dab changes nothing
        settings = {"size": 9.0 if mask == (60, 30, 100, 60) else 0.01}
        for paste in ("auto", True, False):
            assert notes(dab, mask, settings=settings, paste=paste)[1] == "the edit changed nothing"
    assert "nothing to paste it into" in notes("noise", None, settings={"strength": 1})[1]


@pytest.mark.parametrize("method", ["kv-edit", "inpaint"])
@pytest.mark.parametrize(
    "mask, said", [(None, "inside a mask alone: give"), ("auto", "found by a run without")]
)
def test_a_mask_that_a_method_needs_is_asked_for_at_once(method, mask, said):
    with pytest.raises(ValueError, match=said) as caught:
        next(edit_photo_steps(None, three(method=method, mask=mask)))
    assert "\n" not in str(caught.value)


UNCHANGED = ("rf-solver", "fireflow", "rf-inversion", "uniedit", "dnaedit")


def test_padding_counts_neither_in_the_gate_nor_in_what_an_edit_changes():
    """Of 80 x 20 pixels in 64 x 64 the picture shows 16 of 64 rows."""
    photo = photograph(80, 20)
    mask = Image.new("L", photo.size, 255)
    mask.paste(0, (0, 0, 1, 1))
    source = (EditSource("a dog", photo),)
    for edit, pasted in (
        (SourceEdit("a cat", mask=mask), False),
        (SourceEdit("a cat", mask=(0, 0, 16, 20)), True),
    ):
        request = PhotoRequest(source, (edit,), SAMPLING, "noise", {"strength": 1.0}, fit="pad")
        (result,) = results(request).values()
        assert (result.pasted is not None) == pasted and ("nothing to paste" in str(result.note)) != pasted
    opened = result.source
    assert opened.frame.inside == (0, 24, 64, 40) and result.share == pytest.approx(0.2, abs=0.05)
    back, cut = to_pil(opened.reconstruction), opened.frame.cut(photo)
    assert opened.gate.autoencoder == liken(*(each.crop((0, 24, 64, 40)) for each in (cut, back)))


@pytest.mark.parametrize("method", UNCHANGED)
def test_a_method_is_replayed_by_itself_with_nothing_asked_for(method):
    """The replay is the edit whose prompt is the source's."""
    source = EditSource("a dog", photograph(64, 64, 5), seed=3)
    edits = (SourceEdit("a dog"), SourceEdit("a cat"))
    steps = list(edit_photo_steps(small_models(), PhotoRequest((source,), edits, SAMPLING, method)))
    (opened,) = (each for step in steps for each in step.sources.values())
    same, other = (each for step in steps for each in step.results.values())
    back, replay = to_pil(opened.reconstruction), opened.gate.replay
    assert liken(back, same.image).psnr == pytest.approx(replay.psnr, abs=0.05)
    assert liken(back, other.image).psnr != pytest.approx(replay.psnr, abs=0.05)
    assert replay_of(method_record(method), {}).evaluations(4) == same.evaluations


def test_a_method_looks_in_its_usual_layers():
    """As in a spec, where nobody says; and in none where the options say so."""
    models = small_models()
    layers = models.spec.layers
    models = replace(models, spec=replace(models.spec, layer_sets={"default": (0, 1)}))
    how = {"method": "stable-flow", "steps": 3, "size": (64, 64)}
    usual, none, same = (
        edit_photo(models, photograph(64, 64), "a dog", "a cat", options=options, **how).latent
        for options in (None, {"look": None}, {"look": look_at_source([Role((0, 1))], layers)})
    )
    assert torch.equal(usual, same) and not torch.equal(usual, none)
    with pytest.raises(
        ValueError, match="looks at its source in the set 'default' of layers, and the model has none"
    ):
        bare = replace(models, spec=replace(models.spec, layer_sets={}))
        edit_photo(bare, photograph(64, 64), "a dog", "a cat", **how)


def test_too_few_steps_are_refused_at_once():
    with pytest.raises(ValueError, match="rf-inversion takes 2 steps at least, got 1"):
        edit_photo(small_models(), photograph(), "a dog", "a cat", method="rf-inversion", steps=1)


def test_a_replay_that_says_nothing_is_left_out():
    row = method_record("kv-edit")
    assert replay_of(row, {}).evaluations(4) == 0 and "not measured" in replay_of(row, {}).about
    request = replace(three(method="kv-edit", mask=corner), edits=(SourceEdit("a cat"),))
    steps = list(edit_photo_steps(small_models(), request))
    (opened,) = (each for step in steps for each in step.sources.values())
    assert opened.gate.autoencoder is not None and opened.gate.replay is None
    assert "gate" not in {step.phase for step in steps}


@pytest.mark.parametrize(
    "method, settings, said",
    [
        ("stable-flow", {}, ("a nudge", "more steps", "an integrator of second order")),
        ("rf-inversion", {}, ("a larger stop",)),
        ("dnaedit", {}, ("more steps",)),
    ],
)
def test_remedies_of_a_replay_are_settings_that_its_method_has(method, settings, said):
    assert replay_of(method_record(method), settings).remedies == said


def test_what_does_not_invert_is_not_replayed():
    assert all((replay_of(row, {}) is not None) == row.inverts for row in METHODS)


def test_a_large_photo_is_edited_small_and_comes_back_at_its_own_size(tmp_path):
    """4000 x 3000 pixels; outside the mask they stay, byte for byte."""
    photograph(400, 300).resize((4000, 3000)).save(tmp_path / "large.jpg", quality=80)
    whole = Image.open(tmp_path / "large.jpg").convert("RGB")
    box = (1000, 1000, 2200, 2000)
    how = {"method": "noise", "steps": 1, "mask": box}
    edited = edit_photo(small_models(), tmp_path / "large.jpg", "a dog", "a cat", **how)
    assert edited.image.size == (128, 96) and edited.pasted.size == whole.size == (4000, 3000)
    changed = (np.asarray(whole) != np.asarray(edited.pasted)).any(axis=-1)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    near = 1.5 * 8 * 4000 / 128  # a position of the mask, and the half of one to each side of it
    assert columns[0] > 1000 - near and columns[-1] < 2200 + near
    assert rows[0] > 1000 - near and rows[-1] < 2000 + near
    assert changed[1300:1700, 1300:1900].mean() > 0.5
