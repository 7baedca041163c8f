"""Small models with seeded random weights, and weight folders made of them."""

import json
from dataclasses import replace

import torch
from safetensors.torch import save_file

from flux.model import Flux, FluxParams
from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams

SMALL_FLOW = FluxParams(
    in_channels=64,
    out_channels=64,
    vec_in_dim=40,
    context_in_dim=48,
    hidden_size=64,
    mlp_ratio=4.0,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
    axes_dim=[8, 12, 12],
    theta=10_000,
    qkv_bias=True,
    guidance_embed=True,
)
SMALL_AE = AutoEncoderParams(
    resolution=32,
    in_channels=3,
    ch=32,
    out_ch=3,
    ch_mult=[1, 2, 2, 2],
    num_res_blocks=1,
    z_channels=16,
    scale_factor=0.3611,
    shift_factor=0.1159,
)


def random_state(model, params, seed=0):
    """A state dict of random numbers that keep activations near 1; norms have scales around 1."""
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in model(params).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    return {key: random_tensor(key, shape, generator) for key, shape in shapes.items()}


def random_tensor(key, shape, generator):
    noise = torch.randn(shape, generator=generator)
    if key.endswith("scale") or (key.endswith("weight") and len(shape) == 1):
        return 1 + 0.3 * noise
    if key.endswith("bias"):
        return 0.2 * noise
    return noise / shape[1:].numel() ** 0.5


def small_model(model=Flux, params=SMALL_FLOW, seed=0):
    built = model(params)
    built.load_state_dict(random_state(model, params, seed))
    return built.eval().requires_grad_(False)


def flow_inputs(dtype=torch.float32):
    """What a model of SMALL_FLOW's shape is asked, one row of it."""
    torch.manual_seed(0)
    return {
        "img": torch.randn(1, 6, 64, dtype=dtype),
        "img_ids": torch.zeros(1, 6, 3),
        "txt": torch.randn(1, 4, SMALL_FLOW.context_in_dim, dtype=dtype),
        "txt_ids": torch.zeros(1, 4, 3),
        "timesteps": torch.tensor([0.5]),
        "y": torch.randn(1, SMALL_FLOW.vec_in_dim, dtype=dtype),
        "guidance": torch.tensor([3.5]),
    }


def small_ae(params=SMALL_AE, seed=1):
    return small_model(AutoEncoder, params, seed)


def without_guidance(params=SMALL_FLOW):
    return replace(params, guidance_embed=False)


def save_weights(file, tensors, dtype=torch.float32):
    """Write an official file; makes its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}, file)
    return file


def save_shards(folder, tensors, config, count=3):
    """Write a diffusers folder of `count` shards, those stacked together lying apart."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = sorted(tensors)
    names = [f"diffusion_pytorch_model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    weight_map = {key: names[i % count] for i, key in enumerate(keys)}
    for name in names:
        save_weights(folder / name, {key: tensors[key] for key in keys if weight_map[key] == name})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


WORDS = ["<pad>", "</s>", "<unk>", "<s>", "a", "boat", "with", "red", "hat", "sea", "sky", "the", "on"]


def save_tokenizer(folder):
    """A tokenizer of whole words that ends each text with `</s>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_text_encoders(clone, t5_width=SMALL_FLOW.context_in_dim, clip_width=SMALL_FLOW.vec_in_dim):
    """Tiny T5 (in several shards) and CLIP with tokenizers, as a clone of FLUX.1-dev has them."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    ids = dict(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=3)
    t5 = T5Config(d_model=t5_width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **ids)
    clip = CLIPTextConfig(
        hidden_size=clip_width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, **ids
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5EncoderModel(t5).save_pretrained(clone / "text_encoder_2", max_shard_size="8KB")
        CLIPTextModel(clip).save_pretrained(clone / "text_encoder")
    for folder in ("tokenizer", "tokenizer_2"):
        save_tokenizer(clone / folder)
