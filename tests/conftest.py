"""What every test file shares: one thread per worker, no user settings, and small random models."""

import os

# Before torch is imported: workers that each use all cores only get in each other's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A developer's own FLUX_MODEL, FLUX_REPO and the like must not reach the tests.
for _name in [name for name in os.environ if name.startswith("FLUX_")]:
    del os.environ[_name]

from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from flux.model import Flux, FluxParams  # noqa: E402

SMALL = FluxParams(
    in_channels=64,
    out_channels=64,
    vec_in_dim=24,
    context_in_dim=40,
    hidden_size=48,
    mlp_ratio=4.0,
    num_heads=3,
    depth=2,
    depth_single_blocks=3,
    axes_dim=[4, 6, 6],
    theta=10_000,
    qkv_bias=True,
    guidance_embed=True,
)
"""FLUX in miniature: double blocks are layers 0 and 1, single blocks 2, 3 and 4; heads have 16 channels."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def small_flux() -> Callable[..., Flux]:
    """`small_flux(seed=0, dtype=torch.float32, **changes)`: a `Flux` of `SMALL` with random weights."""
    return _small_flux


def _small_flux(seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> Flux:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Flux(replace(SMALL, **changes))
        # Learned norm scales away from 1, so that attention is peaked and a swapped scale shows.
        for name, parameter in model.named_parameters():
            if name.endswith("norm.scale"):
                torch.nn.init.normal_(parameter, mean=2.0, std=0.3)
    return model.to(dtype).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_inputs() -> Callable[..., dict[str, Tensor]]:
    """`small_inputs(batch, txt_len, (h, w))`: random arguments for `small_flux`, by name.

    Different texts in each row and the same starting latent, as a source and its edits have.
    """
    return _small_inputs


def _small_inputs(
    batch: int = 3,
    txt_len: int = 5,
    size: tuple[int, int] = (4, 4),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    img_ids = torch.stack((torch.zeros(h, w), row, column), dim=-1).reshape(1, h * w, 3)
    return {
        "img": torch.randn(1, h * w, SMALL.in_channels, generator=generator).repeat(batch, 1, 1).to(dtype),
        "img_ids": img_ids.repeat(batch, 1, 1),
        "txt": torch.randn(batch, txt_len, SMALL.context_in_dim, generator=generator).to(dtype),
        "txt_ids": torch.zeros(batch, txt_len, 3),
        "timesteps": torch.full((batch,), 0.7, dtype=dtype),
        "y": torch.randn(batch, SMALL.vec_in_dim, generator=generator).to(dtype),
        "guidance": torch.full((batch,), 3.5, dtype=dtype),
    }


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each evaluation of a flow model has, one entry an evaluation."""
    counted, forward = [], Flux.forward

    def counting(self, img, *args, **kwargs):
        counted.append(len(img))
        return forward(self, img, *args, **kwargs)

    monkeypatch.setattr(Flux, "forward", counting)
    return counted
