"""The shapes of flux-tiny's parts."""

from flux.model import FluxParams
from flux.modules.autoencoder import AutoEncoderParams

TEXT_WIDTH = 128
POOLED_WIDTH = 128
TEXT_LENGTH = 48

FLOW = FluxParams(
    in_channels=64,
    out_channels=64,
    vec_in_dim=POOLED_WIDTH,
    context_in_dim=TEXT_WIDTH,
    hidden_size=192,
    mlp_ratio=4.0,
    num_heads=6,
    depth=4,
    depth_single_blocks=8,
    # One head has 32 channels; the low theta suits a grid of 8 x 8 tokens.
    axes_dim=[4, 14, 14],
    theta=100,
    qkv_bias=True,
    guidance_embed=True,
)

AE = AutoEncoderParams(
    resolution=128,
    in_channels=3,
    ch=32,
    out_ch=3,
    ch_mult=[1, 1, 2, 2],
    num_res_blocks=1,
    z_channels=16,
    scale_factor=1.0,
    shift_factor=0.0,
)
