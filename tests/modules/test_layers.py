"""The parts of the blocks, each against the formula it stands for, and the LoRA layers."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flux.math import apply_rope, attention, rope
from flux.model import FluxLoraWrapper
from flux.modules.layers import (
    EmbedND,
    LastLayer,
    MLPEmbedder,
    Modulation,
    QKNorm,
    RMSNorm,
    SelfAttention,
    split_heads,
    timestep_embedding,
    within_float16,
)
from flux.modules.lora import LinearLora, replace_linear_with_lora, with_lora

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- Timesteps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [4, 256])
def test_timestep_embedding_has_cosines_first(dim):
    times = [0.0, 0.25, 1.0]
    half = dim // 2
    expected = []
    for t in times:
        angles = [1000 * t / 10_000 ** (i / half) for i in range(half)]
        expected.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    result = timestep_embedding(torch.tensor(times), dim)
    torch.testing.assert_close(result, torch.tensor(expected), rtol=0, atol=2e-4)
    assert result[0].tolist() == [1.0] * half + [0.0] * half


def test_timestep_embedding_of_an_odd_width_ends_in_zero():
    result = timestep_embedding(torch.tensor([0.3]), 7)
    assert result.shape == (1, 7) and result[0, -1] == 0
    assert torch.equal(result[:, :6], timestep_embedding(torch.tensor([0.3]), 6))


def test_timestep_embedding_takes_its_own_period_and_factor():
    result = timestep_embedding(torch.tensor([0.5]), 4, max_period=100, time_factor=2.0)
    expected = [math.cos(1), math.cos(0.1), math.sin(1), math.sin(0.1)]
    torch.testing.assert_close(result, torch.tensor([expected]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_timestep_embedding_keeps_the_dtype(dtype):
    assert timestep_embedding(torch.tensor([0.5], dtype=dtype), 8).dtype == dtype


# --- RoPE and attention ---------------------------------------------------------------------------


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """x (..., L, D) with its channel pairs as complex numbers, turned by angles (L, D / 2), in float64."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def angles_of(pos: Tensor, dim: int, theta: int) -> Tensor:
    return torch.stack([pos.double() * theta ** (-2 * i / dim) for i in range(dim // 2)], dim=-1)


def by_sums(x, pe):
    """RoPE as upstream writes it: each pair of channels times its 2 x 2 matrix, in float32."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    return (pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]).reshape(x.shape).to(x.dtype)


@pytest.mark.parametrize("theta", [100, 10_000])
def test_rope_turns_interleaved_pairs(theta):
    pos = torch.tensor([0, 1, 5, 4095])
    matrices = rope(pos, 8, theta)
    assert matrices.shape == (4, 4, 2, 2) and matrices.dtype == torch.float32
    q, k = random(2, 3, 4, 8), random(2, 3, 4, 8, seed=1)
    angles = angles_of(pos, 8, theta)
    for x, result in zip((q, k), apply_rope(q, k, matrices), strict=True):
        torch.testing.assert_close(result.double(), turned(x, angles), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rope_is_applied_in_float32(dtype):
    q = random(1, 2, 3, 8).to(dtype)
    matrices = rope(torch.tensor([1, 20, 300]), 8, 10_000)
    result, _ = apply_rope(q, q, matrices)
    assert result.dtype == dtype
    assert torch.equal(result, apply_rope(q.float(), q.float(), matrices)[0].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3])
def test_rope_by_complex_numbers_is_that_by_sums_of_products(dtype, rows):
    """Of a stream as blocks have it, whose heads lie beside each other, and with a table for each row."""
    q = random(3, 20, 2, 8).transpose(1, 2).to(dtype)
    pe = rope(torch.arange(20.0) * torch.arange(1.0, 1.0 + rows)[:, None], 8, 10_000)[:, None]
    result, _ = apply_rope(q, q, pe)
    # On a CPU they are equal; within two roundings of float32, and one of the dtype, they must be.
    torch.testing.assert_close(result, by_sums(q, pe), rtol=torch.finfo(dtype).eps, atol=5e-7)
    assert result.dtype == dtype


def test_rope_of_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="must be even; got 7"):
        rope(torch.tensor([1]), 7, 10_000)


def test_each_axis_turns_its_own_channels():
    ids = torch.tensor([[[0, 3, 7], [1, 0, 2]]]).float()
    pe = EmbedND(dim=12, theta=10_000, axes_dim=[2, 4, 6])(ids)
    assert pe.shape == (1, 1, 2, 6, 2, 2)
    q = random(1, 1, 2, 12)
    angles = torch.cat([angles_of(ids[0, :, a], d, 10_000) for a, d in enumerate((2, 4, 6))], dim=-1)
    torch.testing.assert_close(apply_rope(q, q, pe)[0].double(), turned(q, angles), rtol=1e-5, atol=1e-6)


def test_attention_is_a_softmax_over_turned_keys():
    q, k, v = (random(2, 3, 5, 8, seed=i) for i in range(3))
    pos = torch.arange(5)
    result = attention(q, k, v, pe=rope(pos, 8, 10_000))
    angles = angles_of(pos, 8, 10_000)
    for b in range(2):
        heads = []
        for h in range(3):
            scores = turned(q[b, h], angles) @ turned(k[b, h], angles).T / math.sqrt(8)
            weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            heads.append(weights @ v[b, h].double())
        torch.testing.assert_close(result[b].double(), torch.cat(heads, dim=1), rtol=1e-5, atol=1e-6)


# --- Norms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-5])
def test_rms_norm_has_an_epsilon_of_one_millionth(size):
    """At a size of 1e-3 the epsilon weighs as much as the input, so that another one would show."""
    norm = RMSNorm(6)
    nn.init.normal_(norm.scale, generator=torch.Generator().manual_seed(3))
    x = size * random(4, 6).double()
    expected = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm.scale.double()
    torch.testing.assert_close(norm(x.float()).double(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rms_norm_squares_in_float32(dtype):
    x = (3e4 * random(2, 64)).clamp(-6e4, 6e4).to(dtype)
    result = RMSNorm(64).to(dtype)(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), F.rms_norm(x.float(), (64,), eps=1e-6), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_rms_norm_is_the_plain_one(dtype):
    """Within two roundings of the dtype; in float32 on a CPU they are equal."""
    norm = RMSNorm(64)
    nn.init.normal_(norm.scale, 1.0, 0.3, generator=torch.Generator().manual_seed(3))
    x, norm = random(2, 5, 3, 64).transpose(1, 2).to(dtype), norm.to(dtype)
    plain = x.float() * torch.rsqrt(x.float().square().mean(dim=-1, keepdim=True) + 1e-6)
    plain = plain.to(dtype) * norm.scale
    torch.testing.assert_close(norm(x), plain, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_rms_norm_takes_a_scale_in_another_dtype():
    norm, x = RMSNorm(8), random(4, 8)
    nn.init.normal_(norm.scale, 1.0, 0.3, generator=torch.Generator().manual_seed(3))
    assert norm(x.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(norm(x.bfloat16()), norm(x), rtol=2e-2, atol=1e-2)


def test_queries_and_keys_have_their_own_norms_and_the_dtype_of_v():
    norm = QKNorm(8)
    nn.init.constant_(norm.query_norm.scale, 2.0)
    nn.init.constant_(norm.key_norm.scale, 3.0)
    x, v = random(1, 2, 3, 8), random(1, 2, 3, 8).bfloat16()
    q, k = norm(x, x, v)
    assert q.dtype == k.dtype == torch.bfloat16
    torch.testing.assert_close(q.float() * 1.5, k.float(), rtol=1e-2, atol=1e-2)


# --- Modulation and the layers around the blocks --------------------------------------------------


@pytest.mark.parametrize("double", [True, False])
def test_modulation_gives_shift_scale_gate(double):
    modulation = Modulation(3, double=double)
    parts = 6 if double else 3
    assert modulation.lin.weight.shape == (3 * parts, 3)
    nn.init.zeros_(modulation.lin.weight)
    with torch.no_grad():
        modulation.lin.bias.copy_(torch.arange(parts).repeat_interleave(3))
    first, second = modulation(random(2, 3))
    assert [part.mean().item() for part in (first.shift, first.scale, first.gate)] == [0, 1, 2]
    assert first.shift.shape == (2, 1, 3)
    if double:
        assert [part.mean().item() for part in (second.shift, second.scale, second.gate)] == [3, 4, 5]
    else:
        assert second is None


def test_modulation_is_linear_in_silu():
    modulation, vec = Modulation(3, double=False), random(2, 3)
    first, _ = modulation(vec)
    expected = modulation.lin(vec * torch.sigmoid(vec))
    torch.testing.assert_close(torch.cat((first.shift, first.scale, first.gate), dim=-1)[:, 0], expected)


def test_the_last_layer_takes_shift_before_scale():
    layer = LastLayer(4, patch_size=1, out_channels=2)
    x, vec = random(2, 5, 4), random(2, 4, seed=1)
    linear = layer.adaLN_modulation[1]
    made = F.linear(vec * torch.sigmoid(vec), linear.weight, linear.bias)
    shift, scale = made[:, None, :4], made[:, None, 4:]
    normed = (x - x.mean(dim=-1, keepdim=True)) / (x.var(dim=-1, keepdim=True, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(layer(x, vec), layer.linear((1 + scale) * normed + shift))


def test_the_embedder_is_two_layers_and_silu():
    embedder, x = MLPEmbedder(4, 6), random(2, 4)
    hidden = embedder.in_layer(x)
    torch.testing.assert_close(embedder(x), embedder.out_layer(hidden * torch.sigmoid(hidden)))


def test_a_fused_projection_holds_q_then_k_then_v():
    """Channels of (K H D): first all of q, head by head, then k, then v."""
    qkv = torch.arange(2 * 3 * 4).repeat(1, 5, 1)  # 5 tokens, K = 3, H = 2, D = 4
    for i, part in enumerate(split_heads(qkv, num_heads=2)):
        assert part.shape == (1, 2, 5, 4)
        assert part[0, :, 0].tolist() == [[8 * i + j for j in range(4)], [8 * i + 4 + j for j in range(4)]]


def test_self_attention_alone_is_its_parts():
    layer, x = SelfAttention(8, num_heads=2), random(2, 5, 8)
    pe = rope(torch.arange(5), 4, 10_000)
    q, k, v = split_heads(layer.qkv(x), 2)
    q, k = layer.norm.query_norm(q), layer.norm.key_norm(k)
    torch.testing.assert_close(layer(x, pe), layer.proj(attention(q, k, v, pe)))
    assert layer.qkv.bias is None and SelfAttention(8, 2, qkv_bias=True).qkv.bias is not None


def test_only_float16_is_clipped():
    wild = torch.tensor([-torch.inf, 1.0, 7e4, torch.inf])
    assert torch.equal(within_float16(wild), wild)
    assert torch.equal(within_float16(wild.bfloat16()), wild.bfloat16())
    assert within_float16(wild.half()).tolist() == [-65504, 1, 65504, 65504]


# --- LoRA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_lora_adds_a_low_rank_product(bias):
    plain, x = nn.Linear(6, 5, bias=bias), random(2, 6)
    layer = with_lora(plain, rank=3, scale=0.85)
    a, b = layer.lora_A.weight, layer.lora_B.weight
    assert (a.shape, b.shape) == ((3, 6), (5, 3))
    update = x @ a.T @ b.T + (layer.lora_B.bias if bias else 0)
    torch.testing.assert_close(layer(x), plain(x) + 0.85 * update)
    assert layer.weight is plain.weight and layer.bias is plain.bias
    layer.set_scale(0)
    assert torch.equal(layer(x), plain(x))


def test_lora_has_no_rank_above_the_layers_own():
    assert with_lora(nn.Linear(6, 5), rank=128, scale=1.0).rank == 5


@pytest.mark.parametrize("scale", ["1", None])
def test_a_lora_scale_is_a_number(scale):
    with pytest.raises(TypeError, match="a LoRA scale must be a number"):
        with_lora(nn.Linear(2, 2), rank=1, scale=1.0).set_scale(scale)


def test_lora_checkpoint_keys():
    layer = with_lora(nn.Linear(4, 4), rank=2, scale=1.0)
    assert set(layer.state_dict()) == {"weight", "bias", "lora_A.weight", "lora_B.weight", "lora_B.bias"}


def test_every_linear_layer_is_replaced_once():
    inner = nn.Sequential(nn.SiLU(), nn.Linear(4, 2, bias=False))
    model = nn.Sequential(nn.Linear(4, 4), inner, nn.LayerNorm(2))
    before = model.state_dict()
    replace_linear_with_lora(model, max_rank=2, scale=0.5)
    replace_linear_with_lora(model, max_rank=2, scale=0.5)
    layers = [module for module in model.modules() if isinstance(module, LinearLora)]
    assert len(layers) == 2 and all(layer.scale == 0.5 for layer in layers)
    assert not any("lora_A.lora" in name for name in model.state_dict())
    after = model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert "1.1.lora_B.bias" not in after and "0.lora_B.bias" in after


def test_flux_with_lora(small_flux, small_inputs):
    """Plain keys stand, every linear layer has its LoRA beside them, and scale 0 is the model without."""
    plain, inputs = small_flux(), small_inputs()
    model = FluxLoraWrapper(lora_rank=4, lora_scale=0.85, params=plain.params)
    added = set(model.state_dict()) - set(plain.state_dict())
    linears = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear)}
    suffixes = ("lora_A.weight", "lora_B.weight", "lora_B.bias")
    assert added == {f"{name}.{suffix}" for name in linears for suffix in suffixes}
    assert {"double_blocks.0.img_attn.qkv.lora_A.weight", "final_layer.linear.lora_B.bias"} <= added
    assert all(m.scale == 0.85 and m.rank <= 4 for m in model.modules() if isinstance(m, LinearLora))

    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert set(missing) == added and not unexpected
    assert not torch.allclose(model(**inputs), plain(**inputs), atol=1e-3)
    model.set_lora_scale(0)
    assert torch.equal(model(**inputs), plain(**inputs))
