"""The text encoder wrapper, on small T5 and CLIP folders made here in the layout of a FLUX.1-dev clone."""

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import AutoTokenizer

from flux.models import configs
from flux.modules.conditioner import HFEmbedder, is_clip, tokenizer_of, with_known_dtype

T5_LENGTH, CLIP_LENGTH = 16, 12


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """`text_encoder` + `tokenizer` (CLIP: vocab.json, merges.txt), `text_encoder_2` + `tokenizer_2` (T5)."""
    folder = tmp_path_factory.mktemp("clone")
    write_clip(folder / "text_encoder", folder / "tokenizer")
    write_t5(folder / "text_encoder_2", folder / "tokenizer_2")
    return folder


def write_clip(model: Path, tokenizer: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    letters = "abcdefghijklmnopqrstuvwxyz,."
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    end = vocab["<|endoftext|>"]
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps(vocab))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>", "model_max_length": 77})
    )
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    CLIPTextModel(config).save_pretrained(model)


def write_t5(model: Path, tokenizer: Path) -> None:
    import sentencepiece
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    tokenizer.mkdir()
    corpus = tokenizer / "corpus.txt"
    corpus.write_text("a red house by the sea\nthe blue cat and a small boat\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tokenizer / "spiece"),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    corpus.unlink()
    (tokenizer / "spiece.vocab").unlink()
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": []}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    fast = AutoTokenizer.from_pretrained(tokenizer)
    fast.backend_tokenizer.save(str(tokenizer / "tokenizer.json"))
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(fast),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(model)


@pytest.fixture(scope="module")
def t5(clone) -> HFEmbedder:
    return HFEmbedder(str(clone / "text_encoder_2"), max_length=T5_LENGTH, torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def clip(clone) -> HFEmbedder:
    return HFEmbedder(str(clone / "text_encoder"), max_length=CLIP_LENGTH, dtype=torch.bfloat16)


def test_shapes_and_types(t5, clip):
    assert not t5.is_clip and clip.is_clip
    assert t5.hf_module.dtype == torch.float32 and clip.hf_module.dtype == torch.bfloat16
    tokens, pooled = t5(["a red house", "the sea"]), clip(["a red", "sea"])
    assert tokens.shape == (2, T5_LENGTH, 16) and tokens.dtype == torch.bfloat16
    assert pooled.shape == (2, 16) and pooled.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in t5.parameters()) and not t5.hf_module.training


def test_float32_unless_asked_otherwise(clone, tmp_path):
    from transformers import T5EncoderModel

    folder = tmp_path / "text_encoder_2"
    T5EncoderModel.from_pretrained(clone / "text_encoder_2").bfloat16().save_pretrained(folder)
    (tmp_path / "tokenizer_2").symlink_to(clone / "tokenizer_2")
    assert HFEmbedder(str(folder), max_length=4).hf_module.dtype == torch.float32


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("release, known", [("4.45.2", "torch_dtype"), ("4.56.0", "dtype"), ("5.0", "dtype")])
def test_name_of_the_number_type(monkeypatch, name, release, known):
    monkeypatch.setattr("transformers.__version__", release)
    given = {name: torch.float16, "revision": "main"}
    assert with_known_dtype(given) == {known: torch.float16, "revision": "main"}
    assert with_known_dtype({}) == {known: torch.float32}
    assert given == {name: torch.float16, "revision": "main"}


def test_tokenizer_without_tokenizer_json(clone, tmp_path, t5):
    """A T5 folder that has only the SentencePiece model gives the same tokens."""
    import shutil

    shutil.copytree(clone / "text_encoder_2", tmp_path / "text_encoder_2")
    shutil.copytree(clone / "tokenizer_2", tmp_path / "tokenizer_2")
    (tmp_path / "tokenizer_2" / "tokenizer.json").unlink()
    plain = HFEmbedder(str(tmp_path / "text_encoder_2"), max_length=T5_LENGTH)
    prompt = "the blue cat"
    assert plain.tokenizer(prompt)["input_ids"] == t5.tokenizer(prompt)["input_ids"]


def test_one_folder_with_model_and_tokenizer(clone, tmp_path, t5):
    import shutil

    folder = tmp_path / "t5"
    shutil.copytree(clone / "text_encoder_2", folder)
    shutil.copytree(clone / "tokenizer_2", folder, dirs_exist_ok=True)
    assert torch.equal(HFEmbedder(str(folder), max_length=T5_LENGTH)(["a boat"]), t5(["a boat"]))


def test_a_prompt_that_fits_is_whole(t5, clip):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prompt in ("", "the sea"):
            assert t5.lost_to_length(prompt) == clip.lost_to_length(prompt) == ""
            t5([prompt]), clip([prompt])


def test_exactly_full_is_not_cut(clip):
    assert clip.lost_to_length("abcdefghij") == ""  # 10 letters and 2 special tokens
    assert clip.lost_to_length("abcdefghijk") == "k"


def test_lost_end_is_quoted_when_it_repeats(clip):
    """The lost end may equal the end of what was kept: it is found all the same."""
    assert clip.lost_to_length("aaaaaaaaaaaaa") == "aaa"


def test_t5_says_what_it_cut(t5):
    prompt = "the blue cat and a small boat by the sea and a red house by the sea"
    with pytest.warns(UserWarning, match=r"T5 reads the first 16 tokens.*the sea'$") as caught:
        cut = t5([prompt, prompt])
    assert len(caught) == 1
    kept = prompt[: prompt.rindex(t5.lost_to_length(prompt))].strip()
    assert torch.equal(cut[:1], t5([kept]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t5(prompt)  # said once


def test_clip_says_it_softly_and_once(clip):
    """A list of prompts that are all too long for it gets one line."""
    with pytest.warns(UserWarning, match="summary.*no harm.*misses 'cat'") as caught:
        clip(["the reddest cat", *(f"the reddest {'cat' * count}" for count in range(2, 64))])
        clip(["another prompt that is too long"])
    assert len(caught) == 1


def test_a_long_loss_is_quoted_shortly(t5):
    with pytest.warns(UserWarning) as caught:
        t5(["the sea " * 200])
    assert len(str(caught[0].message)) < 400


def test_kind_is_told_by_config(clone, tmp_path):
    assert is_clip(str(clone / "text_encoder")) and not is_clip(str(clone / "text_encoder_2"))
    assert is_clip("openai/clip-vit-large-patch14") and not is_clip("google/t5-v1_1-xxl")
    with pytest.raises(ValueError, match="has no config.json"):
        is_clip(str(tmp_path))
    for text, message in (('{"model_type": "bert"}', "'bert'"), ("[]", "not the"), ("{", "not the")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            is_clip(str(tmp_path))


def test_tokenizer_beside_the_model(clone, monkeypatch):
    assert tokenizer_of(str(clone / "text_encoder_2")) == str(clone / "tokenizer_2")
    assert tokenizer_of(str(clone / "tokenizer_2")) == str(clone / "tokenizer_2")
    assert tokenizer_of("google/t5-v1_1-xxl") == "google/t5-v1_1-xxl"
    monkeypatch.chdir(clone / "text_encoder")
    assert tokenizer_of(".") == str(clone / "tokenizer")


# Token ids do not depend on the release of transformers: since 5.0 a model has one tokenizer class, where it
# had a slow and a fast one. `make versions` asks several.

PROMPTS = (
    "",
    "a red house by the sea",
    "The Blue Cat,  and a small boat.",
    "  a boat ",
    "a\tboat\nby the sea",
    "cafe caf\u00e9 \u2603",
    "a sea-boat, 2 cats",
    "A\u00a0boat \ufb01sh",
)


def token_ids(folder: Path, prompt: str) -> list[int]:
    return AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("whole", [True, False])
def test_token_ids_of_t5_are_those_of_sentencepiece(clone, tmp_path, prompt, whole):
    """With tokenizer.json beside it, and with SentencePiece's file alone."""
    folder = clone / "tokenizer_2"
    if not whole:
        folder = Path(shutil.copytree(folder, tmp_path / "tokenizer_2"))
        (folder / "tokenizer.json").unlink()
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))
    assert token_ids(folder, prompt) == [*pieces.encode(prompt), pieces.eos_id()]


@pytest.mark.parametrize(
    "prompt", ["", "a red sea", "The Blue Cat,  and a boat.", " a\tboat\n", "A\u00a0boat"]
)
def test_token_ids_of_clip_follow_its_rule(clone, prompt):
    """In lower case, words and runs of other signs apart; spelled out, as no merges are known."""
    vocabulary = json.loads((clone / "tokenizer" / "vocab.json").read_text())
    words = re.findall(r"[a-z]+|[^\sa-z]+", prompt.lower())
    pieces = [piece for word in words for piece in (*word[:-1], f"{word[-1]}</w>")]
    expected = ["<|startoftext|>", *pieces, "<|endoftext|>"]
    assert token_ids(clone / "tokenizer", prompt) == [vocabulary[piece] for piece in expected]


@pytest.mark.parametrize(
    "folder, prompt, expected",
    [
        ("tokenizer_2", "a sea-boat, 2 cats", [4, 63, 16, 3, 118, 19, 108, 1]),
        ("tokenizer_2", "The Blue Cat,  and a small boat.", [74, 15, 19, 7, 4, 66, 16, 1]),
        ("tokenizer", "a sea-boat, 2 cats", [0, 59, 198, 163, 62, 14, 266, 43, 1]),
        ("tokenizer", "The Blue Cat,  and a small boat.", [0, 91, 105, 164, 113, 59, 155, 163, 1]),
    ],
)
def test_token_ids_of_flux_tiny(folder, prompt, expected):
    assert token_ids(configs["flux-tiny"].home / folder, prompt) == expected
