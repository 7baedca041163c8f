"""Words of a prompt as the tokens that a text encoder reads them as. Imports no torch."""

import re
from collections.abc import Iterator, Sequence

Spans = Sequence[tuple[int, int]]
"""Of each token, padding aside, where it starts and stops in the prompt; equal if it stands for no letter."""


def places_of(word: str, prompt: str) -> Iterator[tuple[int, int]]:
    """Where a word, or several in a row, stands in a prompt, whole; capitals do not matter."""
    pattern = r"\s+".join(map(re.escape, word.split()))
    for found in re.finditer(rf"(?<!\w){pattern}(?!\w)", prompt, re.IGNORECASE):
        yield found.span()


def tokens_of(word: str, prompt: str, spans: Spans) -> tuple[int, ...]:
    """The numbers of the tokens that a word is read as, at every place where it stands in the prompt.

    A token belongs to the word if a letter of it does; a blank alone does not count. Empty where the word is
    not in the prompt, or behind the tokens that are read.
    """
    return tuple(
        index
        for index, (start, stop) in enumerate(spans)
        if any(prompt[max(start, a) : min(stop, b)].strip() for a, b in places_of(word, prompt))
    )


def words_by_token(prompt: str, spans: Spans) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The words of a prompt in order, as they stand between blanks, each with its tokens."""
    for found in re.finditer(r"\S+", prompt):
        a, b = found.span()
        yield found[0], tuple(i for i, (start, stop) in enumerate(spans) if max(start, a) < min(stop, b))
