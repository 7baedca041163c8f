"""What was watched of one picture, as a file that tables and overlays are made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from flux.modules.words import Spans, words_by_token


@dataclass(frozen=True)
class WatchedPicture:
    """The attention of one picture, by layer and step. T steps, l layers, P places, W words.

    spans: of the tokens that its prompt is read as, see `flux.modules.words`. layers: their numbers.
    looking: the layers in which the picture's own tokens are replaced by the source's. times: where each step
    starts, from 1. places: the image tokens of each, by name. words: the text tokens of each.
    from_places: (l, T, P, L), over text tokens and then the picture's; to_words: (l, T, W, L_img). Both are
    float16 and times the uniform share. shares: (l, T, P, 3), of text, picture and references.
    """

    prompt: str
    spans: Spans
    layers: tuple[int, ...]
    looking: tuple[int, ...]
    times: tuple[float, ...]
    places: Mapping[str, Sequence[int]]
    words: Mapping[str, Sequence[int]]
    from_places: Tensor
    to_words: Tensor
    shares: Tensor

    @property
    def txt_len(self) -> int:
        return self.from_places.shape[-1] - self.to_words.shape[-1]

    @cached_property
    def on_prompt(self) -> Tensor:
        """The share of each place's attention that goes to tokens of the prompt's words, (l, T, P).

        The rest of the text is its end and padding, which the model reads as any token.
        """
        read = [i for i, (start, stop) in enumerate(self.spans) if start < stop]
        return self.from_places[..., read].float().sum(dim=-1) / self.length

    @property
    def length(self) -> int:
        """How many tokens attention is spread over: text and picture."""
        return self.from_places.shape[-1]

    def by_word(self, place: int) -> list[tuple[str, Tensor]]:
        """How a place's attention to the prompt is spread: its words in order, each (l, T), times uniform.

        Of a word of several tokens the mean.
        """
        found = self.from_places[:, :, place].float()
        return [
            (word, found[..., list(tokens)].mean(dim=-1))
            for word, tokens in words_by_token(self.prompt, self.spans)
            if tokens
        ]

    def to_bytes(self) -> bytes:
        """As safetensors, the same bytes for the same numbers."""
        about = {
            "prompt": self.prompt,
            "spans": [list(span) for span in self.spans],
            "layers": list(self.layers),
            "looking": list(self.looking),
            "times": list(self.times),
            "places": {name: list(tokens) for name, tokens in self.places.items()},
            "words": {word: list(tokens) for word, tokens in self.words.items()},
        }
        tensors = {name: getattr(self, name).contiguous() for name in ("from_places", "to_words", "shares")}
        # In one text: of several, the file does not keep the order.
        return save(tensors, metadata={"watched": json.dumps(about, ensure_ascii=False)})

    @staticmethod
    def read(path: Path) -> "WatchedPicture":
        """What a file holds that `to_bytes` gave."""
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["watched"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        named = {key: about[key] for key in ("prompt", "places", "words")}
        lists = {key: tuple(about[key]) for key in ("layers", "looking", "times")}
        return WatchedPicture(spans=[tuple(span) for span in about["spans"]], **named, **lists, **tensors)
