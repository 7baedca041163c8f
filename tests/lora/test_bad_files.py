"""LoRA files that are none, damaged, or of another model: one line, from the header where that is enough."""

import json
from dataclasses import replace

import pytest
import torch
from helpers_loras import TINY, in_blocks, kohya, noise, official, save, updates

from flux.formats.header import CheckpointError
from flux.lora.choice import LoraChoice, as_choices, choices_of_environment, read_choices
from flux.lora.plan import plan_lora
from flux.lora.reading import read_lora
from flux.models import configs

DEV = configs["flux-dev"]
FACTORS = ("lora_down.weight", "lora_up.weight")


def pair(name, outputs=192, inputs=192, rank=2, halves=FACTORS):
    return {f"{name}.{halves[0]}": noise(rank, inputs), f"{name}.{halves[1]}": noise(outputs, rank)}


def peft(name, outputs=192, inputs=192, rank=2):
    return pair(name, outputs, inputs, rank, ("lora_A.weight", "lora_B.weight"))


def refusal(file, model=TINY, name="flux-tiny"):
    with pytest.raises(CheckpointError) as error:
        plan_lora(file, model, name)
    message = str(error.value)
    assert "\n" not in message and str(file.name) in message and len(message) < 600
    return message


XL = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
UNET = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
OTHERS = {
    "SDXL": [
        pair(XL, 640, 640),
        pair(UNET, 640, 2048),
        pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", 3072, 768) | pair(XL, 640, 640),
        peft("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 640, 2048),
    ],
    "Stable Diffusion 1": [pair(UNET, 320, 768)],
    "Stable Diffusion 2": [pair(UNET, 320, 1024)],
    "Stable Diffusion 3": [
        pair("lora_unet_joint_blocks_0_x_block_attn_qkv", 4608, 1536),
        peft("transformer.transformer_blocks.0.attn.to_q", 1536, 1536),
    ],
    "Stable Diffusion 3.5": [peft("transformer.transformer_blocks.0.attn.to_q", 2432, 2432)],
    "Qwen-Image": [peft("transformer.transformer_blocks.0.img_mlp.net.0.proj", 12288, 3072)],
    "Wan": [
        peft("diffusion_model.blocks.0.self_attn.q", 1536, 1536),
        pair("lora_unet_blocks_0_cross_attn_k"),
    ],
    "FLUX.2": [
        peft("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 99, 3072),
        peft("diffusion_model.double_blocks.0.img_attn.qkv", 18432, 6144),
    ],
    "FLUX.1": [peft("transformer.transformer_blocks.0.attn.to_q", 3072, 3072)],
    "HunyuanVideo": [
        peft("transformer.context_embedder.token_refiner.refiner_blocks.0.attn.to_q"),
        pair("lora_unet_double_blocks_0_img_attn_qkv", 576, 192)
        | pair("lora_unet_double_blocks_0_img_mlp_fc1"),
        peft("diffusion_model.double_blocks.0.img_attn_qkv", 576, 192),
    ],
    "Z-Image or Lumina": [peft("diffusion_model.layers.0.attention.to_q")],
    "PixArt, LTX-Video or CogVideoX": [peft("transformer.transformer_blocks.0.attn1.to_q")],
    "AuraFlow": [peft("transformer.joint_transformer_blocks.0.attn.to_q")],
    "Chroma": [
        peft("diffusion_model.distilled_guidance_layer.layers.0.in_layer")
        | peft("diffusion_model.double_blocks.0.img_attn.proj"),
    ],
    "HiDream": [peft("transformer.double_stream_blocks.0.block.attn1.to_q")],
}


@pytest.mark.parametrize("title, state", [(t, s) for t, states in OTHERS.items() for s in states])
def test_another_models_lora_is_named(tmp_path, title, state):
    message = refusal(save(tmp_path / "a.safetensors", state))
    assert f"was made for {title} and " in message
    assert message.endswith("take a LoRA that was made for flux-tiny")


@pytest.mark.parametrize("metadata, title", [
    ({"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL"),
    ({"ss_base_model_version": "sd_v1"}, "Stable Diffusion 1"),
    ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "stable-diffusion-xl-v1-base"),
    ({"modelspec.architecture": "x" * 5000}, "x" * 57 + "..."),
])  # fmt: skip
def test_what_the_trainer_wrote_is_believed(tmp_path, metadata, title):
    file = save(tmp_path / "a.safetensors", pair("lora_unet_strange_layer"), metadata)
    assert f"was made for {title} and fits no layer of flux-tiny (it has lora_unet_strange" in refusal(file)


def test_of_a_model_that_nobody_knows_its_names_are_shown(tmp_path):
    message = refusal(save(tmp_path / "a.safetensors", pair("strange.layer") | pair("other\n")))
    assert "a.safetensors fits no layer of flux-tiny (it has other\\n, strange.layer)" in message


def test_a_lora_of_flux_1_on_flux_tiny_and_the_other_way_round(tmp_path):
    big = {n: (noise(2, 3072), noise(3072, 2)) for n in ("double_blocks.0.img_attn.proj",)}
    message = refusal(save(tmp_path / "a.safetensors", kohya(big)))
    assert "its lora_unet_double_blocks_0_img_attn_proj is (3072, 3072) where (192, 192) is needed" in message
    own = save(tmp_path / "b.safetensors", official(updates(TINY.params, only=in_blocks)))
    assert "was made for flux-tiny and does not fit flux-dev" in refusal(own, DEV, "flux-dev")


def test_more_blocks_than_the_model_has(tmp_path):
    state = official(updates(TINY.params, only=in_blocks))
    state |= peft("double_blocks.7.img_attn.proj")
    message = refusal(save(tmp_path / "a.safetensors", state))
    assert "a.safetensors has more blocks than flux-tiny (double_blocks.7.img_attn.proj)" in message


def small():
    return kohya(updates(TINY.params, only=lambda name: name.startswith("double_blocks.0.img_attn")), alpha=2)


AT = "lora_unet_double_blocks_0_img_attn_qkv"
BROKEN = {
    "not the second": lambda s: s.pop(f"{AT}.lora_up.weight"),
    "not the first": lambda s: s.pop(f"{AT}.lora_down.weight"),
    "have no rank in common": lambda s: s.update({f"{AT}.lora_up.weight": noise(576, 3)}),
    "(2, 192, 1, 1)": lambda s: s.update({f"{AT}.lora_down.weight": noise(2, 192, 1, 1)}),
    "rank 100000 for": lambda s: s.update(pair(AT, 576, 192, rank=100000)),
    "have no rank in common: download": lambda s: s.update(pair(AT, 576, 192, rank=0)),
    "where (576, 192) is needed": lambda s: s.update(pair(AT, 192, 192)),
    "has 3 numbers in": lambda s: s.update({f"{AT}.alpha": torch.ones(3)}),
    "query_norm.scale is (9,) where (32,) is needed": lambda s: s.update(
        {"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(9)}
    ),
    "a DoRA, which is not read": lambda s: s.update({f"{AT}.dora_scale": torch.ones(576)}),
    "a LoKr, which is not read": lambda s: s.update({"lora_unet_x.lokr_w1": torch.ones(2, 2)}),
    "a LoHa, which is not read": lambda s: s.update({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}),
    "a file of scaled float8, which is not read": lambda s: s.update({f"{AT}.scale_weight": torch.ones(1)}),
    "quantised": lambda s: s.update({f"{AT}.lora_up.weight": torch.ones(576, 2, dtype=torch.int8)}),
    "holds the same layer twice": lambda s: s.update(peft("double_blocks.0.img_attn.qkv", 576, 192)),
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_damaged_file(tmp_path, said):
    state = small()
    BROKEN[said](state)
    assert said in refusal(save(tmp_path / "a.safetensors", state))


@pytest.mark.parametrize("change, said", [
    ({f"{AT}.alpha": torch.tensor(0.0)}, f"alpha 0 in {AT}.alpha, with which it does nothing"),
    ({f"{AT}.alpha": torch.tensor(float("nan"))}, f"numbers that are none in {AT}.alpha"),
    ({f"{AT}.lora_up.weight": torch.full((576, 2), torch.nan)}, f"numbers that are none in {AT}.lora_up"),
    ({f"{AT}.lora_down.weight": torch.full((2, 192), torch.inf)}, f"numbers that are none in {AT}.lora_down"),
    ({f"{AT}.lora_up.weight": torch.zeros(576, 2), AT.replace("qkv", "proj") + ".lora_up.weight":
      torch.zeros(192, 2)}, "does nothing, all its updates are 0"),
])  # fmt: skip
def test_numbers_that_are_none(tmp_path, change, said):
    file = save(tmp_path / "a.safetensors", small() | change)
    with pytest.raises(CheckpointError) as error:
        read_lora(LoraChoice(file), TINY, "flux-tiny")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_peft_says_alpha_0_and_dora_in_words(tmp_path):
    state = peft("transformer.transformer_blocks.0.attn.to_q")
    for settings, said in (({"lora_alpha": 0, "r": 2}, "alpha 0"), ({"use_dora": True}, "a DoRA")):
        header = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in settings.items()})}
        file = save(tmp_path / "a.safetensors", state, header)
        with pytest.raises(CheckpointError, match=said):
            read_lora(LoraChoice(file), TINY)


@pytest.mark.parametrize("header, said", [
    ("{", "a lora_adapter_metadata in its header that is none"),
    ("[1]", "a lora_adapter_metadata in its header that is none"),
    ("[" * 100_000, "a lora_adapter_metadata in its header that is none"),
    ('{"transformer.alpha_pattern": 3}', "an alpha_pattern that is none"),
    ('{"transformer.alpha_pattern": {"(a+)+$": 3}}', "alphas by the pattern '(a+)+$', of which only ends"),
    ('{"transformer.lora_alpha": NaN}', "an alpha that is no number"),
])  # fmt: skip
def test_a_header_that_says_strange_things(tmp_path, header, said):
    state = peft("transformer.transformer_blocks.0.attn.to_q")
    file = save(tmp_path / "a.safetensors", state, {"lora_adapter_metadata": header})
    with pytest.raises(CheckpointError) as error:
        read_lora(LoraChoice(file), TINY)
    assert said in str(error.value)


def test_peft_names_layers_by_their_ends(tmp_path):
    state = peft("transformer.transformer_blocks.0.attn.to_q") | peft(
        "transformer.transformer_blocks.1.attn.to_q"
    )
    for pattern, factors in (
        ("attn.to_q", [3, 3]),
        ("^transformer_blocks.1.attn.to_q", [2, 3]),
        ("q", [2, 2]),
    ):
        header = {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {pattern: 6}, "transformer.r": 2}
        file = save(tmp_path / "a.safetensors", state, {"lora_adapter_metadata": json.dumps(header)})
        assert [each.factor for each in plan_lora(file, TINY).updates] == factors


def test_files_that_are_none(tmp_path):
    file = tmp_path / "a.safetensors"
    whole = save(file, small()).read_bytes()
    for data, said in (
        (whole[:-9], "its download broke off"),
        (b"", "empty or cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid\n", "git lfs pull"),
        (b"{}", "cut short"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"GGUF" + bytes(99), "a GGUF file"),
    ):
        file.write_bytes(data)
        assert said in refusal(file)
    assert "is missing" in refusal(tmp_path / "gone.safetensors")
    save(file, {"double_blocks.0.img_attn.qkv.weight": torch.ones(3)})
    assert "holds no LoRA (it has double_blocks.0.img_attn.qkv.weight)" in refusal(file)
    save(file, {"x": torch.ones(0)})
    assert "holds no LoRA" in refusal(file)


def test_a_folder_of_diffusers_or_peft(tmp_path):
    folder = tmp_path / "lora"
    folder.mkdir()
    assert "a folder with no LoRA file" in refusal(folder)
    save(folder / "adapter_model.safetensors", peft("base_model.model.transformer_blocks.0.attn.to_q"))
    (folder / "adapter_config.json").write_text('{"lora_alpha": 8, "r": 2}')
    lora = read_lora(LoraChoice(folder), TINY)
    assert lora.plan.updates[0].factor == 4 and lora.plan.layout == "diffusers"
    for name in ("a", "b"):
        save(folder / f"{name}.safetensors", small())
    assert read_lora(LoraChoice(folder), TINY).plan.file.name == "adapter_model.safetensors"
    (folder / "adapter_model.safetensors").unlink()
    assert "a folder with 2 LoRA files" in refusal(folder)


def test_a_file_of_torch_save(tmp_path):
    torch.save(small(), tmp_path / "a.pt")
    assert len(read_lora(LoraChoice(tmp_path / "a.pt"), TINY).factors) == 2
    assert "does not fit flux-dev" in refusal(tmp_path / "a.pt", DEV, "flux-dev")


def test_an_alpha_may_be_a_whole_number(tmp_path):
    state = small() | {f"{AT}.alpha": torch.tensor(6)}
    lora = read_lora(LoraChoice(save(tmp_path / "a.safetensors", state)), TINY)
    (found,) = (each for each in lora.factors if each.place.layer.endswith("qkv"))
    torch.testing.assert_close(found.up, 3 * state[f"{AT}.lora_up.weight"])


def test_a_lora_that_makes_a_model_names_that_model(tmp_path):
    message = refusal(save(tmp_path / "a.safetensors", peft("img_in", 192, 128)))
    assert (
        "128 channels where flux-tiny has 64: name it by FLUX_LORA and ask for the model made of it"
        in message
    )
    assert message.endswith("flux-dev-canny-lora, flux-dev-depth-lora")


def test_what_fits_no_layer_is_named(tmp_path):
    state = small() | pair("lora_unet_guidance_in_in_layer", 192, 256) | {f"{AT}.diff": torch.ones(3)}
    state |= {"lora_unet_double_blocks_0_img_attn_norm.diff_b": torch.ones(3)}
    state |= pair("lora_te1_text_model_embeddings_position_embedding", 9, 9)
    unguided = replace(TINY, params=replace(TINY.params, guidance_embed=False))
    said = read_lora(LoraChoice(save(tmp_path / "a.safetensors", state)), unguided).left_out()
    for name in ("guidance_in_in_layer", "position_embedding", f"{AT}.diff and 1 more"):
        assert name in said
    assert "\n" not in said


# What is asked for


def test_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "b:2", "c,d.safetensors"):
        (tmp_path / name).write_bytes(b"")

    def read(text):
        return [(str(each.path), each.scale) for each in read_choices(text)]

    assert read("a.safetensors") == [("a.safetensors", 1.0)]
    assert read("a.safetensors:0.5, b:2:-3") == [("a.safetensors", 0.5), ("b:2", -3.0)]
    assert read("b:2") == [("b:2", 1.0)] and read("c,d.safetensors") == [("c,d.safetensors", 1.0)]
    assert read("C:\\loras\\a.safetensors") == [("C:\\loras\\a.safetensors", 1.0)]
    assert as_choices([("x", 2), "y:3", tmp_path]) == (
        LoraChoice(tmp_path.__class__("x"), 2),
        *read_choices("y:3"),
        LoraChoice(tmp_path),
    )
    for wrong in ("a:nan", "a:inf", "a:101", "a:-1e9", ":3"):
        with pytest.raises(ValueError, match="scale|missing"):
            read_choices(wrong)
    monkeypatch.setenv("FLUX_LORA", "a.safetensors:0.5,gone")
    with pytest.raises(ValueError, match="FLUX_LORA names gone, which does not exist"):
        choices_of_environment()
    monkeypatch.delenv("FLUX_LORA")
    assert choices_of_environment() == ()
