"""The prompts of the shipped sweeps."""

import json
from pathlib import Path

import pytest

from flux.tiny.captions import GROUND_PHRASES, LETTER_PHRASES, POSE_PHRASES, SKY_PHRASES, vocabulary
from flux.tiny.prompts import as_file, draw_prompts
from flux.tiny.scenes import COLOURS, KINDS, SIZES

JSON = Path(__file__).parents[2] / "json"


def test_flux_tinys_prompts_are_those_its_command_draws():
    assert (JSON / "prompt-tiny.json").read_text() == as_file(draw_prompts())
    words = {word for prompt in draw_prompts() for word in prompt["prompt"].split()}
    assert words <= set(vocabulary())


def test_flux_tinys_prompts_cover_its_world():
    words = [word for prompt in draw_prompts() for word in prompt["prompt"].split()]
    counts = {value: words.count(value) for value in (*KINDS, *COLOURS, *SIZES)}
    assert min(counts.values()) >= 12, counts
    for group in (SKY_PHRASES, GROUND_PHRASES, LETTER_PHRASES, POSE_PHRASES):
        shown = [sum(phrases[0] in p["prompt"] for p in draw_prompts()) for phrases in group.values()]
        assert min(shown) >= 3, shown


@pytest.mark.parametrize("name", ["prompt.json", "prompt-tiny.json"])
def test_a_sweep_has_64_prompts_each_with_its_own_seed(name):
    prompts = json.loads((JSON / name).read_text())["prompts"]
    assert len(prompts) == 64
    assert len({prompt["prompt"] for prompt in prompts}) == 64
    assert [prompt["seed"] for prompt in prompts] == list(range(64))
