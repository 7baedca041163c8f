"""Streaming while some blocks stay: which, what is fetched when, in how much room, to the bit."""

import pytest
import torch
from helpers_demos import small_models
from helpers_placement import HOOKS, SAMPLING, Reader, latents, names_sent, same

from flux.generate import at_work, encode, sample_steps
from flux.placement.modes import is_offload, kind_of, offload_key, offload_name, staying_blocks
from flux.placement.shares import staying_of
from flux.placement.work import kept_weights, remember

STAYING = [2, 5, 8, 11]
"""The four of twelve that stay."""


def test_which_blocks_stay():
    assert [*staying_of(range(12), 4)] == STAYING
    assert staying_of(range(12), 0) == staying_of((), 0) == staying_of((), 3) == ()
    for count in range(58):
        staying = staying_of(range(57), count)
        assert len(staying) == (57 if count >= 54 else count)  # three pass through as many rooms
        gaps = {b - a for a, b in zip(staying, staying[1:], strict=False)}
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_what_stays_is_fetched_once_for_a_run_and_the_others_two_ahead(lane):
    models, seen = small_models(), []
    for number, block in enumerate((*models.flow.double_blocks, *models.flow.single_blocks)):
        block.register_forward_pre_hook(lambda *_, number=number: seen.append((number, len(lane.sent))))
    latents(models, "stream:4")
    passing = [each for each in range(12) if each not in STAYING]
    assert names_sent(lane, models) == STAYING + passing * 3
    for step in (seen[start : start + 12] for start in (0, 12, 24)):
        first = step[1][1]  # the second block begins: the first has made room for the fourth that passes
        assert [count - first for _, count in step[1:]] == [0, 1, 1, 2, 3, 3, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("hooks", HOOKS)
def test_to_the_bit(hooks, lane):
    plain = latents(small_models(), hooks=HOOKS[hooks])
    models = small_models()
    for way in ("stream:4", "stream:9", "stream:1"):
        assert same(latents(models, way, hooks=HOOKS[hooks]), plain), way


def test_a_skipped_layer_is_not_fetched_whether_it_stays_or_not(lane):
    models = small_models()
    latents(models, "stream:4", hooks=HOOKS["skip"])  # 1 and 5
    assert names_sent(lane, models) == STAYING + [0, 3, 4, 6, 7, 9, 10] * 3


def test_in_how_much_room(lane):
    models = small_models()
    latents(models, "stream:4")
    kept = kept_weights(models.flow, lane, "stream")
    blocks = [len(master) for master in kept.blocks.values()]
    passing = max(size for number, size in enumerate(blocks) if number not in STAYING)
    modulation = max(map(len, kept.modulations.values()))
    rest = sum(map(len, kept.rest))
    assert sum(lane.rooms) == rest + sum(blocks[i] for i in STAYING) + 3 * passing + 3 * modulation


def test_where_nothing_is_saved_everything_stays(lane):
    models = small_models()
    latents(models, "stream:9")
    assert names_sent(lane, models) == [*range(12)]


def test_another_number_packs_nothing_anew_and_a_run_leaves_all_at_home(lane):
    models = small_models()
    latents(models, "stream:4")
    held = len(lane.held)
    texts = encode(models, ["a"])
    steps = sample_steps(models, texts, ["a"], [0], SAMPLING, offload="stream:6")
    next(steps)
    steps.close()
    kept = kept_weights(models.flow, lane, "stream")
    assert len(lane.held) == held and all(master.is_home for master in kept.masters)


def test_of_t5_as_many_stay(lane):
    reader, ids = Reader(layers=8), torch.arange(12).view(2, 6)
    plain = reader(ids)
    with torch.no_grad(), at_work(torch.device("cpu"), "stream:2", reader):
        assert same([reader(ids), reader(ids)], [plain, plain])
    blocks = [master.bytes.data_ptr() for master in kept_weights(reader, lane, "stream").blocks.values()]
    sent = [blocks.index(each.data_ptr()) for each in lane.sent if each.data_ptr() in blocks]
    assert sent == [3, 7] + [0, 1, 2, 4, 5, 6] * 2


def test_auto_may_mean_a_number(lane):
    models = small_models()
    remember("stream:4", models.flow)
    latents(models, "auto")
    assert names_sent(lane, models)[:5] == [*STAYING, 0]


def test_names():
    assert [offload_key(each) for each in ("stream:12", "stream:007", "stream:0")] == [
        "stream:12",
        "stream:7",
        "stream",
    ]
    assert offload_name("stream:12") == "stream:12" and staying_blocks("stream:12") == 12
    assert (
        kind_of("stream:12") == "stream" and kind_of(True) is True and kind_of("modulation") == "modulation"
    )
    assert is_offload("stream:3") and is_offload("auto") and not is_offload("json/edit.json")
    for wrong in ("stream:", "stream:-1", "stream:x", "stream:12345", "modulation:3", "stream:1 "):
        assert not is_offload(wrong)
        with pytest.raises(ValueError, match="^offload .* does not exist: choose from none, encoders, "):
            offload_key(wrong)
