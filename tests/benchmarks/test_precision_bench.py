"""benchmarks/precision.py: bytes are equal, and the figures are of what they say."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchao")
pytest.importorskip("gguf")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import precision  # noqa: E402
from helpers_models import SMALL_FLOW, small_model  # noqa: E402

from flux.models import configs  # noqa: E402
from flux.precision.choice import BITS, Precision  # noqa: E402
from flux.tiny.asked import read_caption  # noqa: E402
from flux.tiny.judge import FoundThing, Reading  # noqa: E402

LAYERS = range(len(configs["flux-tiny"].layers))


def test_every_order_spends_the_budget_to_the_last_byte():
    weights = [precision.weigh(layer) for layer in LAYERS]
    assert weights == [2] * 4 + [1] * 8
    rng = np.random.default_rng(0)
    for budget in (1, *precision.BUDGETS):
        for _ in range(50):
            kept = precision.fitting(rng.permutation(12).tolist(), budget, weights)
            assert sum(weights[layer] for layer in kept) == budget
    assert precision.fitting([0, 4, 1, 5], 4, weights) == (0, 4, 5)


def test_psnr_of_a_known_error():
    wanted = torch.zeros(2, 3, 4, 4)
    found = wanted + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)  # a tenth and a hundredth of the range
    assert precision.psnr(found, wanted) == pytest.approx([20, 40], abs=1e-3)


def test_the_share_of_what_was_asked_for():
    asked = read_caption("a big red house on the grass under a blue day sky")
    thing = {"kind": "house", "colour": "red", "size": "big", "hat": False, "x": 1.0, "y": 1.0, "score": 1.0}
    full = Reading(asked.sky, asked.ground, (FoundThing(**thing),))
    assert precision.right([full], [asked]) == 1
    blue = Reading(asked.sky, asked.ground, (FoundThing(**thing | {"colour": "blue"}),))
    assert precision.right([blue], [asked]) == pytest.approx(5 / 6)
    assert precision.right([Reading(asked.sky, asked.ground, ())], [asked]) == pytest.approx(3 / 6)


@pytest.mark.parametrize("name", BITS)
@torch.no_grad()
def test_numbers_in_the_place_of_weights_change_nothing(name):
    flow = small_model(params=SMALL_FLOW)
    made = precision.quantised(flow, Precision(name))
    layer, x = made.double_blocks[0].img_mlp[0], torch.randn(2, 64)
    before, size = layer(x), sum(map(precision.bytes_of, made.parameters()))
    precision.in_numbers(made)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-5)
    assert type(layer.weight) is torch.nn.Parameter
    assert sum(map(precision.bytes_of, made.parameters())) > size
