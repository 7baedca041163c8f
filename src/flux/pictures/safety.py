"""The NSFW check of finished pictures."""

import warnings
from collections.abc import Callable

import torch
from PIL import Image

from flux.modules.pretrained import quiet_loading
from flux.weights.hub import require_hub

NSFW_MODEL = "Falconsai/nsfw_image_detection"
NSFW_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
NSFW_THRESHOLD = 0.85

Classifier = Callable[[Image.Image], list[dict]]
"""Takes a picture and returns `{"label": ..., "score": ...}` for each class, "nsfw" among them."""


def load_nsfw_classifier(device: str | torch.device = "cpu") -> Classifier | None:
    """The classifier, from the hub's cache or downloaded; None, with a warning, where it cannot be had."""
    try:
        folder = _classifier_folder()
        from transformers import pipeline  # takes seconds

        with quiet_loading():
            return pipeline("image-classification", model=folder, device=device)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".:")
        warnings.warn(
            f"pictures are not checked for NSFW content, for {NSFW_MODEL} could not be loaded ({reason}); "
            f"once there is a network, get it with: hf download {NSFW_MODEL}",
            stacklevel=2,
        )
        return None


def is_nsfw(classifier: Classifier, image: Image.Image, threshold: float = NSFW_THRESHOLD) -> bool:
    """Whether the classifier's score for "nsfw" reaches `threshold`."""
    scores = {entry["label"]: entry["score"] for entry in classifier(image)}
    return scores.get("nsfw", 0.0) >= threshold


def _classifier_folder() -> str:
    """Where the classifier's files are, downloaded first if need be; OSError if they cannot be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return snapshot_download(NSFW_MODEL, allow_patterns=NSFW_FILES, local_files_only=True)
    except LocalEntryNotFoundError:
        require_hub()
        return snapshot_download(NSFW_MODEL, allow_patterns=NSFW_FILES)
