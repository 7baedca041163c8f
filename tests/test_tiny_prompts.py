"""The prompts of the shipped sweeps."""

import json
from pathlib import Path

import pytest

from flux.tiny.captions import vocabulary
from flux.tiny.prompts import as_file, draw_prompts

JSON = Path(__file__).parents[1] / "json"


def test_flux_tinys_prompts_are_those_its_command_draws():
    assert (JSON / "prompt-tiny.json").read_text() == as_file(draw_prompts())
    words = {word for prompt in draw_prompts() for word in prompt["prompt"].split()}
    assert words <= set(vocabulary())


@pytest.mark.parametrize("name", ["prompt.json", "prompt-tiny.json"])
def test_a_sweep_has_64_prompts_each_with_its_own_seed(name):
    prompts = json.loads((JSON / name).read_text())["prompts"]
    assert len(prompts) == 64
    assert len({prompt["prompt"] for prompt in prompts}) == 64
    assert [prompt["seed"] for prompt in prompts] == list(range(64))
