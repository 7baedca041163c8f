"""Masks, operators and schedules beside the source in the sampler's own batch, against a plain loop."""

import math
from dataclasses import replace

import pytest
import torch
from helpers_demos import small_models

from flux.generate import Sampling, encode
from flux.integrators import Evaluation
from flux.methods.guidance import exponential, vags
from flux.methods.operators import gate, masked, velo_edit
from flux.methods.side_by_side import BesideSource
from flux.methods.stable_flow import Edit, EditRequest, Row, edit, edit_passes
from flux.sampling import get_noise, get_schedule, image_ids, pack, velocity

SAMPLING = Sampling(steps=3, guidance=3.5, width=48, height=32)
PROMPTS = ("a dog", "a cat", "a boat")
LIMIT, RATE, STRENGTH = 0.6, 0.9, 0.25
MASK = torch.rand(1, 6, 64, generator=torch.Generator().manual_seed(0))
REQUEST = EditRequest(
    PROMPTS[0],
    (Edit(PROMPTS[1], (), mask=MASK), Edit(PROMPTS[2], ())),
    SAMPLING,
    seed=5,
    compare=False,
    operators=(gate(LIMIT), masked(STRENGTH)),
    source_schedule=exponential(RATE),
    edit_schedule=vags(RATE),
)


@pytest.fixture(scope="module")
def models():
    return small_models()


def plain_loop(models) -> torch.Tensor:
    """Source and edits, packed, (3, L, 64), by the rules written out in float64."""
    texts = encode(models, PROMPTS)
    txt, vec = (torch.cat([of[prompt] for prompt in PROMPTS]) for of in (texts.txt, texts.vec))
    x = pack(get_noise(1, 32, 48, "cpu", torch.bfloat16, 5).float()).repeat(3, 1, 1).double()
    mask, cosines = torch.cat((MASK, torch.ones_like(MASK))).double(), [1.0, 1.0]
    times = get_schedule(3, 6, shift=models.spec.shift)
    ids, txt_ids = image_ids(2, 3).expand(3, -1, -1), torch.zeros(3, txt.shape[1], 3)
    for step in range(3):
        t = times[step]
        grow = RATE * (1 - 2 * t)
        guidance = [3.5 * math.exp(grow), *(3.5 * math.exp(grow * each) for each in cosines)]
        predicted = velocity(models.flow, ids, txt, txt_ids, vec, guidance)
        with torch.no_grad():
            v = predicted(x.float(), t, Evaluation(step, 3)).double()
        cosines = [float((v[0] * v[i]).sum() / v[0].norm() / v[i].norm()) for i in (1, 2)]
        for i in (1, 2):
            change = v[i] - v[0]
            small = v[0].abs() / (v[0].abs() + change.abs()) >= LIMIT
            change = torch.where(small, 0.0, change)
            v[i] = v[0] + (STRENGTH + (1 - STRENGTH) * mask[i - 1]) * change
        x = x + (times[step + 1] - t) * v
    return x


def test_velocities_and_guidance_become_what_a_plain_loop_makes_of_them(models):
    made, expected = edit(models, REQUEST), plain_loop(models)
    for i, row in enumerate((Row("source"), Row("edit", 0), Row("edit", 1))):
        torch.testing.assert_close(
            pack(made.latents[row][None])[0].double(), expected[i], rtol=1e-3, atol=1e-4
        )
    free = replace(REQUEST, operators=(), source_schedule=None, edit_schedule=None)
    for row in (Row("edit", 0), Row("edit", 1)):
        assert (edit(models, free).latents[row] - made.latents[row]).abs().max() > 1e-3


def test_the_result_does_not_depend_on_the_batch(models):
    together, alone = (edit(models, replace(REQUEST, batch=batch)) for batch in (2, 1))
    for row in together.latents:
        torch.testing.assert_close(together.latents[row], alone.latents[row], rtol=1e-3, atol=1e-4)


def test_what_a_mask_leaves_out_stays_the_sources(models):
    shut = replace(REQUEST.edits[0], mask=torch.zeros_like(MASK))
    made = edit(models, replace(REQUEST, edits=(shut,), operators=(masked(),), edit_schedule=None))
    torch.testing.assert_close(made.latents[Row("edit", 0)], made.latents[Row("source")])


def test_operators_are_told_where_the_source_is_foreseen_to_end():
    x, v = torch.randn(2, 3, 6, 64, generator=torch.Generator().manual_seed(0))
    t, limit = 0.75, 0.5
    beside = BesideSource((velo_edit(limit),))
    made = beside.around(lambda guidance: lambda x, t, at: v, 3.5)(x, t, Evaluation(1, 4))
    back = (x[1:] - (x[:1] - t * v[:1])) / t
    expected = torch.where(back.abs() >= limit * (back.abs() + (v[1:] - back).abs()), back, v[1:])
    torch.testing.assert_close(made, torch.cat((v[:1], expected)))


def test_a_source_that_is_kept_stands_beside_such_edits(models):
    passes = edit_passes(replace(REQUEST, keep="host"))
    assert [each.rows[0] for each in passes] == [Row("source")] and not any(each.kept for each in passes)
