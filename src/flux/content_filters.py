"""The filters of Kontext's command: a 12 B model that looks at prompts and pictures, and the NSFW classifier.

The model answers yes or no: of its next token, only these two are let through.
"""

import math
import warnings
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from flux.modules.pretrained import load_whole
from flux.pictures.features import image_processor, pretrained
from flux.pictures.files import to_pil
from flux.pictures.opening import open_picture
from flux.pictures.safety import NSFW_THRESHOLD, is_nsfw, load_nsfw_classifier
from flux.weights.hub import cached_file

PROMPT_IMAGE_INTEGRITY = """\
Look at this picture and say in one or two sentences what it shows. Name every person in it that you know
from public life, every character of a film, a game, a book or a comic, and every logo or brand that fills a
good part of it. Say so if there is none of these."""

PROMPT_IMAGE_INTEGRITY_FOLLOW_UP = """\
Is a real person that the public knows shown in this picture, or a character or a logo that somebody owns the
rights of, as its main subject? Answer with one word, yes or no."""

PROMPT_TEXT_INTEGRITY = """\
A picture is to be made from the words between the lines.
---
{prompt}
---
Do these words ask for a real person that the public knows, by name or so that one cannot be mistaken for
another, or for a character or a logo that somebody owns the rights of, or for a sexual or a cruel picture of
anybody? Common things, animals, people without a name, styles of old painters and texts to be written are no
reason. Answer with one word, yes or no."""

MOST_PIXELS = 512**2
"""Pictures are shown to the model no larger: it reads a token per 16 x 16 pixels."""

DESCRIPTION = 120  # tokens


class PixtralContentFilter(nn.Module):
    """Whether a prompt or a picture is better not used: `test_txt`, `test_image`; True is what to stop at.

    nsfw_threshold: from which score of the NSFW classifier on a picture is stopped at.
    Raises OSError or ValueError, one line, where the model cannot be had.
    """

    pixtral_model_name = "mistral-community/pixtral-12b"

    def __init__(
        self,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - upstream's default
        nsfw_threshold: float = NSFW_THRESHOLD,
    ) -> None:
        from transformers import AutoTokenizer, LlavaForConditionalGeneration

        super().__init__()
        name = self.pixtral_model_name
        self.tokenizer = pretrained(AutoTokenizer.from_pretrained, name)
        self.image_processor = pretrained(image_processor, name)
        load = partial(load_whole, LlavaForConditionalGeneration)
        model = pretrained(load, name, dtype=torch.bfloat16)
        self.model = model.eval().requires_grad_(False).to(device)
        self.yes_token, self.no_token = (self._ids(word)[0] for word in ("yes", "no"))
        self.nsfw_classifier = load_nsfw_classifier(device)
        self.nsfw_threshold = nsfw_threshold

    def yes_no_logit_processor(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores of the next token, (B, vocabulary), with all but yes and no out of the question."""
        asked = [self.yes_token, self.no_token]
        answers = torch.full_like(scores, -math.inf)
        return answers.index_copy(1, torch.tensor(asked, device=scores.device), scores[:, asked])

    @torch.no_grad()
    def test_image(self, image: Image.Image | str | Tensor) -> bool:
        """Of a picture, its file, or RGB in [-1, 1], (3, H, W) or (1, 3, H, W)."""
        if isinstance(image, Tensor):
            image = to_pil(image.reshape(-1, *image.shape[-3:])[0])
        elif not isinstance(image, Image.Image):
            image = open_picture(Path(image))
        if self.nsfw_classifier is not None and is_nsfw(self.nsfw_classifier, image, self.nsfw_threshold):
            return True
        image = _at_most(image.convert("RGB"), MOST_PIXELS)
        seen = self.image_processor(images=[image], return_tensors="pt")
        height, width = (int(side) for side in seen["image_sizes"][0])
        pictures = {
            "pixel_values": seen["pixel_values"].to(self.model.device, self.model.dtype),
            "image_sizes": torch.tensor([[height, width]], device=self.model.device),
        }
        question = [
            *self._special("[INST]"),
            *self._ids(PROMPT_IMAGE_INTEGRITY),
            *self._picture(height, width),
        ]
        chat = [self.tokenizer.bos_token_id, *question, *self._special("[/INST]")]
        described = self._generate(chat, DESCRIPTION, **pictures)
        end = self.tokenizer.eos_token_id
        told = [token for token in described if token != end]
        return self._says_yes([*chat, *told, end, *self._asked(PROMPT_IMAGE_INTEGRITY_FOLLOW_UP)], **pictures)

    @torch.no_grad()
    def test_txt(self, txt: str) -> bool:
        """Of a prompt."""
        for word in self.tokenizer.all_special_tokens:  # which would end the question
            txt = txt.replace(word, " ")
        question = PROMPT_TEXT_INTEGRITY.replace("{prompt}", txt)
        return self._says_yes([self.tokenizer.bos_token_id, *self._asked(question)])

    def _says_yes(self, ids: list[int], **pictures: Tensor) -> bool:
        (answer,) = self._generate(ids, 1, logits_processor=[self.yes_no_logit_processor], **pictures)
        return answer == self.yes_token

    def _generate(self, ids: list[int], most: int, **more) -> list[int]:
        """The tokens that follow, the likeliest each."""
        given = torch.tensor([ids], device=self.model.device)
        mask = torch.ones_like(given)
        options = {"max_new_tokens": most, "do_sample": False, "pad_token_id": self.tokenizer.eos_token_id}
        made = self.model.generate(input_ids=given, attention_mask=mask, **options, **more)
        return made[0, len(ids) :].tolist()

    def _asked(self, question: str) -> list[int]:
        return [*self._special("[INST]"), *self._ids(question), *self._special("[/INST]")]

    def _picture(self, height: int, width: int) -> list[int]:
        """The tokens that stand for a picture, row by row: a break behind each, an end behind the last."""
        patch = self.model.config.vision_config.patch_size * getattr(
            self.model.config, "spatial_merge_size", 1
        )
        each, stop, end = self._special("[IMG]", "[IMG_BREAK]", "[IMG_END]")
        rows = ([each] * (width // patch) + [stop]) * (height // patch)
        return [*rows[:-1], end]

    def _special(self, *words: str) -> list[int]:
        return self.tokenizer.convert_tokens_to_ids(list(words))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


def load_content_filter(device: torch.device | str = "cpu") -> PixtralContentFilter | None:
    """The filter, if its model is in the hub's cache; None, with a warning, where it is not or fails.

    It is 25 GB, which is not downloaded unasked.
    """
    name = PixtralContentFilter.pixtral_model_name
    reason = "it is not in the hub's cache"
    if Path(name).is_dir() or cached_file(name, "config.json") is not None:
        try:
            return PixtralContentFilter(torch.device(device))
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())
    warnings.warn(
        f"prompts and pictures are not filtered, for {name} could not be loaded ({reason}); get its 25 GB "
        f"with: hf download {name}",
        stacklevel=2,
    )
    return None


def _at_most(image: Image.Image, pixels: int) -> Image.Image:
    """The picture, scaled down if it has more pixels."""
    scale = math.sqrt(pixels / (image.width * image.height))
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
