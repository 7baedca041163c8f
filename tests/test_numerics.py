"""Our flow model and autoencoder against those of the diffusers library, on the same random weights.

float32 agrees to 1e-5. In bfloat16 two correct programs differ, so there ours may stray from its own float32
result at most 1.5 times as far as diffusers strays from its own.
"""

from dataclasses import replace

import pytest
import torch
from helpers_models import SMALL_AE, SMALL_FLOW, random_state, small_model, without_guidance

from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.sampling import image_ids
from flux.weights import convert

diffusers = pytest.importorskip("diffusers")

GUIDED, UNGUIDED = SMALL_FLOW, without_guidance()
THREE_HEADS = replace(
    SMALL_FLOW, hidden_size=96, num_heads=3, in_channels=128, depth=1, depth_single_blocks=2
)

CASES = [  # params, batch, tokens of the picture (h, w), tokens of the text
    (GUIDED, 1, (4, 7), 5),
    (GUIDED, 3, (6, 2), 16),
    (UNGUIDED, 2, (3, 5), 1),
    (THREE_HEADS, 2, (2, 9), 33),
]


def relative(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def arguments(params, batch, size, txt_len, seed=0):
    """What our model takes, by name, in float32.

    A thousand times each timestep and guidance is a bfloat16 number, or rounding it would drown all else.
    """
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    ids = image_ids(h, w)
    ids[h * w // 2 :, 0] = 1  # as Kontext's reference tokens have it
    return {
        "img": torch.randn(batch, h * w, params.in_channels, generator=generator),
        "img_ids": ids[None].expand(batch, -1, -1),
        "txt": torch.randn(batch, txt_len, params.context_in_dim, generator=generator),
        "txt_ids": torch.zeros(batch, txt_len, 3),
        "timesteps": torch.tensor([0.5, 1.0, 0.125])[:batch],
        "y": torch.randn(batch, params.vec_in_dim, generator=generator),
        "guidance": torch.tensor([4.0, 1.0, 2.0])[:batch] if params.guidance_embed else None,
    }


def in_dtype(given, dtype):
    """The arguments in a dtype; positions stay float32, as the samplers of both programs have them."""
    keep = ("img_ids", "txt_ids")
    return {key: x if x is None or key in keep else x.to(dtype) for key, x in given.items()}


def diffusers_flow(params):
    model = diffusers.FluxTransformer2DModel(**convert.flow_config(params))
    model.load_state_dict(dict(convert.to_diffusers(convert.flow_rules(params), random_state(Flux, params))))
    return model.eval().requires_grad_(False)


def run_diffusers(model, given):
    """Both multiply timestep and guidance by 1000; diffusers wants one set of ids, not one per row."""
    return model(
        hidden_states=given["img"],
        encoder_hidden_states=given["txt"],
        pooled_projections=given["y"],
        timestep=given["timesteps"],
        img_ids=given["img_ids"][0],
        txt_ids=given["txt_ids"][0],
        guidance=given["guidance"],
    ).sample


@pytest.mark.parametrize("params, batch, size, txt_len", CASES)
def test_flow_in_float32(params, batch, size, txt_len):
    given = arguments(params, batch, size, txt_len)
    ours, theirs = small_model(Flux, params)(**given), run_diffusers(diffusers_flow(params), given)
    assert relative(ours, theirs) <= 1e-5


@pytest.mark.parametrize("params, batch, size, txt_len", CASES)
def test_flow_in_bfloat16(params, batch, size, txt_len):
    given = arguments(params, batch, size, txt_len)
    rounded = in_dtype(given, torch.bfloat16)
    ours, theirs = small_model(Flux, params), diffusers_flow(params)
    exact, their_exact = ours(**given), run_diffusers(theirs, given)
    error = relative(ours.bfloat16()(**rounded), exact)
    assert error <= 1.5 * relative(run_diffusers(theirs.bfloat16(), rounded), their_exact)


def diffusers_ae(params):
    model = diffusers.AutoencoderKL(**convert.ae_config(params))
    model.load_state_dict(
        dict(convert.to_diffusers(convert.ae_rules(params), random_state(AutoEncoder, params)))
    )
    return model.eval().requires_grad_(False)


AE_CASES = [  # params, batch, height, width
    (SMALL_AE, 1, 32, 48),
    (SMALL_AE, 3, 40, 16),
    (replace(SMALL_AE, ch_mult=[1, 1, 2], num_res_blocks=2), 2, 24, 36),
]


@pytest.mark.parametrize("params, batch, height, width", AE_CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autoencoder(params, batch, height, width, dtype):
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
    factor = 2 ** (len(params.ch_mult) - 1)
    latent = torch.randn(batch, params.z_channels, height // factor, width // factor, generator=generator)
    ours, theirs = small_model(AutoEncoder, params), diffusers_ae(params)

    def both(dtype):
        """Pictures and latents as our functions take them, from ours and from diffusers'."""
        x, z = picture.to(dtype), latent.to(dtype)
        a, b = ours.to(dtype), theirs.to(dtype)
        encoded = params.scale_factor * (b.encode(x).latent_dist.mode() - params.shift_factor)
        decoded = b.decode(z / params.scale_factor + params.shift_factor).sample
        return (a.encode(x), a.decode(z)), (encoded, decoded)

    exact, their_exact = both(torch.float32)
    if dtype == torch.float32:
        assert all(relative(a, b) <= 1e-5 for a, b in zip(exact, their_exact, strict=True))
        return
    rounded, their_rounded = both(dtype)
    for a, a_exact, b, b_exact in zip(rounded, exact, their_rounded, their_exact, strict=True):
        assert relative(a, a_exact) <= 1.5 * relative(b, b_exact)
