"""Every way to offload makes the same pictures to the bit; what waits, waits; what passes through, passes."""

from dataclasses import replace

import pytest
import torch
from helpers_demos import small_models
from helpers_placement import (
    HOOKS,
    PROMPTS,
    SAMPLING,
    SEEDS,
    Reader,
    latents,
    names_sent,
    same,
)

from flux.conditions import Conditions, Negative
from flux.generate import Sampling, at_work, decode, encode, generate, sample_steps
from flux.hooks import Hooks
from flux.integrators import INTEGRATORS
from flux.lora.applying import LIVE, LiveUpdate, _add_update
from flux.lora.reading import Stack
from flux.modules.layers import Modulation
from flux.placement.lanes import lane_to
from flux.placement.masters import Master, tensors_of
from flux.placement.modes import OFFLOADS, offload_key, offload_name
from flux.placement.shares import modulated
from flux.placement.work import kept_weights, remember

HALF = torch.bfloat16
WAYS = ("encoders", "modulation", "stream")


@pytest.mark.parametrize(
    ("hooks", "dtype"), [*((name, torch.float32) for name in HOOKS), ("plain", HALF), ("inject", HALF)]
)
def test_every_way_is_the_plain_one_to_the_bit(hooks, dtype, lane):
    plain = latents(small_models(dtype), hooks=HOOKS[hooks])
    for way in WAYS:
        assert same(latents(small_models(dtype), way, hooks=HOOKS[hooks]), plain), way
    assert lane.sent


@pytest.mark.parametrize("integrator", [row.name for row in INTEGRATORS])
def test_every_integrator_takes_tables(integrator, lane):
    models, how = small_models(), {"sampling": replace(SAMPLING, integrator=integrator)}
    counts = counted(models)
    assert same(latents(models, "modulation", **how), latents(small_models(), **how))
    assert len(set(counts.values())) == 1 and set(counts.values()) <= {3, 4, 6, 7}


@pytest.mark.parametrize("beside", [True, False])
def test_negative_prompts(beside, lane):
    conditions = Conditions(negative=Negative("no", 2.0, beside=beside))
    plain = latents(small_models(), conditions=conditions)
    for way in WAYS:
        assert same(latents(small_models(), way, conditions=conditions), plain), way


def test_pictures_without_a_device_to_go_to():
    plain = generate(small_models(), PROMPTS, SEEDS, SAMPLING)
    for way in OFFLOADS:
        assert torch.equal(generate(small_models(), PROMPTS, SEEDS, SAMPLING, offload=way), plain), way


def counted(models):
    """How often each modulation layer is called, by its number."""
    counts = {}
    for number, layer in enumerate(each for each in models.flow.modules() if isinstance(each, Modulation)):
        counts[number] = 0

        def count(module, args, output, number=number):
            counts[number] += 1

        layer.register_forward_hook(count)
    return counts


# --- Tables ----------------------------------------------------------------------------------------


def test_modulations_are_evaluated_once_for_a_run_and_their_weights_fetched_once(lane):
    models = small_models()
    counts = counted(models)
    latents(models, "modulation")
    assert set(counts.values()) == {3}
    kept = kept_weights(models.flow, lane, "modulation")
    sent = [each.data_ptr() for each in lane.sent]
    masters = list(kept.modulations.values())
    assert len(masters) == 4 + 8 + 1  # double blocks, single blocks, the last layer
    assert [sent.count(master.bytes.data_ptr()) for master in masters] == [1] * len(masters)


def test_modulation_layers_are_never_on_the_device_as_a_whole(lane):
    models = small_models()
    latents(models, "modulation")
    kept = kept_weights(models.flow, lane, "modulation")
    own = {id(each) for layers in modulated(models.flow).values() for each in tensors_of(*layers)}
    rest = {id(tensor) for master in kept.rest for tensor in master.tensors}
    assert own and not own & rest
    modulations = [len(master) for master in kept.modulations.values()]
    assert sum(lane.rooms) < sum(map(len, kept.masters)) - sum(modulations) + 4 * max(modulations)


def test_a_time_that_was_not_told_of_is_evaluated_when_it_comes(lane):
    models = small_models()
    texts = encode(models, PROMPTS)
    ask = {
        "img": torch.randn(2, 4, 64),
        "img_ids": torch.zeros(2, 4, 3),
        "txt": torch.cat([texts.txt[p] for p in PROMPTS]).float(),
        "txt_ids": torch.zeros(2, 6, 3),
        "y": torch.cat([texts.vec[p] for p in PROMPTS]).float(),
    }

    def at(t, guidance=3.5):
        return models.flow(**ask, timesteps=torch.full((2,), t), guidance=torch.full((2,), guidance))

    plain = [at(1.0), at(0.7), at(0.7, 2.0), at(1.0)]
    counts = counted(models)
    with torch.no_grad(), at_work(models.device, "modulation", models.flow, times=(1.0, 0.5)):
        found = [at(1.0)]
        assert set(counts.values()) == {2}  # 1.0 and 0.5
        found += [at(0.7)]
        assert set(counts.values()) == {3}
        found += [at(0.7, 2.0)]  # of another guidance all times that were told of
        assert set(counts.values()) == {6}
        found += [at(1.0)]
        assert set(counts.values()) == {6}
    assert same(found, plain)


def test_nothing_stays_on_the_model(lane):
    models = small_models()
    for way in WAYS:
        latents(models, way)
        for module in models.flow.modules():
            assert not module._forward_pre_hooks and not module._forward_hooks


# --- Masters ---------------------------------------------------------------------------------------


def test_weights_are_packed_once_and_never_copied_back(lane):
    models = small_models()
    latents(models, True)
    held, home = len(lane.held), [each.data_ptr() for each in tensors_of(models.flow)]
    sent = len(lane.sent)
    assert sent == held
    latents(models, True)
    assert len(lane.held) == held and len(lane.sent) == 2 * sent
    assert [each.data_ptr() for each in tensors_of(models.flow)] == home


def test_weights_that_changed_meanwhile_are_packed_anew(lane):
    models, other = small_models(), small_models()
    latents(models, "stream")
    for each in (models, other):
        each.flow.img_in.weight = torch.nn.Parameter(each.flow.img_in.weight * 1.5, False)
    assert same(latents(models, "stream"), latents(other))
    for each in (models, other):
        each.flow.load_state_dict({k: v * 0.9 for k, v in each.flow.state_dict().items()})
    assert same(latents(models, "stream"), latents(other))


def test_a_run_that_is_given_up_leaves_its_weights_at_home(lane):
    models = small_models()
    home = latents(models, "stream") and [each.data_ptr() for each in tensors_of(models.flow)]
    texts = encode(models, PROMPTS)
    steps = sample_steps(models, texts, PROMPTS, SEEDS, SAMPLING, offload="stream")
    next(steps)
    steps.close()
    assert [each.data_ptr() for each in tensors_of(models.flow)] == home

    def fail(q, k, v, site):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="^no$"):
        latents(models, "stream", hooks=Hooks(inject={6: fail}))
    assert [each.data_ptr() for each in tensors_of(models.flow)] == home
    assert same(latents(models, "stream"), latents(small_models()))


def test_a_master_keeps_dtypes_strides_and_numbers(lane):
    tensors = [
        torch.arange(6, dtype=torch.int8).view(2, 3),
        torch.randn(3, 5).t(),
        torch.tensor(2.5, dtype=torch.bfloat16),
        torch.randn(4, 1).expand(4, 3),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.empty(0),
    ]
    before = [each.clone() for each in tensors]
    strides = [each.stride() for each in tensors]
    master = Master(tensors, lane)
    room = lane.room(len(master))
    lane.send(master.bytes, room)
    master.at(room)
    assert not master.is_home and all(map(torch.equal, tensors, before))
    master.home()
    assert master.is_home and all(map(torch.equal, tensors, before))
    assert [tensors[i].stride() for i in (0, 1, 2, 4)] == [strides[i] for i in (0, 1, 2, 4)]


# --- Streaming -------------------------------------------------------------------------------------


def test_blocks_are_fetched_two_ahead_in_their_order(lane):
    models, seen = small_models(), []
    for number, block in enumerate((*models.flow.double_blocks, *models.flow.single_blocks)):
        block.register_forward_pre_hook(lambda *_, number=number: seen.append((number, len(lane.sent))))
    latents(models, "stream")
    assert names_sent(lane, models) == [*range(12)] * 3
    steps = [seen[start : start + 12] for start in (0, 12, 24)]
    for step in steps:
        first = step[1][1]  # when the second block begins, the first has made room for the fourth
        assert [count - first for _, count in step[1:]] == [*range(9), 8, 8]


def test_a_skipped_layer_is_not_fetched(lane):
    models = small_models()
    latents(models, "stream", hooks=Hooks(skip=(0, 3, 11)))
    assert names_sent(lane, models) == [1, 2, 4, 5, 6, 7, 8, 9, 10] * 3


def test_layers_skipped_in_a_window_are_fetched_outside_it(lane):
    models = small_models()
    latents(models, "stream", hooks=Hooks(skip=range(1, 12)).within(1, 2))
    assert names_sent(lane, models) == [*range(12), 0, *range(12)]


def test_there_is_room_for_three_blocks(lane):
    models = small_models()
    latents(models, "stream")
    kept = kept_weights(models.flow, lane, "stream")
    largest = max(map(len, kept.blocks.values()))
    assert lane.rooms.count(largest) == 3
    modulation = max(map(len, kept.modulations.values()))
    rest = sum(map(len, kept.rest))
    assert sum(lane.rooms) == rest + 3 * largest + 3 * modulation


def test_blocks_of_a_clients_own_order(lane):
    models = small_models()
    blocks = [*models.flow.single_blocks]
    x, vec = torch.randn(1, 10, 64), torch.randn(1, 64)
    pe = models.flow.pe_embedder(torch.zeros(1, 10, 3))
    plain = [block(x, vec=vec, pe=pe) for block in blocks[::-1]]
    with torch.no_grad(), at_work(models.device, "stream", models.flow):
        assert same([block(x, vec=vec, pe=pe) for block in blocks[::-1]], plain)


# --- Names -----------------------------------------------------------------------------------------


def test_names_of_ways():
    assert [offload_key(each) for each in OFFLOADS] == [False, True, "modulation", "stream", "auto"]
    assert [offload_name(each) for each in (False, True, *OFFLOADS)] == ["none", "encoders", *OFFLOADS]
    for wrong in ("all", "", None, 2, 1.0):
        with pytest.raises(ValueError, match="^offload .* does not exist: choose from none, encoders, "):
            offload_key(wrong)


def test_auto_is_what_was_picked(lane):
    models = small_models()
    remember("stream", models.flow)
    plain = latents(small_models())
    assert same(latents(models, "auto"), plain) and names_sent(lane, models)[:4] == [0, 1, 2, 3]


def test_decoding_by_a_master(lane):
    models = small_models()
    tokens = latents(models)[-1]
    plain = decode(models, tokens, SAMPLING)
    assert torch.equal(decode(models, tokens, SAMPLING, offload=True), plain)


# --- LoRAs, T5 -------------------------------------------------------------------------------------


def test_blocks_of_t5_are_streamed_too(lane):
    reader, ids = Reader(), torch.arange(12).view(2, 6)
    plain = reader(ids)
    with torch.no_grad(), at_work(torch.device("cpu"), "stream", reader):
        found = [reader(ids), reader(ids)]
    assert same(found, [plain, plain])
    kept = kept_weights(reader, lane, "stream")
    blocks = [master.bytes.data_ptr() for master in kept.blocks.values()]
    sent = [each.data_ptr() for each in lane.sent]
    assert len(blocks) == 5 and [each for each in sent if each in blocks] == blocks * 2
    assert lane.rooms.count(max(map(len, kept.blocks.values()))) == 3


@pytest.mark.parametrize("live", [False, True])
def test_loras_go_with_their_layers(live, lane, tmp_path):
    def with_lora(models):
        generator = torch.Generator().manual_seed(3)
        linears = ["double_blocks.1.img_mod.lin", "single_blocks.2.linear1", "single_blocks.7.modulation.lin"]
        for name in linears:
            linear = models.flow.get_submodule(name)
            down, up = (
                torch.randn(*shape, generator=generator) for shape in ((4, 64), (len(linear.weight), 4))
            )
            if live:
                update = LiveUpdate(Stack(down, up / 8, None), linear.weight)
                linear.add_module(LIVE, update)
                linear.register_forward_hook(_add_update)
            else:
                linear.weight = torch.nn.Parameter(linear.weight + up @ down / 8, False)
        return models

    plain = latents(with_lora(small_models()))
    assert not same(latents(small_models()), plain)
    models = small_models()
    latents(models, "stream")
    with_lora(models)  # of a model whose weights wait already
    for way in WAYS:
        assert same(latents(models, way), plain), way


# --- On a GPU --------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr("flux.placement.work.lane_to", lane_to)  # the real one
    return torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hooks", ["plain", "skip", "inject", "window"])
def test_every_way_is_the_plain_one_on_a_gpu(way, hooks, gpu):
    plain = latents(small_models(HALF, "cuda"), hooks=HOOKS[hooks])
    waiting = small_models(HALF)
    models = replace(waiting, device=gpu)
    for _ in range(2):
        assert same(latents(models, way, hooks=HOOKS[hooks]), plain)
        assert all(each.device.type == "cpu" for each in tensors_of(models.flow))
    kept = kept_weights(models.flow, lane_to(gpu), offload_key(way))
    assert all(master.bytes.is_pinned() for master in kept.masters)


@pytest.mark.gpu
def test_weights_pass_through_a_gpu_faster_than_it_computes(gpu):
    """Rooms are reused while their blocks are still at work: what is fetched into them must wait."""
    plain = None
    sampling = Sampling(2, 3.5, 256, 256)
    for way in (False, "stream", "stream"):
        models = replace(small_models(), device=gpu)
        found = latents(models, way, sampling=sampling)
        plain = plain or found
        assert same(found, plain)
