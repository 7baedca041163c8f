"""The transformer blocks of FLUX. Attribute names are the keys of official checkpoints.

Both block kinds take three hooks as their last parameters and, without them, compute exactly the plain block:

- `skip=True` returns the inputs untouched, so the residual stream passes the block by; "attention" or "mlp"
  leaves out that half, see `Skip`;
- `inject(q, k, v)` sees queries, keys and values of the whole sequence, each (B, H, L, D), text tokens first,
  after the RMS norm of q and k and before RoPE, and returns the ones to attend with;
- `attend(q, k, v)` comes after it, does all of RoPE and attention itself, and returns (B, L, H * D), which
  goes into the projection; its keys and values may be longer than the queries.

`flux.hooks` decides which layers get them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from flux.math import attention, rope

Inject = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

Half = Literal["attention", "mlp"]
Skip = bool | Half
"""What is left out of a block: nothing, all of it, or a half that is then not computed.

In a double block a half is its gated residual, bias included. In a single block, where one linear layer takes
both, it is the half's columns of `linear2`, whose bias stays.
"""

FLOAT16_MAX = 65504.0


class EmbedND(nn.Module):
    """RoPE of several axes side by side: `axes_dim[i]` channels of each head follow column i of the ids."""

    def __init__(self, dim: int, theta: int, axes_dim: list[int]):
        super().__init__()
        self.dim = dim
        self.theta = theta
        self.axes_dim = axes_dim

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (B, L, axes). Returns (B, 1, L, head_dim / 2, 2, 2), ready to broadcast over heads."""
        axes = [rope(ids[..., i], dim, self.theta) for i, dim in enumerate(self.axes_dim)]
        return torch.cat(axes, dim=-3).unsqueeze(1)


def timestep_embedding(t: Tensor, dim: int, max_period=10000, time_factor: float = 1000.0) -> Tensor:
    """Sinusoidal embedding of fractional timesteps: (B,) in [0, 1] to (B, dim), cosines first, then sines."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    frequency = torch.exp(-math.log(max_period) / half * index)
    angle = (time_factor * t)[:, None].float() * frequency[None]
    embedding = torch.cat((angle.cos(), angle.sin()), dim=-1)
    if dim % 2:
        embedding = F.pad(embedding, (0, 1))
    return embedding.to(t) if torch.is_floating_point(t) else embedding


class MLPEmbedder(nn.Module):
    """Two linear layers with SiLU between; lifts timestep, guidance and pooled text to the hidden size."""

    def __init__(self, in_dim: int, hidden_dim: int):
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden_dim, bias=True)
        self.silu = nn.SiLU()
        self.out_layer = nn.Linear(hidden_dim, hidden_dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(self.silu(self.in_layer(x)))


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm over the last axis, computed in float32, with a learned scale.

    Rounded once, where x and scale are of one dtype; upstream rounds to bfloat16 before it scales, too.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.scale.dtype and not torch.jit.is_tracing():
            return F.rms_norm(x, self.scale.shape, self.scale, 1e-6)
        # One by one for ONNX, which has no such operator, and for two dtypes, for which there is no kernel.
        x32 = x.float()
        norm = torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + 1e-6)
        return (x32 * norm).to(x.dtype) * self.scale


class QKNorm(torch.nn.Module):
    """RMS norms of queries and keys; both come back in the dtype of `v`."""

    def __init__(self, dim: int):
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


class SelfAttention(nn.Module):
    """The attention weights of one stream. A double block joins two of these and calls their parts itself."""

    def __init__(self, dim: int, num_heads: int = 8, qkv_bias: bool = False):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.norm = QKNorm(dim // num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, pe: Tensor) -> Tensor:
        return self.proj(attention(*normed_heads(self, x, self.num_heads), pe=pe))


@dataclass
class ModulationOut:
    """What a modulation asks of one sub-layer; each tensor is (B, 1, hidden)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class Modulation(nn.Module):
    """adaLN modulation: one linear of SiLU(vec) gives shift, scale and gate, once or twice."""

    def __init__(self, dim: int, double: bool):
        super().__init__()
        self.is_double = double
        self.multiplier = 6 if double else 3
        self.lin = nn.Linear(dim, self.multiplier * dim, bias=True)

    def forward(self, vec: Tensor) -> tuple[ModulationOut, ModulationOut | None]:
        parts = self.lin(F.silu(vec))[:, None, :].chunk(self.multiplier, dim=-1)
        return ModulationOut(*parts[:3]), ModulationOut(*parts[3:]) if self.is_double else None


Vec = Tensor | tuple[Any, ...]
"""What steers a block: (B, C), or a tuple of what each of its modulations gives, evaluated before."""


def modulations(vec: Vec, *modules: nn.Module) -> tuple[Any, ...]:
    """What each of a block's modulations makes of `vec`; a tuple holds that already, see `flux.placement`."""
    return vec if isinstance(vec, tuple) else tuple(module(vec) for module in modules)


class DoubleStreamBlock(nn.Module):
    """Text and image keep their own weights and attend to each other jointly."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float, qkv_bias: bool = False):
        super().__init__()
        self.num_heads = num_heads
        self.hidden_size = hidden_size
        for stream in ("img", "txt"):
            self.add_module(f"{stream}_mod", Modulation(hidden_size, double=True))
            self.add_module(f"{stream}_norm1", _layer_norm(hidden_size))
            self.add_module(f"{stream}_attn", SelfAttention(hidden_size, num_heads, qkv_bias))
            self.add_module(f"{stream}_norm2", _layer_norm(hidden_size))
            self.add_module(f"{stream}_mlp", _mlp(hidden_size, int(hidden_size * mlp_ratio)))

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        vec: Vec,
        pe: Tensor,
        skip: Skip = False,
        inject: Inject | None = None,
        attend: Attend | None = None,
    ) -> tuple[Tensor, Tensor]:
        """img: (B, L_img, C); txt: (B, L_txt, C); vec: (B, C); pe: text, then image. Returns (img, txt)."""
        if skip is True:
            return img, txt
        (img_mod1, img_mod2), (txt_mod1, txt_mod2) = modulations(vec, self.img_mod, self.txt_mod)

        if skip != "attention":
            txt_qkv = normed_heads(self.txt_attn, modulate(self.txt_norm1(txt), txt_mod1), self.num_heads)
            img_qkv = normed_heads(self.img_attn, modulate(self.img_norm1(img), img_mod1), self.num_heads)
            q, k, v = (torch.cat(pair, dim=2) for pair in zip(txt_qkv, img_qkv, strict=True))  # (B, H, L, D)
            out = hooked_attention(q, k, v, pe, inject, attend)
            txt_out, img_out = out.split((txt.shape[1], img.shape[1]), dim=1)
            img = img + img_mod1.gate * self.img_attn.proj(img_out)
            txt = txt + txt_mod1.gate * self.txt_attn.proj(txt_out)
        if skip != "mlp":
            img = img + img_mod2.gate * self.img_mlp(modulate(self.img_norm2(img), img_mod2))
            txt = txt + txt_mod2.gate * self.txt_mlp(modulate(self.txt_norm2(txt), txt_mod2))
        return within_float16(img), within_float16(txt)


class SingleStreamBlock(nn.Module):
    """Attention and MLP side by side over one sequence of text and image tokens (arXiv 2302.05442)."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qk_scale: float | None = None,
    ):
        super().__init__()
        self.hidden_dim = hidden_size
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.scale = qk_scale or (hidden_size // num_heads) ** -0.5
        self.mlp_hidden_dim = int(hidden_size * mlp_ratio)
        self.linear1 = nn.Linear(hidden_size, hidden_size * 3 + self.mlp_hidden_dim)
        self.linear2 = nn.Linear(hidden_size + self.mlp_hidden_dim, hidden_size)
        self.norm = QKNorm(hidden_size // num_heads)
        self.pre_norm = _layer_norm(hidden_size)
        self.mlp_act = nn.GELU(approximate="tanh")
        self.modulation = Modulation(hidden_size, double=False)

    def forward(
        self,
        x: Tensor,
        vec: Vec,
        pe: Tensor,
        skip: Skip = False,
        inject: Inject | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x: (B, L_txt + L_img, C), text tokens first; vec: (B, C). Returns the new x."""
        if skip is True:
            return x
        ((mod, _),) = modulations(vec, self.modulation)
        qkv, mlp = self.linear1(modulate(self.pre_norm(x), mod)).split(
            (3 * self.hidden_size, self.mlp_hidden_dim), dim=-1
        )
        # Zeros in a half's place leave out its columns, whatever kind of linear layer a client puts here.
        if skip == "attention":
            attended = torch.zeros_like(x)
        else:
            q, k, v = split_heads(qkv, self.num_heads)
            attended = hooked_attention(*self.norm(q, k, v), v, pe, inject, attend)
        mlp = torch.zeros_like(mlp) if skip == "mlp" else self.mlp_act(mlp)
        return within_float16(x + mod.gate * self.linear2(torch.cat((attended, mlp), dim=-1)))


class LastLayer(nn.Module):
    """Final modulation and projection of each image token to its patch of the latent."""

    def __init__(self, hidden_size: int, patch_size: int, out_channels: int):
        super().__init__()
        self.norm_final = _layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels, bias=True)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size, bias=True))

    def forward(self, x: Tensor, vec: Vec) -> Tensor:
        (asked,) = modulations(vec, self.adaLN_modulation)
        shift, scale = asked[:, None, :].chunk(2, dim=-1)
        return self.linear((1 + scale) * self.norm_final(x) + shift)


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a fused projection (B, L, 3 * H * D) into q, k, v of (B, H, L, D)."""
    return tuple(rearrange(qkv, "B L (K H D) -> K B H L D", K=3, H=num_heads))


def normed_heads(attn: nn.Module, x: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normed queries, normed keys and values of x (B, L, C), each (B, H, L, D).

    attn: anything with `qkv` and `norm`, since clients put modules of their own in the place of
    `SelfAttention`.
    """
    q, k, v = split_heads(attn.qkv(x), num_heads)
    return *attn.norm(q, k, v), v


def hooked_attention(
    q: Tensor, k: Tensor, v: Tensor, pe: Tensor, inject: Inject | None, attend: Attend | None
) -> Tensor:
    """Attention over the whole sequence, (B, L, H * D), by way of the hooks that are there."""
    if inject is not None:
        q, k, v = inject(q, k, v)
    return attention(q, k, v, pe=pe) if attend is None else attend(q, k, v)


def modulate(x: Tensor, mod: ModulationOut) -> Tensor:
    return (1 + mod.scale) * x + mod.shift


def within_float16(x: Tensor) -> Tensor:
    """Keep a float16 residual stream finite, whose range FLUX's outliers exceed; others pass as they are."""
    return x.clip(-FLOAT16_MAX, FLOAT16_MAX) if x.dtype == torch.float16 else x


def _layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)


def _mlp(dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, hidden_dim, bias=True),
        nn.GELU(approximate="tanh"),
        nn.Linear(hidden_dim, dim, bias=True),
    )
