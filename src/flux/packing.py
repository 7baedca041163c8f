"""Latents as tokens of 2 x 2 patches, and where each token stands."""

import math

import torch
from einops import rearrange
from torch import Tensor


def pack(latent: Tensor) -> Tensor:
    """Latent (B, C, 2h, 2w) to tokens of 2 x 2 patches, (B, h w, 4C)."""
    return rearrange(latent, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)


def unpack(x: Tensor, height: int, width: int) -> Tensor:
    """Tokens of a picture of height x width pixels back to its latent; undoes `pack`."""
    h, w = math.ceil(height / 16), math.ceil(width / 16)
    return rearrange(x, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=h, w=w, ph=2, pw=2)


def image_ids(h: int, w: int) -> Tensor:
    """RoPE ids of h x w image tokens, row by row: (h w, 3) holding (0, row, column), float32."""
    zero, row, column = torch.zeros(h, w), torch.arange(h), torch.arange(w)
    return torch.stack((zero, zero + row[:, None], zero + column[None, :]), dim=-1).flatten(0, 1)
