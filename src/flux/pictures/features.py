"""Features of pictures: DINOv2 and CLIP through `transformers`.

What a model says of a picture is kept by `flux.pictures.feature_cache`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flux.modules.pretrained import check_pretrained, in_one_line, load_whole
from flux.pictures.rgb import rgb
from flux.weights.hub import require_hub

TOKENS = ("class", "patches")
"""Where DINO's features come from: the class token, or the mean of the patch tokens."""

SHALLOW = 4
"""DINO models of so many blocks or fewer, such as flux-tiny's, tell pictures apart best after the first one.

On rendered scenes: rank correlation with the truth .900 after it, .825 after the last. Which block of DINOv2
serves best is unknown; its last one is safe.
"""

LONGEST = 8
"""So many times its shorter side is seen of a picture at most: 20000 x 10 pixels became 512000 x 256."""


class Dino:
    """DINOv2 features through `transformers`.

    source: a hub name, or a folder with the model and its `preprocessor_config.json`.
    token: what `features` returns, see `TOKENS`.
    Raises OSError or ValueError where there is no such model, ImportError where `transformers` is missing.
    """

    kinds = TOKENS

    def __init__(
        self,
        source: str | Path,
        device: str | torch.device = "cpu",
        *,
        dtype: torch.dtype = torch.float32,
        token: str = "class",
    ):
        from transformers import AutoModel

        self.source, self.token = str(source), token
        self.processor = pretrained(image_processor, self.source)
        model = pretrained(partial(load_whole, AutoModel, unused=("pooler.",)), self.source)
        self.model = model.eval().requires_grad_(False).to(device, dtype)
        # Models with registers keep them between the class token and the patches.
        self._patches = 1 + getattr(self.model.config, "num_register_tokens", 0)

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """The chosen token of each picture, scaled to length 1: float32 (N, C) on the CPU."""
        return self._tokens(images)[:, TOKENS.index(self.token)]

    @torch.inference_mode()
    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Every kind of feature of each picture, scaled to length 1: float32 (N, 2, C), as in `kinds`."""
        return self._tokens(images).numpy()

    def _tokens(self, images: Sequence[Image.Image]) -> Tensor:
        hidden = self.model(_pixels(self.processor, images, self.model)).last_hidden_state.float()
        tokens = torch.stack((hidden[:, 0], hidden[:, self._patches :].mean(dim=1)), dim=1)
        return torch.nn.functional.normalize(tokens, dim=-1).cpu()

    @torch.inference_mode()
    def patches(
        self, images: Sequence[Image.Image], block: int | None = None, *, scaled: bool = True
    ) -> Tensor:
        """The patch tokens of each picture, scaled to length 1: float32 (N, patches, C) on the CPU.

        Of the whole picture, made square: nothing is cut off. block: after which block, 0 for the embedding;
        None for the last, or the first of a model of `SHALLOW` blocks or fewer. scaled: False as they are.
        """
        if block is None and self.model.config.num_hidden_layers <= SHALLOW:
            block = 1
        pixels = _pixels(self.processor, images, self.model, whole=True)
        found = self.model(pixels, output_hidden_states=block is not None)
        hidden = found.last_hidden_state if block is None else found.hidden_states[block]
        tokens = hidden[:, self._patches :].float()
        return (torch.nn.functional.normalize(tokens, dim=-1) if scaled else tokens).cpu()

    def similarity(self, a: Image.Image, b: Image.Image) -> float:
        """The cosine of two pictures' features, -1 to 1."""
        first, second = self.features([a, b])
        return float(first @ second)


class Clip:
    """CLIP's image features, in the space it shares with texts. source and errors: as for `Dino`."""

    kinds = ("image",)

    def __init__(
        self,
        source: str | Path,
        device: str | torch.device = "cpu",
        *,
        dtype: torch.dtype = torch.float32,
    ):
        from transformers import AutoConfig, CLIPVisionModelWithProjection

        self.source = str(source)
        self.processor = pretrained(image_processor, self.source)
        config = pretrained(AutoConfig.from_pretrained, self.source)
        if hasattr(config, "vision_config"):  # of a whole CLIP, whose width of the shared space counts
            config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
        model = pretrained(partial(load_whole, CLIPVisionModelWithProjection), self.source, config=config)
        self.model = model.eval().requires_grad_(False).to(device, dtype)

    @torch.inference_mode()
    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """The projected feature of each picture, scaled to length 1: float32 (N, 1, C)."""
        found = self.model(_pixels(self.processor, images, self.model)).image_embeds.float()
        return torch.nn.functional.normalize(found, dim=-1)[:, None].cpu().numpy()


def image_processor(source: str, **options: Any) -> Any:
    """What prepares pictures for a model. Without torchvision it is the one by Pillow.

    `AutoImageProcessor` finds that one in most releases of transformers; in some, such as 5.6, it asks for
    torchvision before it looks.
    """
    import transformers

    try:
        return transformers.AutoImageProcessor.from_pretrained(source, **options)
    except ImportError:
        settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source, **options)
        old = settings.get("feature_extractor_type", "").replace("FeatureExtractor", "ImageProcessor")
        name = settings.get("image_processor_type", old).removesuffix("Fast")
        if not hasattr(transformers, f"{name}Pil"):
            raise
        return getattr(transformers, f"{name}Pil").from_pretrained(source, **options)


def _pixels(processor, images: Sequence[Image.Image], model: torch.nn.Module, whole: bool = False) -> Tensor:
    """One picture at a time, so that no more than one is held at its full size. whole: none is cut."""
    options = {"do_center_crop": False, "size": _seen(processor)} if whole else {}
    prepared = [
        processor(
            images=[rgb(image) if whole else _middle(rgb(image), processor)], return_tensors="pt", **options
        )
        for image in images
    ]
    return torch.cat([each["pixel_values"] for each in prepared]).to(model.device, model.dtype)


def _seen(processor) -> dict[str, int]:
    """The height and width of what the model sees, in pixels."""
    size = dict((processor.crop_size if processor.do_center_crop else processor.size) or {})
    side = size.get("shortest_edge")
    return {each: size.get(each, side) for each in ("height", "width")}


def _middle(image: Image.Image, processor) -> Image.Image:
    """Of a very long picture the middle, where the processor cuts that out after it has scaled the rest."""
    if "shortest_edge" not in dict(processor.size or {}):
        return image
    width, height = image.size
    most = LONGEST * min(width, height)
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return image.crop((left, top, width - left, height - top)) if left or top else image


def pretrained(load: Callable[..., Any], source: str, **options: Any) -> Any:
    """From the folder or the hub's cache; only where it is in neither from the hub itself."""
    try:
        with in_one_line(source):
            if Path(source).is_dir():
                check_pretrained(Path(source))
            return load(source, local_files_only=True, **options)
    except OSError as error:
        if Path(source).is_dir():
            raise
        try:
            require_hub()
        except OSError as silent:
            raise OSError(
                f"it is no folder here, nor in the hub's cache, and {silent}: name a folder, or once there "
                f"is a network get it with: hf download {source}"
            ) from error
        return load(source, **options)
