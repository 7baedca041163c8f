"""What Control and Redux models see of a picture: its edges by OpenCV, its depths and its meaning by models.

Models come from the hub's cache or the hub, or from a folder whose name stands in the class's place for it.
"""

from functools import partial
from pathlib import Path

import torch
from einops import repeat
from PIL import Image
from torch import Tensor, nn

from flux.formats.fill import load_into
from flux.modules.pretrained import load_whole
from flux.pictures.features import image_processor, pretrained


class DepthImageEncoder:
    """Depths of pictures by Depth Anything, near is bright."""

    depth_model_name = "LiheYoung/depth-anything-large-hf"

    def __init__(self, device: torch.device | str):
        from transformers import AutoModelForDepthEstimation

        self.device = device
        self.processor = pretrained(image_processor, self.depth_model_name)
        model = pretrained(partial(load_whole, AutoModelForDepthEstimation), self.depth_model_name)
        self.depth_model = model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, img: Tensor) -> Tensor:
        """RGB in [-1, 1], (B, 3, H, W), to its depths, three equal channels of that size, where 255 is 1."""
        pictures = list(_bytes(img).cpu())
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        model = self.depth_model
        depth = model(pixels.to(self.device, model.dtype)).predicted_depth  # (B, h, w)
        drawn = repeat(depth.float(), "b h w -> b c h w", c=3)
        drawn = nn.functional.interpolate(drawn, img.shape[-2:], mode="bicubic", antialias=True)
        return drawn / 127.5 - 1


class CannyImageEncoder:
    """Edges of pictures by Canny's detector. min_t, max_t: its thresholds of weak and of sure edges."""

    def __init__(self, device: torch.device | str, min_t: int = 50, max_t: int = 200):
        self.device = device
        self.min_t = min_t
        self.max_t = max_t

    def __call__(self, img: Tensor) -> Tensor:
        """RGB in [-1, 1], (1, 3, H, W), to its edges, three equal channels of -1 and 1.

        Raises ValueError for more than one picture.
        """
        import cv2

        if len(img) != 1:
            raise ValueError(f"edges are drawn of one picture at a time; got {len(img)}")
        picture = _bytes(img)[0].permute(1, 2, 0).contiguous().cpu().numpy()
        edges = torch.from_numpy(cv2.Canny(picture, self.min_t, self.max_t))  # (H, W) of 0 and 255
        return repeat(edges.float() / 127.5 - 1, "h w -> 1 c h w", c=3).to(self.device)


class ReduxImageEncoder(nn.Module):
    """A picture as tokens that stand behind T5's: SigLIP, and the projector of FLUX.1-Redux.

    redux_path: the projector's file. redux_dim: width of SigLIP. txt_in_features: width of T5.
    Raises CheckpointError for a file that holds no such projector, OSError where SigLIP cannot be had.
    """

    siglip_model_name = "google/siglip-so400m-patch14-384"

    def __init__(
        self,
        device: torch.device | str,
        redux_path: str | Path,
        redux_dim: int = 1152,
        txt_in_features: int = 4096,
        dtype: torch.dtype = torch.bfloat16,
    ):
        from transformers import SiglipVisionModel

        super().__init__()
        self.device = device
        self.dtype = dtype
        with torch.device("meta"):
            projector = nn.ModuleDict(
                {
                    "redux_up": nn.Linear(redux_dim, 3 * txt_in_features),
                    "redux_down": nn.Linear(3 * txt_in_features, txt_in_features),
                }
            )
        load_into(projector, Path(redux_path), device, dtype)
        self.redux_up, self.redux_down = projector["redux_up"], projector["redux_down"]
        self.processor = pretrained(image_processor, self.siglip_model_name)
        self.siglip = pretrained(
            partial(load_whole, SiglipVisionModel, unused=("vision_model.head.", "head.")),
            self.siglip_model_name,
        ).to(device, dtype)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, x: Image.Image) -> Tensor:
        """A picture of any size to its tokens, (1, 729, 4096) for the official weights."""
        pixels = self.processor(images=[x], return_tensors="pt")["pixel_values"]
        seen = self.siglip(pixels.to(self.device, self.dtype)).last_hidden_state  # (1, 729, 1152)
        return self.redux_down(nn.functional.silu(self.redux_up(seen)))


def _bytes(img: Tensor) -> Tensor:
    """RGB in [-1, 1] as levels of 8 bits, rounded: of a picture file those that it holds."""
    return ((img.float().clamp(-1, 1) + 1) * 127.5).round().byte()
