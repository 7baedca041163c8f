"""flux-tiny as it ships: what the model card promises, measured again on fixed lists drawn by a seed."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from flux.models import VITAL_LAYERS
from flux.tiny.edit_pairs import copy_in, draw_pairs, make_pair, score_pairs
from flux.tiny.judge import load_judge
from flux.tiny.scenes import ATTRIBUTES, render
from flux.tiny.training import autoencoder
from flux.tiny.training.evaluate import held_out_scenes, judge_generated, judge_rendered
from flux.util import TINY_WEIGHTS, load_models

pytestmark = pytest.mark.skipif(
    not (TINY_WEIGHTS / "flux1-tiny.safetensors").is_file(), reason="flux-tiny's weights are not there"
)


@pytest.fixture(scope="module")
def models():
    return load_models("flux-tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def judge():
    return load_judge(TINY_WEIGHTS / "judge.safetensors")


@pytest.fixture(scope="module")
def card():
    return json.loads((TINY_WEIGHTS / "card.json").read_text())


def test_weights_are_small():
    size = sum(file.stat().st_size for file in TINY_WEIGHTS.rglob("*") if file.is_file())
    assert size <= 40e6


def test_judge_reads_rendered_scenes(judge):
    figures = judge_rendered(judge, held_out_scenes(100))
    assert min(figures[name] for name in ATTRIBUTES) >= 0.98
    assert figures["extra"] <= 0.02


def test_judge_notices_what_is_wrong(judge):
    """Held against other scenes, its answers are mostly wrong: it does not just say yes."""
    scenes = held_out_scenes(40)
    from flux.tiny.training.data import to_model
    from flux.tiny.training.evaluate import score_readings, summary

    readings = judge.read(to_model(np.stack([render(scene) for scene in scenes])))
    shuffled = summary(score_readings(readings, scenes[1:] + scenes[:1]))
    assert shuffled["attributes"] < 0.6


def test_autoencoder_keeps_pictures(models, card):
    psnr = autoencoder.psnr(models.ae, np.stack([render(scene) for scene in held_out_scenes(32)]))
    assert psnr == pytest.approx(card["autoencoder_psnr"], abs=1.0)


def test_generated_pictures_follow_their_captions(models, judge, card):
    """The first scenes of the card's list; guards the shipped files and every step of sampling."""
    figures = judge_generated(models.flow, models.ae, (models.t5, models.clip), judge, held_out_scenes(48))
    promised = card["generated"]["3.5"]
    assert figures["attributes"] >= promised["attributes"] - 0.04
    assert figures["sky"] >= 0.95 and figures["ground"] >= 0.95


def test_guidance_has_an_effect(models, judge):
    """Without guidance fewer attributes are right: the distilled embedding does what it was made for."""
    options = dict(judge=judge, truth=held_out_scenes(32))
    run = partial(judge_generated, models.flow, models.ae, (models.t5, models.clip), **options)
    assert run(guidance=3.5)["attributes"] > run(guidance=1.0)["attributes"]


def test_injection_keeps_the_source_and_makes_the_edit(models, judge):
    pairs = draw_pairs(30, seed=0)
    layers = VITAL_LAYERS["flux-tiny"]["default"]
    make = partial(make_pair, models.flow, models.ae, (models.t5, models.clip))
    plain = list(score_pairs(pairs, judge, partial(make, hooks=None)))
    injected = list(score_pairs(pairs, judge, partial(make, hooks=copy_in(layers))))
    kept = [np.mean([score.kept for score in scores]) for scores in (plain, injected)]
    made = [np.mean([score.made for score in scores]) for scores in (plain, injected)]
    assert kept[1] >= kept[0] + 4
    assert made[1] >= 0.8 * made[0]


def test_empty_prompt_works(models):
    from flux.generate import Sampling, generate

    picture = generate(models, [""], [0], Sampling(4, 3.5, 64, 64))
    assert torch.isfinite(picture).all() and picture.std() > 0.05


def test_card_belongs_to_the_weights(card):
    text = (Path(TINY_WEIGHTS) / "MODEL_CARD.md").read_text()
    assert f"{card['autoencoder_psnr']:.1f} dB" in text


def test_the_vital_set_is_the_one_that_was_found():
    """By name for specs, as a file for the card, and as demo 4 reads such files."""
    from flux.studies.vital import read_vital_set

    found = read_vital_set(Path(TINY_WEIGHTS) / "vital_layers.json")
    assert tuple(found.layers) == VITAL_LAYERS["flux-tiny"]["vital"]
    assert found.model == "flux-tiny" and len(found.similarity) == 12
    others = [s for layer, s in enumerate(found.similarity) if layer not in found.layers]
    assert max(found.similarity[layer] for layer in found.layers) < found.threshold < min(others)
