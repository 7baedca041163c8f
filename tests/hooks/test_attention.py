"""Attention, watched: held against full softmaxes in float64; nothing in the result changes."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flux.hooks import CopySource, Hooks, Site, WatchAttention, attention_from, attention_to
from flux.math import rope
from flux.modules.layers import EmbedND
from flux.sampling import denoise, get_schedule

AXES = [4, 4, 8]
TEXT, SIZE, REFERENCES = 5, (3, 4), 2
PICTURE = slice(TEXT, TEXT + 12)


def case(heads: int = 3, text: int = TEXT, size: tuple[int, int] = SIZE, rows: int = 2):
    """Random q and k (B, H, L, 16) of text, picture and two reference tokens, and their site."""
    generator = torch.Generator().manual_seed(text)
    length = text + size[0] * size[1] + REFERENCES
    q, k = (2 * torch.randn(rows, heads, length, 16, generator=generator) for _ in "qk")
    ids = torch.zeros(1, length, 3)
    ids[0, text : length - REFERENCES, 1:] = torch.cartesian_prod(*map(torch.arange, size))
    ids[0, length - REFERENCES :, 0] = 1
    picture = slice(text, length - REFERENCES)
    return q, k, Site(layer=0, txt_len=text, pe=EmbedND(16, 10_000, AXES)(ids), img=picture), ids[0]


def whole(q: Tensor, k: Tensor, ids: Tensor) -> Tensor:
    """The full matrix of attention of one row, the mean over its heads, (L, L), in float64."""
    turn = torch.cat(
        [rope(ids[:, axis].double(), dim, 10_000).double() for axis, dim in enumerate(AXES)], dim=1
    )  # (L, 8, 2, 2)
    heads = []
    for queries, keys in zip(q.double(), k.double(), strict=True):
        turned = [
            torch.einsum("lpij,lpj->lpi", turn, x.reshape(len(x), 8, 2)).flatten(1) for x in (queries, keys)
        ]
        scores = turned[0] @ turned[1].T / 16**0.5
        heads.append(scores.exp() / scores.exp().sum(dim=1, keepdim=True))
    return torch.stack(heads).mean(dim=0)


@pytest.mark.parametrize("budget", [2**25, 60, 1])
def test_where_places_look(budget):
    q, k, site, ids = case()
    found = attention_from(q, k, site, [[3], [0, 5, 11]], budget=budget)
    assert found.dtype == torch.float32 and found.shape == (2, 2, q.shape[2])
    for row in range(2):
        full = whole(q[row], k[row], ids)[PICTURE]
        expected = torch.stack((full[3], full[[0, 5, 11]].mean(dim=0)))
        torch.testing.assert_close(found[row].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 2))


@pytest.mark.parametrize("budget", [2**25, 60, 1])
def test_who_looks_at_words(budget):
    q, k, site, ids = case()
    words = torch.zeros(2, 2, TEXT)
    words[0, 0, 1] = words[0, 1, [2, 3]] = words[1, 0, 4] = 1  # the second row has one of the two words
    found = attention_to(q, k, site, words, budget=budget)
    assert found.dtype == torch.float32 and found.shape == (2, 2, 12)
    full = [whole(q[row], k[row], ids)[PICTURE] for row in range(2)]
    expected = torch.stack((full[0][:, 1], full[0][:, [2, 3]].sum(dim=1)))
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1, 0].double(), full[1][:, 4], rtol=1e-4, atol=1e-6)
    assert not found[1, 1].any()


class LargestTensor(TorchDispatchMode):
    """Watches every tensor that is made and keeps the size of the largest, in elements."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_of_a_large_picture_no_full_matrix_is_held():
    """512 x 512 pixels are 1024 tokens; with 128 of text there are 1.2 million scores."""
    q, k, site, _ = case(heads=1, text=128, size=(32, 32), rows=1)
    with LargestTensor() as largest:
        attention_to(q, k, site, torch.ones(1, 1, 128), budget=2**17)
        attention_from(q, k, site, [list(range(1024))], budget=2**17)
    assert largest.elements <= 2**17


@pytest.fixture
def sampled(small_flux, small_inputs):
    """The latent that two steps of the small model end with, under a plan of hooks."""
    model, inputs = small_flux(), small_inputs(3)
    named = {name: inputs[name] for name in ("img_ids", "txt", "txt_ids")}

    def run(hooks: Hooks | None = None) -> Tensor:
        times = get_schedule(2, 16, shift=False)
        return denoise(
            model, inputs["img"], vec=inputs["y"], timesteps=times, guidance=3.5, hooks=hooks, **named
        )

    return run


def test_watching_changes_nothing(sampled):
    hook = WatchAttention([1, 2], [[0], [4, 5]], [[[1]], [[2, 3]]])
    copying = {layer: CopySource() for layer in (0, 4)}
    watched = sampled(
        Hooks(inject={**dict.fromkeys(range(1, 4), hook), 0: [copying[0], hook], 4: copying[4]})
    )
    assert torch.equal(watched, sampled(Hooks(inject=copying)))
    assert hook.found.keys() == {(layer, step) for layer in range(4) for step in range(2)}


def test_what_is_kept(sampled):
    hook = WatchAttention([2], [[0, 7]], [[[1], [2, 3]]])
    seen = {}

    def record(q, k, v, site):
        seen[site.layer, site.step] = (
            attention_from(q, k, site, hook.places),
            attention_to(q, k, site, torch.eye(5)[None, [2]].expand(3, -1, -1) + torch.eye(5)[None, [3]]),
        )
        return q, k, v

    sampled(Hooks(inject={layer: [CopySource(), record, hook] for layer in (1, 3)}))
    assert hook.found.keys() == seen.keys() == {(layer, step) for layer in (1, 3) for step in (0, 1)}
    for place, found in hook.found.items():
        places, words = (each[2:] for each in seen[place])
        assert found.places.shape == (1, 1, 21) and found.words.shape == (1, 2, 16)
        torch.testing.assert_close(found.places.float(), 21 * places, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.words[:, 1:].float(), 21 * words / 2, rtol=1e-3, atol=1e-4)
        text = places[..., :5].sum(dim=-1)
        torch.testing.assert_close(found.shares[..., 0], text)
        torch.testing.assert_close(found.shares[..., 1], 1 - text)
        assert not found.shares[..., 2].any()


def test_in_a_layer_that_copies_the_keys_are_the_sources(sampled):
    """Behind the injection, an edit's place looks at the source's tokens; before it, at its own."""
    before, behind = (WatchAttention([1], [[3]]) for _ in range(2))
    sampled(Hooks(inject={2: [before, CopySource(), behind]}))
    assert not torch.allclose(before.found[2, 1].places, behind.found[2, 1].places, rtol=1e-2)
