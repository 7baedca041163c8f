"""The two tokenizers of flux-tiny, fitted to captions: unigram pieces for T5, byte-pair merges for CLIP."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CLIP_TOKENS = 700
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
SPACE = "\u2581"
SPELLED = -20.0
"""Log-probability of a single character: words never seen are spelled out, seen ones never are."""


def train_t5(captions: Iterable[str], folder: Path, length: int) -> None:
    """A unigram model (arXiv 1804.10959) with whole words as pieces; ids 0 = pad, 1 = end, 2 = unknown.

    With so few words, the likeliest pieces are the words themselves, scored by how often they occur.
    """
    counts = Counter(word for caption in captions for word in caption.split())
    total = sum(counts.values())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 2 * SPELLED), (SPACE, SPELLED)]
    pieces += [(SPACE + word, math.log(n / total)) for word, n in sorted(counts.items())]
    pieces += [(letter, SPELLED) for letter in ALPHABET]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_words(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    _save(tokenizer, folder, length, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def train_clip(captions: Iterable[str], folder: Path, length: int) -> None:
    """Byte-pair merges with `</w>` at word ends; start and end tokens, padded with the end token, as CLIP."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=CLIP_TOKENS,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=list(ALPHABET),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    # Every letter must also exist as the end of a word, or an unseen word could not be spelled.
    tokenizer.train_from_iterator([*captions, *ALPHABET], trainer)
    tokenizer = _ends_in_order(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)],
    )
    special = dict(bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    _save(tokenizer, folder, length, pad_token="<|endoftext|>", **special)


def _ends_in_order(tokenizer: Tokenizer) -> Tokenizer:
    """The same, the letters that end a word numbered in the alphabet's order: the trainer leaves it to
    chance."""
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    ends = sorted(f"{letter}</w>" for letter in ALPHABET if f"{letter}</w>" in vocabulary)
    vocabulary |= dict(zip(ends, sorted(vocabulary[end] for end in ends), strict=True))
    return Tokenizer.from_str(json.dumps(state))


def _words() -> pre_tokenizers.PreTokenizer:
    """Runs of letters and single digits; all else separates them and is dropped."""
    return pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]"), "removed", invert=True)


def _save(tokenizer: Tokenizer, folder: Path, length: int, **special: str) -> None:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **special)
    fast.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    # transformers 5 writes a class name that 4.x does not know; this one both do.
    config.write_text(config.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
