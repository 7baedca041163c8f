"""The results of a text encoder in its place, so that the encoder need not stay in memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from flux.modules.words import Spans


class KnownTexts(nn.Module):
    """Prompts that an encoder has read, each by itself. Holds no reference to the encoder.

    The results wait on the CPU, for `prepare` to take them to where they are needed.
    """

    @torch.no_grad()
    def __init__(self, encoder: nn.Module, prompts: Iterable[str]):
        super().__init__()
        prompts = list(dict.fromkeys(prompts))
        self._texts = {prompt: encoder([prompt]).cpu() for prompt in prompts}
        spans = getattr(encoder, "spans", lambda prompt: None)
        self._spans = {prompt: spans(prompt) for prompt in prompts}

    def spans(self, prompt: str) -> Spans | None:
        """As the encoder's."""
        return self._spans[prompt]

    def forward(self, text: list[str]) -> Tensor:
        """As the encoder's, (B, ...). Raises ValueError for a prompt that it was not given before."""
        unknown = next((prompt for prompt in text if prompt not in self._texts), None)
        if unknown is not None:
            raise ValueError(
                f"the model was not loaded for the prompt {unknown!r}: load it with this prompt too, or "
                "without prompts"
            )
        return torch.cat([self._texts[prompt] for prompt in text])
