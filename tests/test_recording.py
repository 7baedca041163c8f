"""What one run keeps of its keys and values, and another takes from it."""

import torch

from flux.hooks import Recall, Recording, Site


def site(step, steps=4, substep=0, layer=7):
    return Site(layer, 2, torch.zeros(1), step=step, steps=steps, substep=substep)


def qkv(seed, rows=2):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, 1, 5, 3, generator=generator) for _ in range(3))


def test_a_recording_changes_nothing_and_keeps_its_window():
    recording, given = Recording(steps=(1, 3)), qkv(0)
    for step in range(4):
        assert all(a is b for a, b in zip(recording(*given, site(step)), given, strict=True))
    assert list(recording.kept) == [(1, 0, 7), (2, 0, 7)]
    assert all(torch.equal(kept, own) for kept, own in zip(recording.kept[1, 0, 7], given[1:], strict=True))


def test_it_is_taken_from_the_other_end():
    recording = Recording()
    for step in range(4):
        recording(*qkv(step), site(step))
    q, k, v = Recall(recording, of=(1, 0, 1))(*qkv(9, rows=3), site(0))
    assert torch.equal(q, qkv(9, rows=3)[0])
    assert torch.equal(k, qkv(3)[1][[1, 0, 1]]) and torch.equal(v, qkv(3)[2][[1, 0, 1]])


def test_substeps_and_layers_are_apart():
    recording, own = Recording(), qkv(9)
    for substep, layer in ((0, 7), (1, 7), (1, 8)):
        recording(*qkv(10 * substep + layer), site(3, substep=substep, layer=layer))
    recall = Recall(recording, of=(0, 1))
    for substep, layer in ((0, 7), (1, 7), (1, 8)):
        assert torch.equal(
            recall(*own, site(0, substep=substep, layer=layer))[2], qkv(10 * substep + layer)[2]
        )
    assert torch.equal(recall(*own, site(0, substep=0, layer=8))[2], qkv(18)[2]), "the middle, for want of it"


def test_what_was_not_kept_stays():
    recording, own = Recording(keys=False, steps=(3, 4)), qkv(9)
    recording(*qkv(1), site(3))
    recall = Recall(recording, of=(0, 1))
    assert all(a is b for a, b in zip(recall(*own, site(1)), own, strict=True))
    q, k, v = recall(*own, site(0))
    assert k is own[1] and torch.equal(v, qkv(1)[2])
    assert recall(*(x.bfloat16() for x in own), site(0))[2].dtype == torch.bfloat16
