"""LoRAs in a model: merged or live, out again bit for bit, under hooks, and in every dtype."""

import pickle
import re
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from helpers_loras import SMALL, TINY, kohya, noise, official, save, small_clip, tiny_lora, updates
from helpers_models import small_model

from flux.formats.header import CheckpointError
from flux.hooks import Hooks
from flux.lora import applying
from flux.lora.applying import apply_loras
from flux.lora.choice import LoraChoice
from flux.lora.reading import Stack, read_lora
from flux.model import Flux, FluxLoraWrapper


def inputs(params, dtype=torch.float32):
    ids = torch.zeros(1, 6, 3)
    return {
        "img": noise(1, 4, params.in_channels).to(dtype),
        "img_ids": ids[:, :4],
        "txt": noise(1, 6, params.context_in_dim, seed=1).to(dtype),
        "txt_ids": ids,
        "timesteps": torch.tensor([0.5]),
        "y": noise(1, params.vec_in_dim, seed=2).to(dtype),
        "guidance": torch.tensor([3.5]) if params.guidance_embed else None,
    }


@pytest.fixture
def loras(tmp_path):
    """Two, one with a bias and the scale of a norm, one that touches half of the layers."""
    params = SMALL.params
    first = official(updates(params))
    first["double_blocks.0.img_mlp.0.lora_B.bias"] = noise(256, seed=7)
    first["single_blocks.1.norm.query_norm.scale"] = 1 + noise(32, seed=8)
    second = kohya(updates(params, rank=3, seed=500, only=lambda name: "img" in name), alpha=1)
    files = [save(tmp_path / f"{i}.safetensors", state) for i, state in enumerate((first, second))]
    return [read_lora(LoraChoice(f, s), SMALL) for f, s in zip(files, (0.7, -1.5), strict=True)]


def run(model, hooks=None):
    dtype = model.img_in.weight.dtype
    with torch.no_grad():
        return model(**inputs(model.params, dtype), hooks=hooks)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_out_again_exactly(loras, live, dtype):
    model = small_model().to(dtype)
    before, plain = deepcopy(model.state_dict()), run(model)
    with apply_loras(model, loras, live=live):
        changed = run(model)
        if live:  # norms have no live form, everything else is untouched
            moved = {k for k, x in model.state_dict().items() if not torch.equal(x, before[k])}
            assert moved == {"single_blocks.1.norm.query_norm.scale"}
        assert model.state_dict().keys() == before.keys()
        assert {x.dtype for x in model.state_dict().values()} == {dtype}
    assert not torch.allclose(changed, plain, atol=0.1)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)
    assert torch.equal(run(model), plain)
    assert not any(module._forward_hooks for module in model.modules())


def test_live_is_merged(loras):
    live, merged = small_model(), small_model()
    apply_loras(live, loras, live=True)
    apply_loras(merged, loras)
    torch.testing.assert_close(run(live), run(merged), rtol=1e-4, atol=1e-4)


def test_what_was_merged_later_comes_out_first(loras):
    model = small_model()
    first, second = (apply_loras(model, [each]) for each in loras)
    with pytest.raises(RuntimeError, match="undo what came later first"):
        first.undo()
    before = small_model().state_dict()
    second.undo()
    first.undo()
    first.undo()
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())


def test_without_kept_weights_there_is_no_way_back(loras):
    applied = apply_loras(small_model(), loras, keep=False)
    assert not applied.kept.keys() - {"single_blocks.1.norm.query_norm.scale"}
    with pytest.raises(RuntimeError, match="keep=True"):
        applied.undo()


def test_a_layer_has_one_live_update(loras):
    model = small_model()
    with apply_loras(model, loras, live=True), pytest.raises(RuntimeError, match="has a live LoRA"):
        apply_loras(model, loras[:1], live=True)


@pytest.mark.parametrize("live", [False, True])
def test_hooks_see_what_the_loras_make(loras, live):
    """Skips and injections run over the changed layers, live or merged."""
    merged = small_model()
    apply_loras(merged, loras)
    model = small_model()
    apply_loras(model, loras, live=live)
    seen = {}

    def keep(q, k, v, site):
        seen[site.layer] = q
        return q, k, v

    for hooks in (Hooks(skip=[1]), Hooks(skip={3: "mlp"}), Hooks(inject={0: keep, 4: keep})):
        torch.testing.assert_close(run(model, hooks), run(merged, hooks), rtol=1e-4, atol=1e-4)
    plain = dict(seen)
    run(small_model(), Hooks(inject={0: keep, 4: keep}))
    assert all(not torch.allclose(plain[i], seen[i], atol=1e-2) for i in (0, 4))


def test_live_updates_go_where_the_model_goes(loras):
    model = small_model()
    apply_loras(model, loras, live=True)
    wanted = run(model)
    assert torch.equal(run(deepcopy(model)), wanted)
    assert torch.equal(run(pickle.loads(pickle.dumps(model))), wanted)
    low = model.to(torch.bfloat16)
    assert low.img_in.lora_update.up.dtype == torch.bfloat16
    torch.testing.assert_close(run(low).float(), wanted, rtol=0.1, atol=0.3)
    meta = model.to("meta")
    assert meta.img_in.lora_update.down.device.type == "meta"


def test_a_lora_of_the_latent_alone_beside_a_condition(tmp_path):
    """As the style of a plain model on Fill or Canny: the columns of the condition stay as they are."""
    file = save(tmp_path / "a.safetensors", official(updates(SMALL.params, only=lambda n: n == "img_in")))
    params = replace(SMALL.params, in_channels=128)
    lora = read_lora(LoraChoice(file), replace(SMALL, params=params))
    model = small_model(params=params)
    before = model.img_in.weight.clone()
    apply_loras(model, [lora])
    change = model.img_in.weight - before
    down, up = updates(SMALL.params, only=lambda n: n == "img_in")["img_in"]
    torch.testing.assert_close(change[:, :64], up @ down, rtol=1e-4, atol=1e-5)
    assert not change[:, 64:].any()


@pytest.mark.parametrize("live", [False, True])
def test_on_top_of_a_model_that_is_made_of_a_lora(loras, live):
    model = FluxLoraWrapper(lora_rank=2, lora_scale=0.5, params=SMALL.params).eval()
    with torch.no_grad():
        for i, x in enumerate(model.parameters()):
            x.copy_(noise(*x.shape, seed=i))
    whole = Flux(SMALL.params)
    state = model.state_dict()
    for key in whole.state_dict():
        layer, _, leaf = key.rpartition(".")
        extra = 0
        if f"{layer}.lora_A.weight" in state:
            a, b = (state[f"{layer}.lora_{half}.weight"] for half in "AB")
            extra = 0.5 * (b @ a if leaf == "weight" else state.get(f"{layer}.lora_B.bias", 0))
        whole.state_dict()[key].copy_(state[key] + extra)
    whole.requires_grad_(False)
    apply_loras(whole, loras)
    apply_loras(model, loras, live=live)
    torch.testing.assert_close(run(model), run(whole), rtol=1e-3, atol=1e-3)


def test_an_encoder_of_another_shape_is_left_alone(tmp_path):
    state = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": noise(2, 768),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": noise(3072, 2),
        "lora_te1_text_model_encoder_layers_11_mlp_fc1.lora_down.weight": noise(2, 32),
        "lora_te1_text_model_encoder_layers_11_mlp_fc1.lora_up.weight": noise(64, 2),
    }
    for layer, why in (
        ("layers_0", r"\(3072, 768\), \(64, 32\) in the model"),
        ("layers_11", "the model lacks"),
    ):
        own = {key: x for key, x in state.items() if f"{layer}_" in key}
        lora = read_lora(LoraChoice(save(tmp_path / f"{layer}.safetensors", own)), SMALL)
        model = small_clip()
        before = deepcopy(model.state_dict())
        with pytest.raises(CheckpointError, match=why):
            apply_loras(model, [lora], part="CLIP")
        assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())


def test_a_small_lora_changes_the_pictures_of_flux_tiny(tmp_path):
    from flux.generate import Sampling, generate
    from flux.util import load_models

    file = tiny_lora(tmp_path / "style.safetensors")
    sampling = Sampling(2, 3.5, 64, 64)
    prompts = ["a red house"]

    def picture(**given):
        models = load_models("flux-tiny", device="cpu", dtype="float32", prompts=prompts, **given)
        return generate(models, prompts, [1], sampling), models

    plain, _ = picture()
    styled, models = picture(lora=f"{file}:0.8")
    live, _ = picture(lora=[(file, 0.8)], lora_live=True)
    (record,) = models.loras
    assert (record.file, record.scale) == ("style.safetensors", 0.8) and len(record.sha256) == 64
    torch.testing.assert_close(live, styled, rtol=0, atol=1e-3)
    assert (styled - plain).abs().mean() > 0.01
    assert torch.equal(picture(lora=f"{file}:0")[0], plain)
    assert TINY.params.hidden_size == 192


def test_text_encoders_of_a_whole_model(tmp_path):
    """Parts for CLIP and T5 alone: the texts change, the flow model does not."""
    from flux.generate import encode
    from flux.util import load_models

    state, plain = {}, load_models("flux-tiny", device="cpu", dtype="float32")
    for name in (
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te1_text_model_encoder_layers_1_mlp_fc2",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_o",
        "lora_te3_encoder_block_1_layer_1_DenseReluDense_wo",
    ):
        part = plain.clip if "te1" in name else plain.t5
        ours = re.sub(r"lora_te\d_(text_model_)?", "", name)
        path = next(n for n, _ in part.named_modules() if n.replace(".", "_").endswith(ours))
        outputs, inputs = part.get_submodule(path).weight.shape
        state |= {f"{name}.lora_down.weight": noise(2, inputs), f"{name}.lora_up.weight": noise(outputs, 2)}
    file = save(tmp_path / "texts.safetensors", state)
    for live in (False, True):
        models = load_models("flux-tiny", device="cpu", dtype="float32", lora=[(file, 2.0)], lora_live=live)
        before, after = (encode(each, ["a red house"]) for each in (plain, models))
        for found, wanted in ((before.txt, after.txt), (before.vec, after.vec)):
            assert not torch.allclose(found["a red house"], wanted["a red house"], atol=1e-2)
        assert all(map(torch.equal, plain.flow.state_dict().values(), models.flow.state_dict().values()))
        assert models.loras[0].about == "kohya, 2 updates of CLIP and 2 updates of T5"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_merged_weight_is_rounded_once(dtype, monkeypatch):
    monkeypatch.setitem(applying.AT_A_TIME, "cpu", 100)  # rows of 48 go two by two, and one alone
    weight = noise(7, 48).to(dtype)
    update = Stack(noise(3, 48, seed=1), noise(7, 3, seed=2), None)
    found = applying.merged_weight(weight, update)
    exact = weight.double() + update.up.double() @ update.down.double()
    assert found.dtype == dtype and found.shape == weight.shape
    torch.testing.assert_close(found, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)
    if dtype == torch.bfloat16:
        assert (found == exact.to(dtype)).float().mean() > 0.99
