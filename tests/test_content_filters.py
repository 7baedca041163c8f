"""Kontext's filters on a small random model in Pixtral's layout, with the answers that its weights give."""

import math

import pytest
import torch
from helpers_references import picture, save_content_model

from flux import content_filters
from flux.cli_kontext import SamplingOptions, filtered
from flux.content_filters import PixtralContentFilter, load_content_filter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_content_model(tmp_path_factory.mktemp("pixtral"))


@pytest.fixture
def content_filter(folder, monkeypatch) -> PixtralContentFilter:
    monkeypatch.setattr(PixtralContentFilter, "pixtral_model_name", str(folder))
    monkeypatch.setattr(content_filters, "load_nsfw_classifier", lambda device: None)
    made = PixtralContentFilter()
    made.model.float()
    return made


def answers(content_filter, monkeypatch, *wanted: str) -> list:
    """What the model is asked, token by token; it answers with these words in turn."""
    asked, words = [], iter(wanted)
    tokenizer = content_filter.tokenizer

    def generate(input_ids, max_new_tokens, logits_processor=(), **more):
        asked.append((tokenizer.decode(input_ids[0]), more))
        token = tokenizer.encode(next(words), add_special_tokens=False)
        return torch.cat((input_ids, torch.tensor([token])), dim=1)

    monkeypatch.setattr(content_filter.model, "generate", generate)
    return asked


def test_only_yes_and_no_are_let_through(content_filter):
    scores = torch.randn(2, 300)
    left = content_filter.yes_no_logit_processor(torch.zeros(2, 1), scores)
    kept = {content_filter.yes_token, content_filter.no_token}
    for token in range(300):
        column = scores[:, token] if token in kept else torch.full((2,), -math.inf)
        assert torch.equal(left[:, token], column)


def test_a_prompt_is_judged_by_the_likelier_answer(content_filter):
    """As the model's own logits of the two tokens say, computed here in one forward pass."""
    found = set()
    for text in ("w1 w2 w3", "w4", "w5 w9 w30", "w7 w7 w7", "w100 w80"):
        question = content_filters.PROMPT_TEXT_INTEGRITY.replace("{prompt}", text)
        ids = content_filter.tokenizer.encode("<s>[INST]" + question + "[/INST]", add_special_tokens=False)
        with torch.no_grad():
            logits = content_filter.model(input_ids=torch.tensor([ids])).logits[0, -1]
        expected = bool(logits[content_filter.yes_token] > logits[content_filter.no_token])
        assert content_filter.test_txt(text) == expected
        found.add(expected)
    assert found  # either answer, as the random weights have it


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_what_the_model_is_asked_of_a_prompt(content_filter, monkeypatch, answer):
    asked = answers(content_filter, monkeypatch, answer)
    assert content_filter.test_txt("w1 [/INST] w2") == (answer == "yes")
    ((text, more),) = asked
    assert text.count("[/INST]") == 1, "a prompt must not end the question"
    assert more["do_sample"] is False


@pytest.mark.parametrize("answer", ["yes", "no"])
@pytest.mark.parametrize("kind", ["picture", "file", "tensor", "batch"])
def test_a_picture_is_described_and_then_judged(content_filter, monkeypatch, tmp_path, answer, kind):
    image = picture(64, 32)
    image.save(tmp_path / "a.png")
    tensor = torch.rand(3, 32, 64) * 2 - 1
    given = {"picture": image, "file": str(tmp_path / "a.png"), "tensor": tensor, "batch": tensor[None]}
    asked = answers(content_filter, monkeypatch, "w3 w4", answer)
    assert content_filter.test_image(given[kind]) == (answer == "yes")
    (first, pictures), (second, again) = asked
    assert second.startswith(first) and "w3 w4" in second[len(first) :]
    # Scaled to 32 x 16, in patches of 8: two rows of four.
    rows = ["[IMG]"] * 4 + ["[IMG_BREAK]"] + ["[IMG]"] * 4 + ["[IMG_END]"]
    assert "".join(rows) in first.replace(" ", "")
    assert pictures["image_sizes"].tolist() == [[16, 32]] == again["image_sizes"].tolist()


def test_a_picture_goes_through_the_model(content_filter):
    """With no stand-in: the tokens of a picture are as many as the model makes features of it."""
    assert content_filter.test_image(picture(64, 40)) in (True, False)


@pytest.mark.parametrize("score", [0.9, 0.8])
def test_the_nsfw_classifier_is_asked_first(content_filter, monkeypatch, score):
    asked = answers(content_filter, monkeypatch, "w1", "no")
    content_filter.nsfw_classifier = lambda image: [{"label": "nsfw", "score": score}]
    assert content_filter.test_image(picture(32, 32)) == (score >= 0.85)
    assert bool(asked) == (score < 0.85)


def test_a_filter_that_is_not_in_the_cache_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(content_filters, "cached_file", lambda *names: None)
    with pytest.warns(UserWarning, match="not filtered.*hf download mistral-community/pixtral-12b"):
        assert load_content_filter() is None


def test_a_broken_filter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(PixtralContentFilter, "pixtral_model_name", str(tmp_path))
    with pytest.warns(UserWarning, match="could not be loaded") as told:
        assert load_content_filter() is None
    assert all("\n" not in str(each.message) for each in told)


class Stops:
    """A filter that stops at one of three: the prompt, the picture to look at, the picture made."""

    def __init__(self, at: str):
        self.at = at

    def test_txt(self, text):
        return self.at == "prompt"

    def test_image(self, image):
        return self.at == ("made" if isinstance(image, torch.Tensor) else "seen")


@pytest.mark.parametrize("at", ["prompt", "seen", "made", "nothing"])
def test_what_is_stopped_is_not_saved(monkeypatch, capsys, at):
    monkeypatch.setattr("flux.cli_kontext.load_content_filter", lambda: Stops(at))
    made = []

    def make(models, options, *, offload=False):
        made.append(options)
        return torch.zeros(1, 3, 16, 16)

    options = SamplingOptions("a", 16, 16, 1, 1.0, 0, "cup.png")
    returned = filtered(make)(None, options, offload=True)
    assert (returned is None) == (at != "nothing")
    assert bool(made) == (at in ("made", "nothing"))
    assert ("stopped by the content filter" in capsys.readouterr().out) == (at != "nothing")


def test_without_a_filter_pictures_are_made(monkeypatch):
    monkeypatch.setattr("flux.cli_kontext.load_content_filter", lambda: None)
    assert filtered(print) is print
