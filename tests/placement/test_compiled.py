"""Compiled blocks whose weights come and go: one graph of each kind, and the same numbers."""

import pytest
import torch
from helpers_demos import small_models
from helpers_placement import HOOKS, latents, names_sent, same

from flux.speed import compile_blocks


@pytest.fixture
def graphs():
    torch._dynamo.reset()
    found = []
    yield found
    torch._dynamo.reset()


@pytest.mark.parametrize("way", ["encoders", "modulation", "stream:4"])
def test_a_way_and_compiled_blocks(way, lane, graphs):
    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    models = small_models()
    compile_blocks(models.flow, backend=backend)
    assert same(latents(models, way), latents(small_models()))
    assert len(graphs) == 2  # a double and a single block
    skipping = {"hooks": HOOKS["skip"]}
    assert same(latents(models, way, **skipping), latents(small_models(), **skipping))
    assert len(graphs) == 2
    if way == "stream:4":
        assert names_sent(lane, models)[:8] == [2, 5, 8, 11, 0, 1, 3, 4]
