"""Small random models of Control, Fill, Redux and Kontext, their encoders and pictures, in their layouts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from helpers_models import (
    SMALL_AE,
    SMALL_FLOW,
    random_state,
    save_text_encoders,
    save_weights,
    small_ae,
    small_model,
)
from PIL import Image

from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder

CHANNELS = {"control": 128, "fill": 384, "redux": 64, "kontext": 64}
SIGLIP = {"hidden_size": 24, "tokens": 9}
"""Width and tokens of the small SigLIP."""


def flow_params(task: str):
    return replace(SMALL_FLOW, in_channels=CHANNELS[task])


def flow(task: str) -> Flux:
    return small_model(Flux, flow_params(task))


def ae():
    return small_ae(SMALL_AE)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blocks of colour with hard edges, so that there are edges to find."""
    levels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.NEAREST)


def half_mask(width: int, height: int) -> Image.Image:
    """White, to be filled, on the right half and in the two upper rows."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, width // 2 :] = mask[:2] = 255
    return Image.fromarray(mask)


class Texts(torch.nn.Module):
    """An encoder that tells prompts apart: random float32 numbers in a shape, by the prompt."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(self, prompts: list[str]) -> torch.Tensor:
        seeds = (sum(prompt.encode()) for prompt in prompts)
        return torch.stack(
            [torch.randn(self.shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )


def t5_and_clip(length: int = 7) -> tuple[Texts, Texts]:
    return Texts(length, SMALL_FLOW.context_in_dim), Texts(SMALL_FLOW.vec_in_dim)


def save_depth_model(folder: Path) -> Path:
    """A small Depth Anything with its processor, as its repository has them."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessorPil

    backbone = {
        "model_type": "dinov2",
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "out_indices": [1, 2],
        "out_features": ["stage1", "stage2"],
        "reshape_hidden_states": False,
        "apply_layernorm": True,
    }
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=24,
        patch_size=14,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DepthAnythingForDepthEstimation(config)
        for (
            parameter
        ) in model.head.parameters():  # as large as real depths, so that there is something to see
            parameter.data.normal_(0.0, 3.0).abs_()
    model.save_pretrained(folder)
    DPTImageProcessorPil(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    ).save_pretrained(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    """A small SigLIP, of pictures and texts as its repository has it, with its processor."""
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    vision = {
        "hidden_size": SIGLIP["hidden_size"],
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 42,
        "patch_size": 14,
    }
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        SiglipModel(
            SiglipConfig(vision_config=vision, text_config=text | {"vocab_size": 20})
        ).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 42, "width": 42}).save_pretrained(folder)
    return folder


def redux_state(width: int = SIGLIP["hidden_size"], text: int = SMALL_FLOW.context_in_dim):
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "redux_up.weight": (3 * text, width),
        "redux_up.bias": (3 * text,),
        "redux_down.weight": (text, 3 * text),
        "redux_down.bias": (text,),
    }
    return {key: torch.randn(shape, generator=generator) / 5 for key, shape in shapes.items()}


def save_redux(file: Path, dtype=torch.float32) -> Path:
    return save_weights(file, redux_state(), dtype)


def random_flow_state(task: str):
    return random_state(Flux, flow_params(task))


def save_all_commands_load(folder: Path) -> Path:
    """Everything that the commands that start from a picture load: a flow model each, `<task>.safetensors`,
    the autoencoder, text encoders, depth, SigLIP and the projector, under plain names."""
    save_text_encoders(folder)
    save_weights(folder / "ae.safetensors", random_state(AutoEncoder, SMALL_AE, 1))
    for task in CHANNELS:
        save_weights(folder / f"{task}.safetensors", random_flow_state(task))
    save_depth_model(folder / "depth")
    save_siglip(folder / "siglip")
    save_redux(folder / "projector.safetensors")
    return folder


def save_content_model(folder: Path) -> Path:
    """A small model in the layout of Pixtral, with a tokenizer of whole words and its picture processor."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        PixtralImageProcessorPil,
        PreTrainedTokenizerFast,
    )

    special = ["[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    words = ["<unk>", "<s>", "</s>", "<pad>", *special, "yes", "no", *(f"w{i}" for i in range(200))]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=special,
    ).save_pretrained(folder)
    PixtralImageProcessorPil(size={"longest_edge": 32}, patch_size={"height": 8, "width": 8}).save_pretrained(
        folder
    )
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"model_type": "pixtral", "image_size": 32, "patch_size": 8, "head_dim": 8, **shape}
    text = {"model_type": "mistral", "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 300, **shape}
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.index("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder
