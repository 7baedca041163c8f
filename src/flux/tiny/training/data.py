"""Rendered scenes on disk, made once and mapped into memory."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flux.files import whole_file
from flux.tiny.scenes import Scene, render, sample_scene
from flux.tiny.training.layouts import paired_scenes
from flux.tiny.training.processes import blocks, spread

BLOCK = 500
"""Scenes that are drawn from one generator; blocks are drawn side by side."""


@cache
def scenes(seed: int, count: int, width: int, height: int, held_out: bool = False) -> tuple[Scene, ...]:
    """`count` random scenes; a longer list begins with the shorter one."""
    draw = partial(_block, seed, width, height, held_out)
    return tuple(
        scene for block in spread(draw, blocks(count, BLOCK), "scenes", each=BLOCK) for scene in block
    )


def _block(seed: int, width: int, height: int, held_out: bool, block: tuple[int, int]) -> list[Scene]:
    number, count = block
    rng = np.random.default_rng((seed, width, height, held_out, number))
    return [sample_scene(rng, width, height, held_out=held_out) for _ in range(count)]


def pictures(
    folder: Path, seed: int, count: int, width: int, height: int, held_out: bool = False
) -> np.ndarray:
    """The scenes of the same arguments as uint8 (count, H, W, 3), rendered into `folder` on first use."""
    path = folder / f"pictures-{seed}-{count}-{width}x{height}{'-held-out' * held_out}.npy"
    return _rendered(path, lambda: scenes(seed, count, width, height, held_out))


def paired_pictures(folder: Path, seed: int, count: int, side: int) -> np.ndarray:
    """The scenes of `layouts.paired_scenes`, as `pictures` has those of `scenes`."""
    return _rendered(folder / f"pairs-{seed}-{count}-{side}.npy", lambda: paired_scenes(seed, count, side))


def _rendered(path: Path, draw: Callable[[], Sequence[Scene]]) -> np.ndarray:
    if not path.exists():
        truth = draw()
        shape = (len(truth), truth[0].height, truth[0].width, 3)
        with whole_file(path) as partial:
            out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            for i, picture in enumerate(spread(render, truth, "render")):
                out[i] = picture
            out.flush()
    return np.load(path, mmap_mode="r")


def to_model(images: np.ndarray | Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float RGB in [-1, 1], (N, 3, H, W), where the images are."""
    x = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    # Contiguous, not channels last: the CPU kernels of the backward pass are twice as fast.
    return x.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def to_uint8(x: Tensor) -> np.ndarray:
    """Float RGB in [-1, 1], (N, 3, H, W), to uint8 (N, H, W, 3)."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
