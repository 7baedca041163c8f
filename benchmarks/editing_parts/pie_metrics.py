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
    """What the folder's edits are held against. clip: how well a picture, uint8, fits a prompt."""

    tasks: TaskSet
    structure: Distance
    lpips: Distance
    clip: Callable[[np.ndarray, str], float]

    def measure(self, pictures: np.ndarray) -> Figures:
        """All columns that pictures alone tell."""
        rows = [self._row(*each) for each in zip(range(len(pictures)), pictures)]  # noqa: B905
        return {name: [row[name] for row in rows] for name in rows[0]}

    @torch.inference_mode()
    def _row(self, index: int, picture: np.ndarray) -> dict[str, float]:
        images = need("torchmetrics", "bench", "PIE-Bench's metrics").functional.image
        photo, prompt = self.tasks.photos[index], self.tasks.pairs[index].prompts[1]
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
        found["clip"] = self.clip(picture, prompt)
        found["clip_edited"] = (
            self.clip(np.where(edited, picture, 0).astype(np.uint8), prompt) if edited.any() else float("nan")
        )
        return found


def _tensor(picture: np.ndarray) -> Tensor:
    return to_model(picture[None])


def squeeze_lpips() -> Distance:
    """LPIPS by SqueezeNet, whose weights torchvision downloads once. ImportError names what is missing."""
    need("torchvision", "bench", "LPIPS")
    image = need("torchmetrics.image.lpip", "bench", "LPIPS")
    return image.LearnedPerceptualImagePatchSimilarity(net_type="squeeze").eval()


def clip_score(source: str = CLIP) -> Callable[[np.ndarray, str], float]:
    """100 times the cosine of a picture and a prompt, not below 0 (arXiv 2104.08718 without its factor)."""
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    clip = Clip(source)
    tokenizer = pretrained(AutoTokenizer.from_pretrained, source)
    text = pretrained(partial(load_whole, CLIPTextModelWithProjection), source, config=_text_config(source))
    text = text.eval().requires_grad_(False)
    most = text.config.max_position_embeddings

    def score(picture: np.ndarray, prompt: str) -> float:
        read = tokenizer([prompt], return_tensors="pt", truncation=True, max_length=most)
        said = text(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).text_embeds[0]
        seen = torch.from_numpy(clip.embed([Image.fromarray(picture)])[0, 0])
        return max(0.0, 100 * float(functional.cosine_similarity(seen, said.float(), dim=0)))

    return score


def _text_config(source: str):
    from transformers import AutoConfig

    config = pretrained(AutoConfig.from_pretrained, source)
    if not hasattr(config, "text_config"):
        return config
    config.text_config.projection_dim = config.projection_dim
    return config.text_config


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
    return partial(PieYardstick, structure=structure_distance(dino), lpips=lpips, clip=clip_score(clip))
