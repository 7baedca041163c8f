"""The metrics of PIE-Bench (arXiv 2310.01506), its models by `torchmetrics` and `transformers`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from editing_parts.measuring import Column, Figures, Measures
from editing_parts.tasks import TaskSet, to_model
from flux.extras import need
from flux.modules.pretrained import load_whole
from flux.pictures.directions import ClipTexts
from flux.pictures.features import Clip, pretrained

CLIP, DINO = "openai/clip-vit-large-patch14", "facebook/dino-vitb8"
LAYER = 11
"""Of DINO, whose keys tell the structure."""
DINO_SIDE = 224
MOST = 60.0
"""dB at which pictures count as alike, for a mean that stays finite."""

MEASURES = Measures(
    (
        Column("structure", "structure distance x 1000: of DINO's self-similarities, whole picture"),
        Column("psnr", "PSNR to the source in dB, background"),
        Column("lpips", "LPIPS x 1000 to the source by SqueezeNet, background"),
        Column("ssim", "SSIM x 100 to the source, background"),
        Column("psnr_whole", "PSNR to the source in dB, whole picture"),
        Column("lpips_whole", "LPIPS x 1000 to the source, whole picture"),
        Column("ssim_whole", "SSIM x 100 to the source, whole picture"),
        Column("clip", "CLIP score with the edit's prompt, whole picture", "{:.2f}"),
        Column("clip_edited", "CLIP score with the edit's prompt, edited region", "{:.2f}"),
        Column("clip_image", "100 times the cosine of source and edit, by CLIP, whole picture", "{:.2f}"),
        Column(
            "clip_direction",
            "100 times the cosine of the ways from source to edit, of pictures and of prompts, by CLIP",
            "{:.2f}",
        ),
        Column("share", "share of the picture that its mask covers", "{:.3f}", paired=False),
        Column("evaluations", "evaluations of the model for one row, its source's included"),
        Column("rebuilt", "PSNR to the autoencoder's reconstruction when nothing is asked, dB", paired=False),
    ),
    decisive=("clip_edited", "psnr"),
    by_kind=("psnr", "clip_edited"),
    axes=("psnr", "clip_edited"),
)


Distance = Callable[[Tensor, Tensor], Tensor]
"""Takes two pictures, RGB in [-1, 1], (1, 3, H, W); returns how far apart they are."""


@dataclass(frozen=True)
class PieYardstick:
    """What the folder's edits are held against."""

    tasks: TaskSet
    structure: Distance
    lpips: Distance
    clip: "ClipScores"

    def measure(self, pictures: np.ndarray) -> Figures:
        """All columns that pictures alone tell."""
        rows = [self._row(*each) for each in zip(range(len(pictures)), pictures)]  # noqa: B905
        return {name: [row[name] for row in rows] for name in rows[0]}

    @torch.inference_mode()
    def _row(self, index: int, picture: np.ndarray) -> dict[str, float]:
        images = need("torchmetrics", "bench", "PIE-Bench's metrics").functional.image
        photo, prompts = self.tasks.photos[index], self.tasks.pairs[index].prompts
        edited = self.tasks.differs[index][..., None]
        found = {"structure": 1000 * float(self.structure(*map(_tensor, (photo, picture))))}
        for name, where in (("", ~edited), ("_whole", np.ones_like(edited))):
            # As in the benchmark both are black elsewhere, which counts.
            a, b = (np.where(where, each, 0).astype(np.uint8) for each in (photo, picture))
            if not where.any():
                found |= dict.fromkeys((f"psnr{name}", f"lpips{name}", f"ssim{name}"), float("nan"))
                continue
            both = [(_tensor(each) + 1) / 2 for each in (b, a)]
            psnr = float(images.peak_signal_noise_ratio(*both, data_range=1.0))
            found[f"psnr{name}"] = min(psnr, MOST)
            found[f"lpips{name}"] = 1000 * float(self.lpips(_tensor(a), _tensor(b)))
            found[f"ssim{name}"] = 100 * float(
                images.structural_similarity_index_measure(*both, data_range=1.0)
            )
        cut_out = np.where(edited, picture, 0).astype(np.uint8)
        found["clip"] = self.clip.text(picture, prompts[1])
        found["clip_edited"] = self.clip.text(cut_out, prompts[1]) if edited.any() else float("nan")
        found["clip_image"] = self.clip.image(photo, picture)
        found["clip_direction"] = self.clip.direction((photo, picture), prompts)
        return found


def _tensor(picture: np.ndarray) -> Tensor:
    return to_model(picture[None])


def squeeze_lpips() -> Distance:
    """LPIPS by SqueezeNet, whose weights torchvision downloads once. ImportError names what is missing."""
    need("torchvision", "bench", "LPIPS")
    image = need("torchmetrics.image.lpip", "bench", "LPIPS")
    return image.LearnedPerceptualImagePatchSimilarity(net_type="squeeze").eval()


class ClipScores:
    """What CLIP says of an edit, 100 times cosines; pictures are uint8, (H, W, 3)."""

    def __init__(self, source: str = CLIP):
        self.clip, self.texts = Clip(source), ClipTexts(source)

    def text(self, picture: np.ndarray, prompt: str) -> float:
        """Of a picture and a prompt, not below 0 (arXiv 2104.08718 without its factor)."""
        return max(0.0, _cosine(self._seen(picture)[0], self.texts.embed([prompt])[0]))

    def image(self, photo: np.ndarray, picture: np.ndarray) -> float:
        """Of a source and its edit."""
        return _cosine(*self._seen(photo, picture))

    def direction(self, pictures: tuple[np.ndarray, np.ndarray], prompts: tuple[str, str]) -> float:
        """Of the ways from source to edit, of pictures and of prompts (arXiv 2108.00946); 0 for no way."""
        (photo, picture), (before, after) = self._seen(*pictures), self.texts.embed(prompts)
        return _cosine(picture - photo, after - before)

    def _seen(self, *pictures: np.ndarray) -> np.ndarray:
        return self.clip.embed([Image.fromarray(each) for each in pictures])[:, 0]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 100 * float(a @ b) / lengths if lengths > 1e-12 else 0.0


def structure_distance(source: str = DINO) -> Distance:
    """The mean squared difference of two pictures' self-similarities, which the keys of DINO's layer 11 tell.

    arXiv 2201.00424. The self-similarity is the cosine of each two tokens' keys.
    """
    from transformers import ViTModel

    model = pretrained(partial(load_whole, ViTModel, unused=("pooler.",)), source)
    model = model.eval().requires_grad_(False)
    keys: list[Tensor] = []
    _key_layer(model, LAYER).register_forward_hook(lambda _, __, out: keys.append(out))
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def similarities(picture: Tensor) -> Tensor:
        small = functional.interpolate(
            (picture + 1) / 2, (DINO_SIDE, DINO_SIDE), mode="bilinear", antialias=True
        )
        keys.clear()
        model((small - mean) / std)
        unit = functional.normalize(keys[0][0].float(), dim=-1)  # (T, C), all heads side by side
        return unit @ unit.T

    return lambda a, b: functional.mse_loss(similarities(a), similarities(b))


def _key_layer(model: torch.nn.Module, layer: int) -> torch.nn.Module:
    """The part that makes a layer's keys; releases of transformers call it differently."""
    names = dict(model.named_modules())
    for name in (f"encoder.layer.{layer}.attention.attention.key", f"layers.{layer}.attention.k_proj"):
        if name in names:
            return names[name]
    raise ValueError(f"DINO has no layer {layer} whose keys can be read: it should be a ViT of 12 layers")


def load(clip: str = CLIP, dino: str = DINO) -> Callable[[TaskSet], PieYardstick]:
    """The models of all metrics; ImportError or OSError, in one line, for what is missing."""
    need("torchmetrics", "bench", "PIE-Bench's metrics")
    lpips = squeeze_lpips()
    return partial(PieYardstick, structure=structure_distance(dino), lpips=lpips, clip=ClipScores(clip))
