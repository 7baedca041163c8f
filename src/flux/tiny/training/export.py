"""Write trained parts in the layout of a FLUX repository, small: bfloat16 or float16 where that costs
nothing."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from flux.files import write_atomically
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.tiny.judge import Judge


def save_flow(flow: Flux, repo: Path) -> None:
    _save(flow, repo / "flux1-tiny.safetensors", torch.bfloat16)


def save_autoencoder(ae: AutoEncoder, repo: Path) -> None:
    _save(ae, repo / "ae.safetensors", torch.float16)


def save_judge(judge: Judge, repo: Path) -> None:
    _save(judge, repo / "judge.safetensors", torch.float16)


def save_clip(clip: nn.Module, folder: Path) -> None:
    """A CLIP text model under the names of the official files, which every release of transformers reads.

    Of its own accord transformers 5 leaves the prefix out, and 4 then finds none of the weights.
    """
    clip.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in load_file(file).items()}
    write_tensors(tensors, file)


def _save(model: nn.Module, path: Path, dtype: torch.dtype) -> None:
    tensors = {name: p.detach().to("cpu", dtype).contiguous() for name, p in model.state_dict().items()}
    write_tensors(tensors, path)


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Like safetensors' `save_file`, which makes files that nobody else may read."""
    write_atomically(path, save(tensors, metadata={"format": "pt"}))
