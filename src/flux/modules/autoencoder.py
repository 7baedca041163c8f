"""The convolutional autoencoder of FLUX: pictures to latents of 1/8 size and back.

Attribute names are the keys of official checkpoints. See `AutoEncoder.encode` for the scaling of latents.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from flux.models import AutoEncoderParams
from flux.modules.dtypes import cast_for


def swish(x: Tensor) -> Tensor:
    """x sigmoid(x). In one new tensor, not two, where no gradient is asked for: they are a picture's largest.

    `F.silu` takes as little and rounds otherwise.
    """
    gate = torch.sigmoid(x)
    return x * gate if x.requires_grad and torch.is_grad_enabled() else gate.mul_(x)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=32, num_channels=channels, eps=1e-6, affine=True)


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=1, padding=1)


class AttnBlock(nn.Module):
    """Self-attention of one head over all places of a feature map."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.in_channels = in_channels
        self.norm = _group_norm(in_channels)
        self.q = nn.Conv2d(in_channels, in_channels, kernel_size=1)
        self.k = nn.Conv2d(in_channels, in_channels, kernel_size=1)
        self.v = nn.Conv2d(in_channels, in_channels, kernel_size=1)
        self.proj_out = nn.Conv2d(in_channels, in_channels, kernel_size=1)

    def attention(self, h_: Tensor) -> Tensor:
        height = h_.shape[-2]
        h_ = self.norm(h_)
        q, k, v = (rearrange(f(h_), "b c h w -> b 1 (h w) c").contiguous() for f in (self.q, self.k, self.v))
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b 1 (h w) c -> b c h w", h=height)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_out(self.attention(x))


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.norm1 = _group_norm(self.in_channels)
        self.conv1 = _conv3(self.in_channels, self.out_channels)
        self.norm2 = _group_norm(self.out_channels)
        self.conv2 = _conv3(self.out_channels, self.out_channels)
        if self.in_channels != self.out_channels:
            self.nin_shortcut = nn.Conv2d(self.in_channels, self.out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(swish(self.norm1(x)))
        h = self.conv2(swish(self.norm2(h)))
        return h + (x if self.in_channels == self.out_channels else self.nin_shortcut(x))


class Downsample(nn.Module):
    """Halve height and width; the picture is padded at its right and bottom edges only."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, kernel_size=3, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a convolution."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv = _conv3(in_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _level(in_channels: int, out_channels: int, blocks: int) -> nn.Module:
    """One resolution: residual blocks under `block`, and room for a resampler beside them.

    `attn` is as empty as in official checkpoints; clients who repeat the loop of a level look at its length.
    """
    level = nn.Module()
    widths = [in_channels] + [out_channels] * blocks
    level.block = nn.ModuleList(ResnetBlock(a, b) for a, b in zip(widths, widths[1:], strict=False))
    level.attn = nn.ModuleList()
    return level


def _middle(channels: int) -> nn.Module:
    mid = nn.Module()
    mid.block_1 = ResnetBlock(channels, channels)
    mid.attn_1 = AttnBlock(channels)
    mid.block_2 = ResnetBlock(channels, channels)
    return mid


def _through_middle(mid: nn.Module, h: Tensor) -> Tensor:
    return mid.block_2(mid.attn_1(mid.block_1(h)))


class Encoder(nn.Module):
    def __init__(
        self,
        resolution: int,
        in_channels: int,
        ch: int,
        ch_mult: list[int],
        num_res_blocks: int,
        z_channels: int,
    ):
        super().__init__()
        self.ch = ch
        self.num_resolutions = len(ch_mult)
        self.num_res_blocks = num_res_blocks
        self.resolution = resolution
        self.in_channels = in_channels

        self.in_ch_mult = (1, *ch_mult)
        widths = [ch * m for m in self.in_ch_mult]
        self.conv_in = _conv3(in_channels, ch)
        self.down = nn.ModuleList(
            _level(a, b, num_res_blocks) for a, b in zip(widths, widths[1:], strict=False)
        )
        for level, width in zip(self.down[:-1], widths[1:], strict=False):
            level.downsample = Downsample(width)
        self.mid = _middle(widths[-1])
        self.norm_out = _group_norm(widths[-1])
        self.conv_out = _conv3(widths[-1], 2 * z_channels)

    def forward(self, x: Tensor) -> Tensor:
        """RGB in [-1, 1], (B, 3, H, W), to mean and log-variance stacked, (B, 2 z, H / 8, W / 8)."""
        h = self.conv_in(x)
        for i, level in enumerate(self.down):
            for block in level.block:
                h = block(h)
            if i < self.num_resolutions - 1:
                h = level.downsample(h)
        h = _through_middle(self.mid, h)
        return self.conv_out(swish(self.norm_out(h)))


class Decoder(nn.Module):
    """`up` is indexed by resolution, finest first, and run from the coarsest, as checkpoints have it."""

    def __init__(
        self,
        ch: int,
        out_ch: int,
        ch_mult: list[int],
        num_res_blocks: int,
        in_channels: int,
        resolution: int,
        z_channels: int,
    ):
        super().__init__()
        self.ch = ch
        self.num_resolutions = len(ch_mult)
        self.num_res_blocks = num_res_blocks
        self.resolution = resolution
        self.in_channels = in_channels
        self.ffactor = 2 ** (self.num_resolutions - 1)
        self.z_shape = (1, z_channels, resolution // self.ffactor, resolution // self.ffactor)

        widths = [ch * m for m in ch_mult]
        self.conv_in = _conv3(z_channels, widths[-1])
        self.mid = _middle(widths[-1])
        self.up = nn.ModuleList(
            _level(coarser, width, num_res_blocks + 1)
            for width, coarser in zip(widths, widths[1:] + widths[-1:], strict=True)
        )
        for level, width in zip(self.up[1:], widths[1:], strict=True):
            level.upsample = Upsample(width)
        self.norm_out = _group_norm(widths[0])
        self.conv_out = _conv3(widths[0], out_ch)

    def forward(self, z: Tensor) -> Tensor:
        """z: (B, z_channels, h, w). Returns (B, out_ch, 8 h, 8 w)."""
        # Under autocast the convolutions may leave a dtype that later ones, cast by hand, do not expect.
        dtype = next(self.up.parameters()).dtype
        h = _through_middle(self.mid, self.conv_in(z)).to(dtype)
        for i in reversed(range(self.num_resolutions)):
            level = self.up[i]
            for block in level.block:
                h = block(h)
            if i > 0:
                h = level.upsample(h)
        return self.conv_out(swish(self.norm_out(h)))


class DiagonalGaussian(nn.Module):
    """Split mean and log-variance; `sample=False` gives the mean."""

    def __init__(self, sample: bool = True, chunk_dim: int = 1):
        super().__init__()
        self.sample = sample
        self.chunk_dim = chunk_dim

    def forward(self, z: Tensor) -> Tensor:
        mean, logvar = z.chunk(2, dim=self.chunk_dim)
        if not self.sample:
            return mean
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


class AutoEncoder(nn.Module):
    def __init__(self, params: AutoEncoderParams, sample_z: bool = False):
        super().__init__()
        self.params = params
        shared = dict(
            resolution=params.resolution,
            ch=params.ch,
            ch_mult=params.ch_mult,
            num_res_blocks=params.num_res_blocks,
            z_channels=params.z_channels,
            in_channels=params.in_channels,
        )
        self.encoder = Encoder(**shared)
        self.decoder = Decoder(out_ch=params.out_ch, **shared)
        self.reg = DiagonalGaussian(sample=sample_z)
        self.scale_factor = params.scale_factor
        self.shift_factor = params.shift_factor

    def encode(self, x: Tensor) -> Tensor:
        """RGB in [-1, 1], (B, 3, H, W), to a latent of about unit variance, (B, 16, H / 8, W / 8)."""
        return self.scale_factor * (self.reg(self.encoder(cast_for(x, self.encoder))) - self.shift_factor)

    def decode(self, z: Tensor) -> Tensor:
        """Latent (B, 16, h, w) to RGB, (B, 3, 8 h, 8 w), about [-1, 1] and not clamped."""
        return self.decoder(cast_for(z, self.decoder) / self.scale_factor + self.shift_factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
