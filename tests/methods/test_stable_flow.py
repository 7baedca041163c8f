"""Edits: what stands beside what, what injection reaches, and that a result depends on nothing else."""

from dataclasses import replace

import pytest
import torch
from helpers_demos import small_models

from flux.generate import Sampling, generate
from flux.hooks import AboveThreshold, CopySource, TopRatio
from flux.methods.stable_flow import Edit, EditRequest, Row, edit, edit_passes, edit_steps
from flux.models import VITAL_LAYERS
from flux.pictures.files import to_pil
from flux.studies.edit.requests import file_of, requests
from flux.studies.edit.spec import EditSpec

SAMPLING = Sampling(steps=3, guidance=3.5, width=48, height=32)
ALL = tuple(range(12))
EDITS = (
    Edit("a cat", ALL[:4]),
    Edit("a bird", ALL[:4]),
    Edit("a fish", (5,), CopySource(strength=0.5, select=TopRatio(0.5))),
    Edit("a boat", ("double.1", 9), CopySource(values=False, steps=(0, 2))),
    Edit("a hat", ALL, CopySource(select=AboveThreshold(1.0))),
)
REQUEST = EditRequest("a dog", EDITS, SAMPLING, seed=5, batch=8)


@pytest.fixture(scope="module")
def models():
    return small_models()


@pytest.fixture(scope="module")
def result(models):
    return edit(models, replace(REQUEST, repeat=True))


def assert_alike(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal but for the rounding of differently shaped batches: as 8-bit pictures within one level."""
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    levels = [torch.tensor(list(to_pil(x).tobytes()), dtype=torch.int32) for x in (a, b)]
    assert (levels[0] - levels[1]).abs().max() <= 1


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() > 1e-2)


def test_the_source_and_the_plain_pictures_are_what_text_alone_gives(models, result):
    prompts = ["a dog", *(each.prompt for each in EDITS)]
    for prompt, picture in zip(prompts, [result.source, *result.plain], strict=True):
        assert_alike(picture, generate(models, [prompt], [5], SAMPLING)[0])
    assert result.source.shape == (3, 32, 48)
    assert result.latents[Row("source")].shape == (16, 4, 6)


def test_injection_changes_an_edit_and_not_the_source(models, result):
    for changed, plain in zip(result.edits, result.plain, strict=True):
        assert differ(changed, plain) and differ(changed, result.source)
    assert_alike(result.repeat, result.source)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_result_does_not_depend_on_the_batch(models, result, batch):
    other = edit(models, replace(REQUEST, batch=batch))
    for row in other.pictures:
        assert_alike(other.pictures[row], result.pictures[row])


def test_a_permutation_of_the_edits_permutes_the_results(models, result):
    order = [3, 0, 4, 2, 1]
    other = edit(models, replace(REQUEST, edits=tuple(EDITS[i] for i in order)))
    for i, j in enumerate(order):
        assert_alike(other.edits[i], result.edits[j])
        assert_alike(other.plain[i], result.plain[j])


def test_an_edit_with_the_sources_prompt_is_the_source(models):
    same = edit(models, EditRequest("a dog", (Edit("a dog", ALL),), SAMPLING))
    assert_alike(same.edits[0], same.source)


@pytest.mark.parametrize(
    "nothing",
    [
        Edit("a cat", ()),
        Edit("a cat", ALL, CopySource(strength=0)),
        Edit("a cat", ALL, CopySource(steps=(3, 9))),
    ],
)
def test_no_layers_no_strength_or_no_steps_is_no_injection(models, nothing):
    made = edit(models, EditRequest("a dog", (nothing,), SAMPLING))
    assert_alike(made.edits[0], made.plain[0])


def test_any_callable_sees_the_source_and_its_own_row(models, result):
    seen = []

    def values_of_the_source(q, k, v, site):
        seen.append((len(q), len(site.pe), site.layer, site.step))
        return (
            q,
            k,
            torch.cat((v[:1], torch.cat((v[1:, :, : site.txt_len], v[:1, :, site.txt_len :]), dim=2))),
        )

    own = Edit("a cat", (2, "single.0"), values_of_the_source)
    copied = Edit("a cat", (2, 4), CopySource(keys=False))
    made = edit(models, EditRequest("a dog", (EDITS[1], own, copied), SAMPLING, seed=5))
    assert_alike(made.edits[1], made.edits[2])
    assert_alike(made.edits[0], result.edits[1])
    assert seen == [(2, 2, layer, step) for step in range(3) for layer in (2, 4)]


def test_rows_of_a_pass():
    one_by_one = edit_passes(replace(REQUEST, edits=EDITS[:3], batch=2, repeat=True))
    assert [[(row.kind, row.index) for row in each.rows] for each in one_by_one] == [
        [("source", 0), ("edit", 0), ("edit", 1)],
        [("repeat", 0), ("plain", 0), ("plain", 1)],
        [("source", 0), ("edit", 2)],
        [("plain", 2)],
    ]
    alone = edit_passes(replace(REQUEST, compare=False))
    assert [len(each.rows) for each in alone] == [6]
    assert len(edit_passes(replace(REQUEST, compare=False, repeat=True))) == 2


def test_equal_injections_of_a_layer_are_one():
    (first, *_) = edit_passes(REQUEST)
    rows = [how.rows for how in first.hooks.inject[1]]
    assert rows == [(1, 2), (5,)]


def test_pictures_come_with_the_last_step_of_their_pass(models):
    events = list(edit_steps(models, replace(REQUEST, batch=3)))
    assert [(each.index, each.step.index) for each in events] == [(p, s) for p in range(4) for s in range(3)]
    for each in events:
        assert set(each.pictures) == (set(each.rows) if each.step.index == 2 else set())


def test_every_prompt_is_read_once():
    models = small_models()
    edit(models, replace(REQUEST, batch=1))
    assert sorted(models.t5.calls) == sorted(["a dog", *(each.prompt for each in EDITS)])


def test_bfloat16_and_offload():
    models = small_models(torch.bfloat16)
    made = edit(models, replace(REQUEST, offload=True, repeat=True))
    assert all(picture.isfinite().all() for picture in made.pictures.values())
    assert made.source.dtype == torch.float32
    assert next(models.flow.parameters()).device.type == "cpu"


@pytest.mark.gpu
def test_on_a_gpu():
    on_gpu = edit(small_models(device="cuda"), REQUEST)
    on_cpu = edit(small_models(), REQUEST)
    for row, picture in on_gpu.pictures.items():
        torch.testing.assert_close(picture, on_cpu.pictures[row], rtol=1e-2, atol=1e-2)
    half = edit(small_models(torch.bfloat16, "cuda"), replace(REQUEST, offload=True))
    assert all(picture.isfinite().all() for picture in half.pictures.values())


def test_mistakes(models):
    with pytest.raises(ValueError, match="at least one edit"):
        replace(REQUEST, edits=())
    with pytest.raises(ValueError, match="batch must be 1 or more"):
        replace(REQUEST, batch=0)
    with pytest.raises(ValueError, match="layers 0 to 11"):
        edit(models, replace(REQUEST, edits=(Edit("a cat", (12,)),)))


# From a spec


def spec(**changes) -> EditSpec:
    return EditSpec.model_validate({"source": "a dog", "edits": ["a cat"], **changes})


def test_edits_of_several_seeds_have_a_source_each():
    edits = ["a cat", {"prompt": "a bird", "seeds": [3, 0]}, {"prompt": "a fish", "seeds": [3]}]
    whole = spec(edits=edits, batch=2)
    assert [(each.seed, [edit.prompt for edit in each.edits], each.repeat) for each in requests(whole)] == [
        (0, ["a cat", "a bird"], True),
        (3, ["a bird", "a fish"], False),
    ]
    rows = [Row("source"), Row("repeat"), *(Row(kind, i) for i in (0, 1) for kind in ("edit", "plain"))]
    assert [file_of(whole, 0, row) for row in rows] == [
        *("source.png", "source-again.png"),
        *("edit-01.png", "plain-01.png", "edit-02-seed-0.png", "plain-02-seed-0.png"),
    ]
    assert file_of(whole, 3, Row("source")) == "source-seed-3.png"
    assert file_of(whole, 3, Row("edit", 1)) == "edit-03-seed-3.png"


def test_strategies_become_injections():
    edits = [
        "a cat",
        {"prompt": "a", "strategy": {"name": "ratio", "ratio": 0.3, "keys": False}, "strength": 0.5},
        {"prompt": "b", "strategy": {"name": "threshold", "threshold": 1.5}, "window": [2, 9], "layers": [7]},
    ]
    (request,) = requests(spec(edits=edits))
    assert [each.how for each in request.edits] == [
        CopySource(),
        CopySource(keys=False, strength=0.5, select=TopRatio(0.3)),
        CopySource(select=AboveThreshold(1.5), steps=(2, 9)),
    ]
    default = VITAL_LAYERS["flux-tiny"]["default"]
    assert [each.layers for each in request.edits] == [default, default, (7,)]


@pytest.mark.parametrize(
    "how, says",
    [
        (lambda q, k, v, site: None, "must return \\(q, k, v\\); got NoneType"),
        (lambda q, k, v, site: (q, k, v[:1]), "must return v of shape \\(2, .*; got \\(1, "),
    ],
)
def test_an_injection_of_ones_own_is_named_by_layer_and_row(models, how, says):
    edits = (Edit("a cat", (3,)), Edit("a dog", (5,), how))
    with pytest.raises((TypeError, ValueError), match=rf"^inject\[5\] for row 2 {says}"):
        edit(models, EditRequest("a hat", edits, SAMPLING))
