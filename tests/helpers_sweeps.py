"""Folders as a sweep leaves them, with pictures that are drawn, not sampled: no model is needed."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from flux.models import configs
from flux.studies.folder import RunFolder
from flux.studies.sweep.cells import Cell
from flux.studies.sweep.cells import plan as plan_of
from flux.studies.sweep.folder import CellRow, CellTable, save_picture

SETTING = {"device": "cpu", "dtype": "float32", "weights": {"flux1-tiny.safetensors": [3, 4]}}

Change = Callable[[Cell], float]
"""How much of a picture differs from its reference, 0 to 1."""


def drawn(prompt: int, change: float = 0.0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture of a prompt: blocks of random colours, of which the share `change` has other ones."""
    rng = np.random.default_rng(prompt)
    blocks, others = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    changed = rng.random((16, 16)) < change
    blocks[changed] = others[changed]
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def draw_sweep(
    folder: Path,
    *,
    model: str = "flux-tiny",
    groups: Sequence[tuple[int, ...]] = ((0,), (1,), (2,)),
    prompts: int = 4,
    noise: int = 2,
    change: Change = lambda cell: 0.1 + 0.2 * sum(cell.part.layers) if cell.part else 0.0,
    size: tuple[int, int] = (64, 64),
    made: Callable[[Cell], bool] = lambda cell: True,
    probe: str | dict = "skip",
    windows: Sequence[Sequence[int]] | None = None,
    **setting: object,
) -> Path:
    """Write a sweep. change: by cell, repeats too. made: which cells are there. setting: beside `SETTING`.

    Of carry the source of a prompt is the next one, with its keys and values.
    """
    recipe = {
        "model": {"name": model, "weights": None},
        "prompts": [
            {"prompt": f"a {index} & <{index}> of $5", "seed": 100 + index} for index in range(prompts)
        ],
        "layers": [list(group) for group in groups],
        **{"steps": 2, "guidance": 3.5, "width": size[0], "height": size[1]},
        **{"batch": max(1, noise), "noise_floor": noise, "until": None},
    }
    given = {"name": probe} if isinstance(probe, str) else probe
    if given["name"] == "carry":
        texts = [each["prompt"] for each in recipe["prompts"]]
        given = {"keys": True, "values": True, "sources": texts[1:] + texts[:1], **given}
    if given != {"name": "skip"}:
        recipe["probe"] = given
    if windows:
        recipe["windows"] = [list(window) for window in windows]
    setting = {**SETTING, **setting}
    run = RunFolder.open(folder, recipe, setting)
    plan = plan_of(recipe, setting)
    rows = []
    for cell in filter(made, plan.cells):
        image = drawn(cell.prompt, change(cell), size)
        rows.append(CellRow(cell, plan.identities[cell], save_picture(folder, cell, image, {}), 0.1))
    CellTable(folder).append(rows)
    run.finish({"seconds": {"all": 1.0}})
    return folder


def save_dino(folder: Path) -> Path:
    """A DINO model with random weights."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    shape = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Dinov2Model(shape).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "BitImageProcessor", "do_resize": true, "do_center_crop": false, '
        '"size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    return folder


def save_clip(folder: Path, *, words: bool = False) -> Path:
    """A whole CLIP model, texts and pictures, with random weights. words: with flux-tiny's tokenizer."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    part = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = CLIPConfig(
        text_config={
            **part,
            "vocab_size": 278 if words else 64,
            "max_position_embeddings": 16 if words else 8,
            "eos_token_id": 1 if words else 2,
        },
        vision_config={**part, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(shape).save_pretrained(folder)
    if words:
        shutil.copytree(configs["flux-tiny"].home / "tokenizer", folder, dirs_exist_ok=True)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": {"shortest_edge": 32}, '
        '"do_center_crop": true, "crop_size": {"height": 32, "width": 32}, "do_normalize": true, '
        '"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "do_rescale": true, '
        '"do_convert_rgb": true}'
    )
    return folder


def own_probe(layer: int):
    """A user's own probe: a layer is skipped."""
    from flux.hooks import Hooks

    return Hooks(skip=[layer])


def broken_probe(layer: int):
    """A user's own probe with a mistake in it."""
    raise KeyError("x")


def numbers_probe(layer: int):
    """A user's own probe that gives no hooks."""
    return layer
