"""Which tokens the words of a prompt are read as, by tokenizers that cut words and that do not."""

import pytest

from flux.models import configs
from flux.modules.conditioner import HFEmbedder
from flux.modules.known_texts import KnownTexts
from flux.modules.words import differing_tokens, places_of, tokens_of, words_by_token

PROMPT = "A tree house, two houses and a House."


def test_words_are_found_whole_wherever_they_stand():
    assert [PROMPT[a:b] for a, b in places_of("house", PROMPT)] == ["house", "House"]
    assert [PROMPT[a:b] for a, b in places_of("tree  house", PROMPT)] == ["tree house"]
    assert not list(places_of("hous", PROMPT))
    assert [*places_of("c++", "c++ or c")] == [(0, 3)]


@pytest.fixture(scope="module")
def sentencepiece():
    """A tokenizer as T5's: pieces of words, a blank as part of the piece behind it, an end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = ["</s>", "<unk>", "▁", "▁a", "▁tree", "▁", "h", "ouse", "▁two", "s", "▁and", ",", ".", "▁A"]
    pieces = list(dict.fromkeys(pieces))
    tokenizer = Tokenizer(models.Unigram([(p, -float(len(pieces) - i)) for i, p in enumerate(pieces)], 1))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 0)])
    return tokenizer


def test_a_word_in_pieces_has_all_of_its_tokens(sentencepiece):
    prompt = "a tree house, two houses"
    read = sentencepiece.encode(prompt)
    assert read.tokens == ["▁a", "▁tree", "▁", "h", "ouse", ",", "▁two", "▁", "h", "ouse", "s", "</s>"]
    # Not the blank alone before it, nor the comma, nor the end.
    assert tokens_of("house", prompt, read.offsets) == (3, 4)
    assert tokens_of("tree house", prompt, read.offsets) == (1, 3, 4)
    assert tokens_of("cat", prompt, read.offsets) == ()
    by_word = dict(words_by_token(prompt, read.offsets))
    assert by_word["a"] == (0,) and by_word["house,"][-3:] == (3, 4, 5) and by_word["houses"][-1] == 10


@pytest.fixture(scope="module")
def t5() -> HFEmbedder:
    return HFEmbedder(str(configs["flux-tiny"].home / "text_encoder_2"), 12, clip=False)


def test_spans_of_flux_tinys_encoder(t5):
    prompt = "a big red House and a small white cat in the snow"
    spans = t5.spans(prompt)
    assert len(spans) == 12 and spans[-1][0] == spans[-1][1]  # the end, behind eleven words
    assert [prompt[a:b] for a, b in spans[:-1]] == prompt.split()[:11]
    assert tokens_of("house", prompt, spans) == (3,)
    assert tokens_of("a", prompt, spans) == (0, 5)
    assert tokens_of("snow", prompt, spans) == (), "it is behind the tokens that are read"


def test_an_encoder_that_is_gone_has_told_its_spans(t5):
    known = KnownTexts(t5, ["a red house"])
    assert known.spans("a red house") == t5.spans("a red house")


@pytest.mark.parametrize(
    ("source", "edit", "gone", "new"),
    [
        ("a big red house", "a big blue house", "red", "blue"),
        ("a big red house", "a Big red house, and a cat", "", "and a cat"),
        ("a red house and a cat", "a red house", "and a cat", ""),
        ("a house", "a house", "", ""),
    ],
)
def test_words_that_differ(t5, source, edit, gone, new):
    spans = t5.spans(source), t5.spans(edit)
    found = differing_tokens((source, edit), spans)
    for prompt, span, tokens, words in zip((source, edit), spans, found, (gone, new), strict=True):
        assert " ".join(prompt[slice(*span[token])] for token in tokens) == words
