"""A source that is kept: its edits are what they are beside it, and cost no more than plain pictures."""

from dataclasses import replace

import pytest
import torch
from helpers_demos import small_models

from flux.conditions import Negative
from flux.generate import Sampling, encode, sample_steps
from flux.hooks import AboveThreshold, CopySource, Hooks, KeptSource, TopRatio
from flux.hooks.kept import kept_copies
from flux.methods.stable_flow import Edit, EditRequest, Row, edit, edit_passes, edit_steps, kept_bytes
from flux.pictures.files import to_pil

SAMPLING = Sampling(steps=3, guidance=3.5, width=48, height=32)
ALL = tuple(range(12))
EDITS = (
    Edit("a cat", ALL[:4]),
    Edit("a bird", ALL[:4]),
    Edit("a fish", (5,), CopySource(strength=0.5, select=TopRatio(0.5))),
    Edit("a boat", ("double.1", 9), CopySource(values=False, steps=(0, 2))),
    Edit("a hat", ("all",), CopySource(select=AboveThreshold(1.0))),
)
REQUEST = EditRequest("a dog", EDITS, SAMPLING, seed=5, batch=2, compare=False)


@pytest.fixture(scope="module")
def models():
    return small_models()


def levels(picture):
    return torch.tensor(list(to_pil(picture).tobytes()), dtype=torch.int32)


def assert_alike(a, b):
    assert a.pictures.keys() == b.pictures.keys()
    for row, picture in a.pictures.items():
        assert (levels(picture) - levels(b.pictures[row])).abs().max() <= 1, row
        torch.testing.assert_close(a.latents[row], b.latents[row], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("place", ["auto", "device", "host"])
def test_edits_of_a_kept_source_are_those_beside_it(models, place):
    assert_alike(edit(models, replace(REQUEST, keep=place)), edit(models, REQUEST))


@pytest.mark.parametrize(
    "changes",
    [
        {"negative": Negative("a tree", 2.0)},
        {"negative": Negative("a tree", 2.0, beside=False)},
        {"sampling": replace(SAMPLING, integrator="midpoint")},
        {"compare": True, "repeat": True, "batch": 1},
        {"edits": (EDITS[0], Edit("a hat", (2,), lambda q, k, v, site: (q, k, v)), EDITS[2])},
    ],
)
def test_the_same_with_all_that_a_request_takes(models, changes):
    request = replace(REQUEST, **changes)
    assert_alike(edit(models, replace(request, keep="device")), edit(models, request))


@pytest.mark.parametrize("each", EDITS)
def test_where_batches_have_one_shape_edits_are_equal_to_the_bit(models, each):
    """The source in row 0 either time, once to be copied and once to be kept, as it is in row 0 again."""
    texts = encode(models, ["a dog", each.prompt])

    def last(inject):
        rows = ["a dog", each.prompt]
        return list(sample_steps(models, texts, rows, [5, 5], SAMPLING, hooks=Hooks(inject=inject)))[-1].after

    kept = KeptSource("host")
    for layer in each.layers:
        kept.want(layer, each.how)
    copied = last(dict.fromkeys(each.layers, each.how))
    kept.begin()
    last(kept.hooks())
    assert torch.equal(copied, last(dict(kept_copies(kept, [(1, each.layers, each.how)]))))
    assert not torch.equal(copied, last({}))


def test_to_the_bit_results_do_not_depend_on_the_order_of_edits(models):
    request = replace(REQUEST, edits=EDITS[:4], batch=2, keep="device")
    one, other = (edit(models, replace(request, edits=each)) for each in (EDITS[:4], EDITS[:4][::-1]))
    for there, here in zip(one.edits, other.edits[::-1], strict=True):
        assert torch.equal(there, here)
    assert torch.equal(one.source, other.source)


def test_a_further_edit_is_one_row(models, rows):
    kept = KeptSource()
    first = edit(models, replace(REQUEST, edits=EDITS[:1]), kept=kept)
    assert rows == [1] * 6 and kept.bytes > 0
    rows.clear()
    more = edit(models, replace(REQUEST, edits=EDITS[:1]), kept=kept)
    assert rows == [1] * 3
    assert torch.equal(more.edits[0], first.edits[0]) and torch.equal(more.source, first.source)


@pytest.mark.parametrize(
    "changes",
    [{"seed": 6}, {"source": "a frog"}, {"sampling": replace(SAMPLING, steps=2)}, {"edits": EDITS[2:3]}],
)
def test_what_is_kept_of_another_source_or_of_other_layers_is_not_taken(models, rows, changes):
    kept = KeptSource()
    edit(models, replace(REQUEST, edits=EDITS[:1]), kept=kept)
    rows.clear()
    request = replace(REQUEST, **{"edits": EDITS[:1], **changes})
    made = edit(models, request, kept=kept)
    assert rows == [1] * (2 * request.sampling.steps)
    assert_alike(made, edit(models, request))


def test_bytes_are_foretold(models):
    for edits in (EDITS[:2], EDITS[2:4]):
        request, kept = replace(REQUEST, edits=edits), KeptSource()
        edit(models, request, kept=kept)
        told = kept_bytes(request, models.flow.params, 4)
        chosen = 3 * 6 * 4 * any(each.how.select is not None for each in edits)
        assert kept.bytes == told + chosen


def test_edits_without_their_sources_pass_say_so(models):
    passes = edit_passes(replace(REQUEST, keep="device"))
    assert [each.keeps for each in passes] == [True, False, False, False]
    with pytest.raises(ValueError, match="need its own pass before them"):
        next(edit_steps(models, REQUEST, passes[1:]))


def test_a_source_that_is_there_yields_its_last_step_alone(models):
    kept = KeptSource("host")
    request = replace(REQUEST, edits=EDITS[:1])
    edit(models, request, kept=kept)
    steps = list(edit_steps(models, request, edit_passes(request, kept)))
    assert [(each.index, each.step.index, len(each.pictures)) for each in steps] == [
        *((0, 2, 1), (1, 0, 0), (1, 1, 0), (1, 2, 1)),
    ]
    assert set(steps[0].pictures) == {Row("source")}


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["device", "host"])
def test_on_a_gpu(place):
    models = small_models(device="cuda")
    kept = edit(models, replace(REQUEST, keep=place))
    for row, picture in edit(models, REQUEST).pictures.items():
        torch.testing.assert_close(kept.pictures[row], picture, rtol=1e-2, atol=1e-2)
