"""Did an edit go the way of its words? CLIP's directions from a source to its edit, of pictures and texts."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flux.modules.pretrained import load_whole
from flux.pictures.features import Clip, pretrained

UNSEEN = 1e-3
"""An edit that goes less far along its texts than this, of 2 at most, is one that CLIP does not see."""


class ClipTexts:
    """CLIP's features of texts, in the space they share with `Clip`'s of pictures. Errors: as for `Dino`."""

    def __init__(self, source: str | Path, device: str | torch.device = "cpu"):
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection

        self.source = str(source)
        self.tokenizer = pretrained(AutoTokenizer.from_pretrained, self.source)
        config = pretrained(AutoConfig.from_pretrained, self.source)
        if hasattr(config, "text_config"):  # of a whole CLIP, whose width of the shared space counts
            config.text_config.projection_dim = config.projection_dim
            config = config.text_config
        self.longest = config.max_position_embeddings
        model = pretrained(partial(load_whole, CLIPTextModelWithProjection), self.source, config=config)
        self.model = model.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """The projected feature of each text, scaled to length 1, of its first tokens: float32 (N, C)."""
        found = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.model.device)
        features = self.model(found["input_ids"], attention_mask=found["attention_mask"]).text_embeds.float()
        return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()


class Directions:
    """How far edits go along the way from the text of the source to that of the edit, by CLIP."""

    def __init__(self, clip: Clip, texts: ClipTexts):
        self.clip, self.texts = clip, texts

    def share(
        self, words: tuple[str, str], source: Image.Image, wanted: Image.Image, edit: Image.Image
    ) -> float:
        """Of the way that the wanted picture goes from the source along that of the words, the edit's share,
        0 to 1; 1 where the wanted one goes no way that CLIP sees, since then nothing can be missed."""
        before, after = self.texts.embed(words)
        way = (after - before) / max(float(np.linalg.norm(after - before)), 1e-12)
        start, whole, gone = self.clip.embed([source, wanted, edit])[:, 0] @ way
        return 1.0 if whole - start < UNSEEN else float(np.clip((gone - start) / (whole - start), 0, 1))
