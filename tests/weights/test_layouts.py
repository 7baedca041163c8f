"""The tables of docs/weights.md, row by row and part by part: what loads, and what is refused how."""

import json
import os
import pickle
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers_layouts import (
    ENCODERS,
    FOLDERS,
    OFFICIAL,
    add_to_config,
    holds,
    load,
    make_small,
    place,
    save_as_they_are,
    shrink,
)
from helpers_models import SMALL_AE, SMALL_FLOW, random_state, save_shards

from flux.formats import gguf_blocks
from flux.formats.header import CheckpointError
from flux.model import Flux
from flux.util import load_flow_model
from flux.weights import convert

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
FLOAT8 = torch.float8_e4m3fn
WIDE = {  # a weight of each part, to break or to quantise
    "flow": "double_blocks.0.img_mlp.0.weight",
    "autoencoder": "decoder.conv_in.weight",
    "T5": "encoder.block.0.layer.1.DenseReluDense.wo.weight",
    "CLIP": "encoder.layers.0.mlp.fc1.weight",
    "LoRA": "img_in.lora_A.weight",
}


def wide(part, small):
    """The key of a weight to break; releases of transformers write CLIP's with and without a prefix."""
    return next(key for key in small.states[part] if key.endswith(WIDE[part]))


def rows() -> list[tuple[str, str, str]]:
    """First cell, part and outcome of each row of the page, a part at a time."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[1] != "parts" and not cells[0].startswith("-"):
            found += [(cells[0], part.strip(), cells[2]) for part in cells[1].split(",")]
    return found


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("small"))


# How to make each row: (part, folder, small) to a path, or a path and what it holds.


def official(part, folder, small):
    return place(part, small.states[part], folder, small, OFFICIAL.get(part))


def in_transformers_folder(part, folder, small):
    shutil.copytree(small.clone, folder / "clone")
    return folder / "clone" / ("dino" if part == "DINO" else FOLDERS[part])


def theirs(part, small):
    rules = convert.flow_rules(SMALL_FLOW) if part == "flow" else convert.ae_rules(SMALL_AE)
    return dict(convert.to_diffusers(rules, small.states[part]))


def diffusers_folder(part, folder, small):
    if part == "autoencoder":
        place(part, theirs(part, small), folder, small, "diffusion_pytorch_model.safetensors")
        return folder
    return save_shards(folder, theirs(part, small), {"_class_name": "FluxTransformer2DModel"})


def one_shard(part, folder, small):
    if part == "flow":
        return diffusers_folder(part, folder, small) / "diffusion_pytorch_model-00002-of-00003.safetensors"
    source = in_transformers_folder(part, folder, small)
    for file in (source.parent / "tokenizer_2").iterdir():
        shutil.copy(file, source)
    return source / "model.safetensors.index.json"


def flattened(part, folder, small):
    state = {key.removeprefix("text_model."): x for key, x in small.states[part].items()}
    return place(part, state, folder, small)


def bare_file(part, folder, small):
    name = {"T5": "t5xxl_fp16.safetensors", "CLIP": "clip_l.safetensors"}[part]
    return place(part, small.states[part], folder, small, name) / name


COMFY = {
    "flow": "model.diffusion_model.",
    "autoencoder": "vae.",
    "T5": "text_encoders.t5xxl.transformer.",
    "CLIP": "text_encoders.clip_l.transformer.",
}


def all_in_one(part, folder, small):
    state = {f"{at}{key}": x for each, at in COMFY.items() for key, x in small.states[each].items()}
    state |= {f"text_encoders.{name}.logit_scale": torch.ones(()) for name in ("t5xxl", "clip_l")}
    placed = place(part, state, folder, small, "all.safetensors")
    return placed / "all.safetensors" if placed.is_dir() else placed


def wrapped(part, folder, small):
    before = "transformer." if part in ("flow", "CLIP") else ""

    def name(key):
        first, dot, rest = key.partition(".")
        return f"module._orig_mod.{before}{first}{dot}{f'_fsdp_wrapped_module.{rest}' if rest else ''}"

    return place(part, {name(key): x for key, x in small.states[part].items()}, folder, small)


def old_autoencoder(part, folder, small):
    old = {new: old for old, new in convert.AE_OLD.items()}
    pattern = re.compile(r"(attentions\.0\.)(" + "|".join(map(re.escape, old)) + r")\.")
    state = {pattern.sub(lambda m: f"{m[1]}{old[m[2]]}.", k): x for k, x in theirs(part, small).items()}
    assert sum("proj_attn" in key for key in state) == 4
    return place(part, state, folder, small)


def embedding_elsewhere(part, folder, small):
    state = {k.replace("shared.", "encoder.embed_tokens."): x for k, x in small.states[part].items()}
    assert "shared.weight" not in state
    return place(part, state, folder, small)


def pickled(part, folder, small):
    kept = {"state": {0: {"exp_avg": torch.ones(3)}}, "shadow": torch.ones(3)}
    state = {"state_dict": small.states[part], "epoch": 3, "optimizer": kept}
    name = "pytorch_model.bin" if part in ENCODERS else "weights.pth"
    return place(part, state, folder, small, name, save=save_pickle)


def several_pickled(part, folder, small):
    name = "pytorch_model.bin" if part in ENCODERS else "weights.pth"
    state = small.states[part]
    files = ({"ema": state, "model": state}, {"state_dict": state, "model_ema": {"state_dict": state}})
    for i, file in enumerate((*files, {"model": {"model": state, "teacher": state}, "epoch": 3})):
        yield place(part, file, folder / str(i), small, name, save=save_pickle)


def save_pickle(file, state):
    torch.save(state, file)
    return file


def hub_cache(part, folder, small):
    cache = folder / "models--org--name"
    release = cache / "snapshots" / "0123abc"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0123abc")
    (cache / "snapshots" / "old").mkdir(parents=True)
    official(part, release, small)
    return cache


def variant(part, folder, small):
    stem = "model" if part in ENCODERS else "diffusion_pytorch_model"
    state = {key: x.half() for key, x in small.states[part].items()}
    placed = place(part, state, folder, small, f"{stem}.fp16.safetensors")
    return (placed if placed.is_dir() else placed.parent), state


def variants(part, folder, small):
    path, _ = variant(part, folder, small)
    (file,) = path.glob("*.fp16.safetensors")
    shutil.copy(file, file.with_name(file.name.replace("fp16", "bf16")))
    return path


def more_keys(part, folder, small):
    extra = {"pulid_ca.0.norm1.weight": torch.ones(3), "pulid_ca.0.norm1.steps": torch.ones(3).int()}
    return place(part, small.states[part] | extra, folder, small)


def fewer_keys(part, folder, small):
    state = dict(small.states[part])
    key = wide(part, small)
    state[key] = state[key][:-1]
    if part != "LoRA":
        del state[next(k for k in state if k.endswith(("norm.weight", "query_norm.scale", "bias")))]
    return place(part, state, folder, small)


def another_model(part, folder, small):
    state, deeper = dict(small.states[part]), {"T5": "block.0.", "CLIP": "layers.0."}
    if part == "flow":
        state = random_state(Flux, replace(SMALL_FLOW, depth=3))
    elif part == "autoencoder":
        state |= {"post_quant_conv.weight": torch.ones(16, 16, 1, 1)}
    else:
        at = deeper[part]
        state |= {k.replace(at, at.replace("0", "1")): x for k, x in state.items() if at in k}
    return place(part, state, folder, small)


def no_embedding(part, folder, small):
    state = {key: x for key, x in small.states[part].items() if "shared" not in key}
    state["lm_head.weight"] = small.states[part]["shared.weight"] * 2
    return place(part, state, folder, small)


def foreign_lora(part, folder, small):
    names = (
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
        "transformer_blocks.0.attn.to_q.lora_A.weight",
    )
    names += ("double_blocks.0.processor.qkv_lora1.down.weight", "img_in.lora_down.weight")
    for i, name in enumerate(names):
        yield place(part, {name: torch.ones(4, 4)}, folder / str(i), small)


def lora_by_kohya(part, folder, small):
    halves = {".lora_A.weight": "lora_down", ".lora_B.weight": "lora_up"}
    expected = {key: x for key, x in small.states[part].items() if key.endswith(tuple(halves))}
    state = {
        f"lora_unet_{key[:-14].replace('.', '_')}.{halves[key[-14:]]}.weight": x
        for key, x in expected.items()
    }
    expected["txt_in.lora_B.bias"] = torch.zeros(64)
    return place(part, state, folder, small), expected


def half_a_lora(part, folder, small):
    for i, keep in enumerate((".lora_A.", ".lora_B.", "never")):
        state = {key: x for key, x in small.states[part].items() if keep in key}
        yield place(part, state or {"img_in.bias": torch.ones(64)}, folder / str(i), small)
    for gone in ("double_blocks.1.img_mlp.0.lora_B.weight", "img_in.lora_A.weight"):
        state = {key: x for key, x in small.states[part].items() if key != gone}
        assert len(state) == len(small.states[part]) - 1
        yield place(part, state, folder / gone, small)


def number_types(part, folder, small):
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        state = {key: x.to(dtype) for key, x in small.states[part].items()}
        yield place(part, state, folder / str(dtype), small), state


def plain_float8(part, folder, small):
    for dtype in (FLOAT8, torch.float8_e5m2):
        state = {key: x.to(dtype) for key, x in small.states[part].items()}
        yield place(part, state, folder / str(dtype), small), {k: x.float() for k, x in state.items()}


def is_layer(key, x):
    return key.endswith(".weight") and x.ndim == 2 and "norm" not in key


def scaled_float8(part, folder, small):
    """As ComfyUI writes it, and as others do, with a scale for each row."""
    for way in ("scale_weight", "weight_scale", "rows"):
        state, expected = {"scaled_fp8": torch.empty(2, dtype=FLOAT8)}, {}
        for key, x in small.states[part].items():
            state[key] = expected[key] = x
            if is_layer(key, x):
                layer = key.removesuffix(".weight")
                scale = x.abs().amax(1 if way == "rows" else (0, 1), keepdim=way == "rows").float() / 448
                state[key] = (x / scale).to(FLOAT8)
                state[f"{layer}.{'weight_scale' if way == 'rows' else way}"] = scale
                state[f"{layer}.{'scale_input' if way == 'scale_weight' else 'input_scale'}"] = torch.ones(())
                expected[key] = state[key].float() * scale
        yield place(part, state, folder / way, small), expected


def quantised(*changes):
    """Makers of files in which a layer's weight is stored otherwise: tensors by name."""

    def make(part, folder, small):
        for i, change in enumerate(changes):
            key = wide(part, small)
            layer = key.removesuffix(".weight")
            state = {k: x for k, x in small.states[part].items() if k != key}
            state |= {f"{layer}.{name}": x for name, x in change.items()}
            yield place(part, state, folder / str(i), small)

    return make


U8, I8, F32 = torch.ones(8, 1, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.int8), torch.ones(8)
BLOCKS = quantised(
    {"weight": torch.ones(256, 64).to(FLOAT8), "weight_scale_inv": torch.ones(2, 1)},
    {"weight": torch.ones(256, 64).to(FLOAT8), "weight_scale": torch.ones(2, 4)},
)


def strange_scales(part, folder, small):
    yield from BLOCKS(part, folder / "blocks", small)
    key = wide(part, small)
    more = {key: small.states[part][key].to(FLOAT8), key.replace(".weight", ".our_factor"): torch.ones(())}
    yield place(part, small.states[part] | more, folder / "named", small)
    layer = key.removesuffix(".weight")
    names = [f"{key}.{end}" for end in ("scale", "weight_scale", "absmax_scale", "zero_point")]
    names += [f"{layer}_scale", f"scales.{key}", f"weight_scale.{layer}", f"quant.{layer}.AMAX"]
    eight = small.states[part] | {key: small.states[part][key].to(FLOAT8)}
    for i, name in enumerate(names):
        yield place(part, eight | {name: torch.full((), 7.0)}, folder / str(i), small)
    yield place(part, scaled(part, small) | {f"{layer}_scale": torch.ones(())}, folder / "more", small)
    if part in COMFY:
        at = COMFY[part]
        state = {f"{at}{k}": x for k, x in eight.items()} | {f"scales.{at}{key}": torch.ones(())}
        yield place(part, state, folder / "before", small)


def scaled(part, small):
    """A part in float8 with a scale for each layer, as ComfyUI writes it."""
    state = {"scaled_fp8": torch.empty(2, dtype=FLOAT8)}
    for key, x in small.states[part].items():
        state[key] = x.to(FLOAT8) if is_layer(key, x) else x
        if is_layer(key, x):
            state[key.replace(".weight", ".scale_weight")] = torch.full((), 0.5)
    return state


def lost_scales(part, folder, small):
    state = scaled(part, small)
    scales = [key for key in state if key.endswith(".scale_weight")]
    for key in (scales[0], wide(part, small).replace(".weight", ".scale_weight"), scales[-1]):
        yield place(part, {k: x for k, x in state.items() if k != key}, folder / key, small)
        unmarked = {k: x for k, x in state.items() if k not in (key, "scaled_fp8")}
        yield place(part, unmarked, folder / f"{key} alone", small)
    yield place(part, {k: x for k, x in state.items() if k not in scales}, folder / "all", small)


def wrong_scales(part, folder, small):
    key = wide(part, small).replace(".weight", ".scale_weight")
    for value in (0.0, -0.5, float("inf"), float("nan")):
        yield place(part, scaled(part, small) | {key: torch.tensor(value)}, folder / str(value), small)
    rows = torch.ones(small.states[part][wide(part, small)].shape[0])
    yield place(
        part, scaled(part, small) | {key: rows - (rows.cumsum(0) == 2).float()}, folder / "row", small
    )


def integers(part, folder, small):
    key = wide(part, small)
    for dtype in (torch.int8, torch.uint8, torch.int32):
        state = small.states[part] | {key: torch.ones_like(small.states[part][key], dtype=dtype)}
        yield place(part, state, folder / str(dtype), small)


def quantised_config(part, folder, small):
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return add_to_config(place(part, small.states[part], folder, small), quantization_config=settings)


def instead(content):
    """Makers of a file of other bytes."""

    def make(part, folder, small):
        def save(file, state):
            file.write_bytes(
                content if isinstance(content, bytes) else content(save_as_they_are(file, state))
            )
            return file

        return place(part, small.states[part], folder, small, save=save)

    return make


class Code:
    def __reduce__(self):
        return os.system, ("touch ran",)


def code(part, folder, small):
    name = "pytorch_model.bin" if part in ENCODERS else "weights.pth"

    def plainly(file, state):
        file.write_bytes(pickle.dumps(state, protocol=2))
        return file

    for i, save in enumerate((save_pickle, plainly)):
        yield place(part, small.states[part] | {"code": Code()}, folder / str(i), small, name, save=save)


def pipe_or_folder(make):
    def made(part, folder, small):
        path = place(part, small.states[part], folder, small)
        (path / "model.safetensors").unlink()
        make(path / "model.safetensors")
        return path

    return made


def in_gguf(part, folder, small):
    """Each kind of packed number, under both names of T5."""
    gguf = pytest.importorskip("gguf")
    from helpers_gguf import as_llama_cpp, write_gguf

    assert gguf
    for kind in gguf_blocks.BLOCKS:
        for named in (dict, as_llama_cpp) if part == "T5" else (dict,):
            at = folder / kind / named.__name__
            own = {k: x for k, x in small.states[part].items() if k != "encoder.embed_tokens.weight"}
            state = named(own)
            only = {k for k, x in own.items() if x.ndim == 2 and "shared" not in k}
            kinds = {theirs: kind for theirs, ours in zip(state, own, strict=True) if ours in only}
            numbers = []

            def save(file, state, kinds=kinds, numbers=numbers):
                file = file.with_name("weights.gguf")
                architecture = "t5encoder" if part == "T5" else "flux"
                numbers.append(write_gguf(file, state, kinds.get, architecture))
                return file

            place(part, state, at, small, save=save)
            yield at / "weights.gguf", dict(zip(own, numbers[0].values(), strict=True))


def gguf_cut_short(part, folder, small):
    for path, _ in in_gguf(part, folder, small):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        yield path
        return


def empty_files(part, folder, small):
    yield instead(b"")(part, folder / "empty", small)
    yield instead(b"\0" * 8)(part, folder / "zeros", small)


MAKERS = {
    "a file with the official names": official,
    "a diffusers folder": diffusers_folder,
    "a file with the names of diffusers": lambda part, folder, small: place(
        part, theirs(part, small), folder, small
    ),
    "one shard": one_shard,
    "a transformers folder, its": in_transformers_folder,
    "a transformers folder saved": flattened,
    "a text encoder's file": bare_file,
    "all parts in one file": all_in_one,
    "names behind": wrapped,
    "the autoencoder's attention": old_autoencoder,
    "T5 with": embedding_elsewhere,
    "a file of `torch.save` (": pickled,
    "a model's folder in the hub's cache": hub_cache,
    "a variant": variant,
    "several variants": variants,
    "keys too many": more_keys,
    "keys missing": fewer_keys,
    "another model's file": another_model,
    "T5 without": no_embedding,
    "a LoRA with the names of kohya": lora_by_kohya,
    "a LoRA with the names of diffusers": foreign_lora,
    "a LoRA of": half_a_lora,
    "bfloat16": number_types,
    "float8 without": plain_float8,
    "float8 with a scale": scaled_float8,
    "float8 with scales of blocks": strange_scales,
    "scaled float8 in which": lost_scales,
    "float8 with a scale that": wrong_scales,
    "bitsandbytes": quantised(
        {"weight": U8, "weight.absmax": F32, "weight.quant_state.bitsandbytes__nf4": U8},
        {"weight": U8, "weight.absmax": F32, "weight.quant_state.bitsandbytes__fp4": U8},
        {"weight": I8, "SCB": F32},
    ),
    "quanto": quantised({"weight._data": I8, "weight._scale": F32, "input_scale": F32}),
    "torchao": quantised(
        {"_weight_qdata": I8, "_weight_scale": F32},
        {"W_q": U8, "scale": F32},
        {"qweight": I8, "qzeros": I8, "scales": F32},
        {"qweight": I8, "wscales": F32, "smooth_factor": F32},
        {"weight": U8, "weight_scale": F32, "weight_scale_2": F32},
        {"float8_data": torch.ones(8, 8).to(FLOAT8), "scale": F32},
    ),
    "integers": integers,
    "a folder whose": quantised_config,
    "a GGUF file of": in_gguf,
    "a GGUF file that is": gguf_cut_short,
    "GGUF of": instead(b"GGUF\x03\0\0\0" + bytes(200)),
    "a file of `torch.save` that holds code": code,
    "a file of `torch.save` with": several_pickled,
    "a web page": instead(b"\n<!DOCTYPE html><html><body>Sign in</body></html>"),
    "a git-lfs pointer": instead(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
    "a download that broke off": instead(lambda file: file.read_bytes()[:-100]),
    "an empty file": empty_files,
    "a pipe": pipe_or_folder(os.mkfifo),
    "a folder in": pipe_or_folder(os.mkdir),
}
"""Makers by what the row begins with."""


def maker_of(row):
    return max((start for start in MAKERS if row.startswith(start)), key=len)


def test_page_and_makers_are_the_same_rows():
    assert {maker_of(row) for row, _, _ in rows()} == set(MAKERS)
    assert len({row for row, _, _ in rows()}) == len(MAKERS) and len(rows()) > 100


@pytest.mark.parametrize("row, part, outcome", rows(), ids=lambda value: value[:40])
def test_a_row(row, part, outcome, small, tmp_path, monkeypatch):
    made = MAKERS[maker_of(row)](part, tmp_path / "made", small)
    for case in [made] if isinstance(made, Path | tuple) else made:
        path, expected = case if isinstance(case, tuple) else (case, small.states[part])
        verdict, _, advice = outcome.partition(": ")
        if verdict == "refused":
            with pytest.raises(CheckpointError) as error:
                load(part, path, small, monkeypatch, tmp_path)
            message = str(error.value)
            assert advice in message and str(path.name) in message and "\n" not in message, message
            assert len(message) < 1200 and not (tmp_path / "ran").exists()
            continue
        assert verdict in ("loaded", "converted")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = load(part, path, small, monkeypatch, tmp_path)
        said = [str(w.message) for w in caught if w.category is UserWarning]
        if "keys too many" in row:
            (line,) = said
            assert "2 keys" in line and "pulid_ca.0.norm1.weight" in line and "are left out" in line
        else:
            assert said == []
        assert holds(state, expected), (row, part)


def test_half_a_lora_in_some_layers_is_counted(small, tmp_path, monkeypatch):
    layers = ("double_blocks.0.img_mlp.0", "img_in")
    state = {
        k: x
        for k, x in small.states["LoRA"].items()
        if not k.startswith(tuple(f"{n}.lora_B" for n in layers))
    }
    path = place("LoRA", state, tmp_path, small)
    with pytest.raises(CheckpointError, match=r"in 2 of its layers, double_blocks.0.img_mlp.0 has no lora_B"):
        load("LoRA", path, small, monkeypatch, tmp_path)


def test_a_lora_takes_the_dtype_of_its_base(small, tmp_path, monkeypatch):
    base = {key: x.bfloat16() for key, x in small.states["flow"].items()}
    monkeypatch.setenv("FLUX_MODEL", str(place("flow", base, tmp_path / "base", small)))
    monkeypatch.setenv("FLUX_LORA", str(place("LoRA", small.states["LoRA"], tmp_path / "lora", small)))
    model = load_flow_model("flux-dev-canny-lora", "cpu", verbose=False)
    assert {x.dtype for x in model.state_dict().values()} == {torch.bfloat16}
    key = "img_in.lora_A.weight"
    assert torch.equal(model.state_dict()[key], small.states["LoRA"][key].bfloat16())


def test_clip_l_and_t5_xxl_need_no_config():
    """Their shapes tell all; of other sizes the heads would be a guess."""
    from transformers import CLIPTextConfig, T5Config

    from flux.modules import encoders

    def on_meta(shapes):
        return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}

    clip = encoders.CLIP.config_from(
        on_meta(encoders.CLIP.shapes(encoders.CLIP_L)), Path("clip_l.safetensors")
    )
    assert CLIPTextConfig(**clip).num_attention_heads == 12
    with pytest.raises(CheckpointError, match="put the encoder's config.json beside it"):
        encoders.CLIP.config_from(on_meta(encoders.CLIP.shapes(clip | {"vocab_size": 9})), Path("c"))
    xxl = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 24}
    told = encoders.T5.config_from(
        on_meta(encoders.T5.shapes(xxl | {"feed_forward_proj": "gated-gelu"})), Path("t5")
    )
    assert told.items() >= xxl.items() and T5Config(**told).relative_attention_max_distance == 128


@pytest.mark.parametrize("part", ENCODERS)
def test_the_shapes_asked_for_are_those_of_transformers(part, small):
    from transformers import CLIPTextModel, T5EncoderModel

    from flux.modules import encoders

    kind, encoder = {"T5": (T5EncoderModel, encoders.T5), "CLIP": (CLIPTextModel, encoders.CLIP)}[part]
    config = json.loads((small.source(part) / "config.json").read_text())
    for gated in ("relu", "gated-gelu"):
        config["feed_forward_proj"] = gated
        model = kind(kind.config_class(**{k: v for k, v in config.items() if "gat" not in k or "proj" in k}))
        theirs = {k.removeprefix("text_model."): tuple(x.shape) for k, x in model.state_dict().items()}
        theirs.pop("encoder.embed_tokens.weight", None)
        assert encoder.shapes(config) == theirs
