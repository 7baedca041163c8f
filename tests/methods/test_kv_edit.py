"""KV-Edit against its rule written out: kept keys and values, and nothing asked of what is not masked."""

from itertools import pairwise

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.hooks import Hooks
from flux.math import apply_rope
from flux.methods import defaults
from flux.methods.kv_edit import kv_edit

TEXT = 6  # tokens


def masked_task(**arguments):
    task = small_task(**arguments)
    mask = torch.zeros(len(task.field.of), 6, 64)
    mask[0, :3], mask[1, 2:], mask[2, 4] = 1, 1, 1
    return task.with_mask(mask)


def plainly(task, pair: int, *, start, origin, background, source_guidance, guidance) -> torch.Tensor:
    """arXiv 2502.17363, for one source and edit.

    The edit is given nothing but noise where it is not masked, so that what is made there tells nobody
    anything; its attention is written out, over its own text, the kept background and the masked tokens.
    """
    times = task.times[round(start * (len(task.times) - 1)) :]
    x = task.clean[task.field.of[pair]].double()
    e = task.noise(0)[task.field.of[pair]].double()
    straight = [(1 - t) * x + t * e for t in times]
    inverted = [x]
    for noisier, cleaner in reversed(list(pairwise(times))):
        v = velocity_of(task, inverted[0], cleaner, "source", pair, source_guidance)
        inverted.insert(0, inverted[0] + (noisier - cleaner) * v)
    way = straight if origin == "straight" else inverted

    mask = task.field.mask[pair].double()
    kept_share = 1 - mask.amax(dim=1)  # by token
    outside = torch.nn.functional.pad(kept_share, (TEXT, 0))[:, None]
    z = mask * (inverted if origin == "inverted" else straight)[0] + (1 - mask) * way[0]
    for (t, t_next), (z_source, z_source_next) in zip(pairwise(times), pairwise(way), strict=True):
        kept = {}

        def keep(q, k, v, site, kept=kept):
            kept[site.layer] = k, v
            return q, k, v

        def attend(q, k, v, site, kept=kept):
            k, v = (
                outside * theirs + (1 - outside) * own
                for own, theirs in zip((k, v), kept[site.layer], strict=True)
            )
            q, k = apply_rope(q, k, site.pe)
            scores = (q.double() @ k.double().mT) / q.shape[-1] ** 0.5
            scores = scores.exp() * (1 + outside[:, 0] * (background - 1))
            out = scores / scores.sum(dim=-1, keepdim=True) @ v.double()
            return out.transpose(1, 2).flatten(2).to(q)

        velocity_of(task, z_source, t, "source", pair, source_guidance, Hooks(inject={"all": keep}))
        nothing = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
        seen = torch.where(kept_share[:, None] < 1, z, nothing)
        v = velocity_of(task, seen, t, "edit", pair, guidance, Hooks(attend={"all": attend}))
        z = mask * (z + (t_next - t) * v) + (1 - mask) * z_source_next
    return z


@pytest.mark.parametrize(
    "changes", [{}, {"origin": "noised", "background": 2.5}, {"origin": "straight", "start": 0.5}]
)
def test_it_is_the_papers_rule(changes):
    task, settings = masked_task(), defaults("kv-edit") | changes
    mask = task.field.mask.clone()
    mask[1, 2, 8:] = 0  # a token that is masked in part
    mask[1, 3] = 0.5
    task = task.with_mask(mask)
    *_, last = kv_edit(task, **settings)
    for pair in range(3):
        expected = plainly(task, pair, **settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-4, atol=1e-4)


def test_outside_the_mask_the_source_stands_to_the_bit():
    task = masked_task()
    for step in kv_edit(task, **defaults("kv-edit")):
        if step.edit is not None:
            outside = task.field.mask == 0
            assert torch.equal(step.edit[outside], task.field.of_edits(step.source)[outside])
    assert torch.equal(step.edit[outside], task.field.of_edits(task.clean)[outside])
    assert not torch.allclose(step.edit[~outside], task.field.of_edits(task.clean)[~outside], atol=0.1)


def test_a_straight_way_takes_no_inversion():
    task = masked_task(steps=7)
    steps = list(kv_edit(task, **defaults("kv-edit") | {"origin": "straight"}))
    assert {step.phase for step in steps} == {"edit"}
    assert task.field.counts == [12, 12, 12]


def test_a_look_of_the_tasks_own_is_taken():
    seen = []

    def look(of, sources, mask):
        seen.append((of, sources))
        return Hooks()

    list(kv_edit(masked_task(look=look), **defaults("kv-edit")))
    assert seen == [((0, 0, 1), 2)] * 3


def test_it_needs_a_mask():
    with pytest.raises(ValueError, match="needs a mask"):
        next(kv_edit(small_task(), **defaults("kv-edit")))
