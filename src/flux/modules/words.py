"""Words of a prompt as the tokens that a text encoder reads them as. Imports no torch."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

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


def differing_tokens(
    prompts: tuple[str, str], spans: tuple[Spans, Spans]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of the words that two prompts do not share in order: those of the first, of the second.

    Capitals and marks around a word do not matter.
    """
    words = [list(words_by_token(*each)) for each in zip(prompts, spans, strict=True)]
    plain = [[word.strip(".,;:!?\"'()").casefold() for word, _ in each] for each in words]
    differ: tuple[list[int], list[int]] = ([], [])
    for tag, *ends in SequenceMatcher(None, *plain, autojunk=False).get_opcodes():
        if tag != "equal":
            for side, (start, stop) in enumerate((ends[:2], ends[2:])):
                differ[side].extend(token for _, tokens in words[side][start:stop] for token in tokens)
    return tuple(differ[0]), tuple(differ[1])
