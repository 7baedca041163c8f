"""Masks by words, against attention, blurring, Otsu's rule and closing written out."""

from dataclasses import replace

import numpy as np
import torch
from helpers_methods import small_task

from flux.hooks import Hooks
from flux.math import apply_rope
from flux.methods.tables import MASKS, build, part_record
from flux.methods.word_masks import region
from flux.sampling import image_ids

WORDS = (((1, 2), (3,)), ((), (0, 4)), ((5,), ()))
LAYERS = (2, 3, 7)


def task_of(**arguments):
    return replace(small_task(**arguments), words=WORDS, word_layers=LAYERS)


def region_by_hand(a: np.ndarray, steepness: float, blur: float) -> np.ndarray:
    a = a.astype(np.float64)
    soft = 1 / (1 + np.exp(-steepness * ((a - a.min()) / (a.max() - a.min()) - 0.5)))
    h, w = a.shape
    taps = np.exp(-0.5 * (np.arange(-3, 4) / blur) ** 2)
    taps /= taps.sum()

    def mirrored(i: int, n: int) -> int:
        period = max(1, 2 * (n - 1))
        i = abs(i) % period
        return period - i if i >= n else i

    smooth = np.zeros_like(soft)
    for row in range(h):
        for column in range(w):
            for i, down in enumerate(taps):
                for j, across in enumerate(taps):
                    at = soft[mirrored(row + i - 3, h), mirrored(column + j - 3, w)]
                    smooth[row, column] += down * across * at
    levels = np.round(255 * smooth)
    between = []
    for limit in range(256):
        low, high = levels[levels <= limit], levels[levels > limit]
        apart = low.mean() - high.mean() if len(low) and len(high) else 0.0
        between.append(len(low) * len(high) * apart**2)
    high = levels > int(np.argmax(np.round(between, 6)))
    grown = np.array(
        [[high[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].any() for c in range(w)] for r in range(h)]
    )
    return np.array(
        [[grown[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].all() for c in range(w)] for r in range(h)]
    )


def test_a_region_is_the_papers_rule():
    rng = np.random.default_rng(1)
    for _ in range(5):
        attention = rng.random((8, 10)).astype(np.float32) ** 3
        found = region(attention)
        assert np.array_equal(found, region_by_hand(attention, 3.0, 0.72))
        assert 0.05 < found.mean() < 0.95


def attention_by_hand(task, side: str, pair: int, tokens) -> np.ndarray:
    """Mean over heads and layers of image tokens' attention to text tokens, added up; float64, (h, w)."""
    field, source = task.field, task.field.of[pair]
    index = round(11 / 15 * task.steps)
    t = task.times[index]
    z = ((1 - t) * task.clean + t * task.noise(0))[source]
    texts, row = (field.sources, source) if side == "source" else (field.edits, pair)
    txt, found = texts.txt[row : row + 1], []

    def keep(q, k, v, site):
        turned_q, turned_k = (each[0].double() for each in apply_rope(q, k, site.pe))
        scores = (turned_q @ turned_k.transpose(-1, -2) / q.shape[-1] ** 0.5).exp()
        shares = (scores / scores.sum(dim=-1, keepdim=True)).mean(dim=0)
        found.append(shares[txt.shape[1] :, list(tokens)].sum(dim=-1))
        return q, k, v

    with torch.no_grad():
        field.flow(
            img=z[None],
            img_ids=image_ids(*field.size)[None],
            txt=txt,
            txt_ids=torch.zeros(1, txt.shape[1], 3),
            y=texts.vec[row : row + 1],
            timesteps=torch.tensor([t]),
            guidance=torch.tensor([1.0]),
            hooks=Hooks(inject=dict.fromkeys(LAYERS, keep)),
        )
    return torch.stack(found).mean(dim=0).reshape(field.size).numpy()


def test_a_mask_is_where_image_tokens_look_at_the_words_that_differ():
    task = task_of(steps=15, size=(6, 8))
    mask = build(part_record(MASKS, "words"))(task)
    assert mask.shape == (3, 48, 64)
    for pair, (gone, new) in enumerate(WORDS):
        expected = np.zeros((6, 8), dtype=bool)
        for side, tokens in (("source", gone), ("edit", new)):
            if tokens:
                expected |= region(attention_by_hand(task, side, pair, tokens))
        assert torch.equal(mask[pair, :, 0].reshape(6, 8) > 0, torch.from_numpy(expected))
    assert 0 < mask.mean() < 1
    assert task.field.counts == [2, 2, 2]


def test_a_negative_prompt_is_not_looked_at():
    find, text = build(part_record(MASKS, "words")), small_task().field.empty
    task = task_of(size=(6, 8), away=(text, 2.0))
    assert torch.equal(find(task), find(task_of(size=(6, 8)))) and task.field.counts == [2, 2, 2]


def test_rows_do_not_see_each_other():
    find = build(part_record(MASKS, "words"))
    assert torch.equal(find(task_of(size=(6, 8)).rows([2, 0])), find(task_of(size=(6, 8)))[[2, 0]])


def test_where_no_words_are_known_all_may_change():
    task = small_task()
    assert task.words == (((), ()),) * 3
    assert (build(part_record(MASKS, "words"))(task) == 1).all()
