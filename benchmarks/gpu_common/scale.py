"""At which size the parts run: FLUX.1-dev's, or a small one that a CPU can carry."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from flux.hooks import VITAL_LAYERS
from flux.model import FluxParams
from flux.modules.autoencoder import AutoEncoderParams
from flux.util import configs

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Scale:
    """The model's shape, the picture in tokens, where hooks act, and how often a step is timed.

    grid: (rows, columns) of image tokens, each of 16 x 16 pixels. matmul: the side of the square matrices of
    the calibration. shard: (double blocks, single blocks) of the file whose loading is timed.
    t5, clip: (layers, heads, width of the MLP, words) of the text encoders.
    warmup: steps that are run and not timed. repeats: timed steps of a turn; repeats_of_batches: of one with
    more than one row, where a step takes longer. Each case has two turns.
    """

    name: str
    params: FluxParams
    ae: AutoEncoderParams
    grid: tuple[int, int]
    txt_len: int
    skip: int
    inject: tuple[int, ...]
    matmul: int
    shard: tuple[int, int]
    t5: tuple[int, int, int, int]
    clip: tuple[int, int, int, int]
    warmup: int
    repeats: int
    repeats_of_batches: int
    edit_steps: int

    @property
    def tokens(self) -> int:
        return self.txt_len + self.grid[0] * self.grid[1]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture in pixels."""
        return 16 * self.grid[0], 16 * self.grid[1]


FULL = Scale(
    name="full",
    params=configs["flux-dev"].params,
    ae=configs["flux-dev"].ae_params,
    grid=(64, 64),
    txt_len=512,
    skip=28,
    inject=VITAL_LAYERS["flux-dev"]["released"],
    matmul=8192,
    shard=(1, 4),  # 1.9 GB in bfloat16
    t5=(24, 64, 10240, 32128),
    clip=(12, 12, 3072, 49408),
    warmup=3,
    repeats=15,
    repeats_of_batches=8,
    edit_steps=4,
)
SMALL = replace(
    FULL,
    name="small",
    params=replace(
        FULL.params,
        vec_in_dim=64,
        context_in_dim=128,
        hidden_size=256,
        num_heads=2,
        depth=2,
        depth_single_blocks=4,
    ),
    ae=replace(FULL.ae, ch=32, ch_mult=[1, 1, 2, 2], num_res_blocks=1),
    grid=(8, 8),
    txt_len=32,
    skip=3,
    inject=(0, 5),
    matmul=512,
    t5=(1, 2, 64, 100),
    clip=(1, 2, 64, 100),
    warmup=1,
    repeats=4,
    repeats_of_batches=3,
    edit_steps=2,
)
SCALES = {scale.name: scale for scale in (FULL, SMALL)}


@dataclass(frozen=True)
class Setup:
    """What a part is told: at which size, where, in which precision, and its own options."""

    scale: Scale
    device: torch.device
    dtype: torch.dtype
    options: dict[str, Any]

    @classmethod
    def of(cls, about: dict[str, Any]) -> "Setup":
        """The setup that a part's record states."""
        return cls(
            scale=SCALES[about["scale"]],
            # With its index, without which a cap cannot be set.
            device=torch.device("cuda:0" if about["device"] == "cuda" else about["device"]),
            dtype=DTYPES[about["dtype"]],
            options=about["options"],
        )


def work(scale: Scale, batch: int) -> dict[str, float]:
    """TFLOP of one step: the linear layers of the blocks over all tokens, and attention."""
    p, length = scale.params, scale.tokens
    # Queries, keys, values and output, 4 h^2, and the MLP, 2 r h^2, in both block kinds.
    linear = (4 + 2 * p.mlp_ratio) * p.hidden_size**2
    layers = p.depth + p.depth_single_blocks
    return {
        "linear": 2 * batch * layers * linear * length / 1e12,
        "attention": 4 * batch * layers * length**2 * p.hidden_size / 1e12,
    }


def floor_of(scale: Scale, batch: int, calibration: dict[str, Any]) -> float | None:
    """Milliseconds that a step of the whole model would take if all its products ran at the best rates that
    were calibrated; None before they were."""
    rates = [calibration.get(name) for name in ("matmul_tflops", "attention_tflops")]
    if None in rates:
        return None
    flop = work(scale, batch)
    return 1000 * (flop["linear"] / rates[0] + flop["attention"] / rates[1])
