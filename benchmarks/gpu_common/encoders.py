"""Text encoders with random weights and without tokenizers, in the place of `HFEmbedder`."""

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .models import random_model
from .scale import Scale


class RandomEncoder(nn.Module):
    """T5 or CLIP. It reads words that stand for the characters of a prompt, as many as it takes.

    encoder: a model of `transformers`. words: how many it knows. max_length: tokens it reads.
    """

    def __init__(self, encoder: nn.Module, output: str, words: int, max_length: int):
        super().__init__()
        self.hf_module = encoder
        self.output = output
        self.words = words
        self.max_length = max_length

    def forward(self, text: list[str]) -> Tensor:
        """Prompts to bfloat16 (B, max_length, width) for T5, (B, width) for CLIP."""
        device = next(self.hf_module.parameters()).device
        ids = torch.tensor([self._ids(prompt) for prompt in text], device=device)
        return self.hf_module(input_ids=ids, attention_mask=None)[self.output].bfloat16()

    def _ids(self, prompt: str) -> list[int]:
        """Ids below the last word, and that one at the end, where CLIP looks for it."""
        inner = [3 + ord(prompt[i % len(prompt)]) % (self.words - 4) for i in range(self.max_length - 1)]
        return [*inner, self.words - 1]


def random_t5(scale: Scale, device: torch.device, dtype: torch.dtype) -> RandomEncoder:
    """Of google/t5-v1_1-xxl's shape at full scale: 4.8 billion parameters."""
    layers, heads, mlp, words = scale.t5
    config = T5Config(
        d_model=scale.params.context_in_dim,
        d_kv=64,
        d_ff=mlp,
        num_layers=layers,
        num_heads=heads,
        vocab_size=words,
        feed_forward_proj="gated-gelu",
    )
    encoder = random_model(lambda: T5EncoderModel(config), device, dtype)
    return RandomEncoder(encoder, "last_hidden_state", words, scale.txt_len)


def random_clip(scale: Scale, device: torch.device, dtype: torch.dtype) -> RandomEncoder:
    """Of the shape of openai/clip-vit-large-patch14's text model at full scale."""
    layers, heads, mlp, words = scale.clip
    config = CLIPTextConfig(
        hidden_size=scale.params.vec_in_dim,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=words,
        max_position_embeddings=77,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=words - 1,
    )
    encoder = random_model(lambda: CLIPTextModel(config), device, dtype)
    return RandomEncoder(encoder, "pooler_output", words, 77)
