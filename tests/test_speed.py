"""Compiled blocks: few graphs, whatever steps, layers skipped and edits there are; kernels not there."""

from dataclasses import replace

import pytest
import torch
from helpers_models import SMALL_FLOW, small_model

from flux.hooks import CopySource, Hooks, TopRatio
from flux.model import Flux
from flux.speed import choose_attention, compile_blocks
from flux.studies.reading import load_spec
from flux.studies.text.spec import TestSpec as TextSpec

PARAMS = replace(SMALL_FLOW, depth=2, depth_single_blocks=2)


def inputs(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    p = PARAMS
    shapes = {"img": (12, p.in_channels), "txt": (6, p.context_in_dim), "y": (p.vec_in_dim,)}
    given = {name: torch.randn(rows, *shape, generator=generator) for name, shape in shapes.items()}
    ids = {"img_ids": torch.zeros(rows, 12, 3), "txt_ids": torch.zeros(rows, 6, 3)}
    t = torch.rand(rows, generator=generator)
    return {**given, **ids, "timesteps": t, "guidance": 4 * t}


@torch.no_grad()
def test_one_graph_for_each_kind_of_block_and_none_again():
    """Counted by a backend that runs what it is given: what is computed is what plain blocks compute."""
    torch.compiler.reset()
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    plain, model = small_model(Flux, PARAMS), small_model(Flux, PARAMS)
    keys = list(model.state_dict())
    compile_blocks(model, backend=backend)
    assert list(model.state_dict()) == keys

    def count(hooks=None, rows=2, seed=0):
        given = inputs(rows, seed)
        assert torch.equal(model(**given, hooks=hooks), plain(**given, hooks=hooks))
        return len(graphs)

    assert count() == 2  # one for double and one for single blocks
    assert count(seed=1) == 2  # another step
    assert count(Hooks(skip=[0, 3])) == count(Hooks(skip=[1])) == 2

    # In layers with an injection, what stands before it, attention, and what stands behind it.
    hooked = count(Hooks(inject={0: CopySource(), 2: CopySource()}).at(0, 3))
    assert hooked <= 8
    for step, how in enumerate(
        [CopySource(strength=0.5), CopySource(select=TopRatio(0.5)), CopySource(keys=False)]
    ):
        assert count(Hooks(inject={1: how, 3: how}).at(step, 3), seed=step) == hooked

    # A second number of rows is compiled once more, with sizes left open; a third is not.
    more = count(rows=3)
    assert count(rows=4) == count(rows=5, seed=1) == more


@pytest.mark.parametrize("kernel", ["cudnn", "flash3"])
def test_a_kernel_that_a_cpu_has_not_is_refused_in_one_line(kernel):
    with pytest.raises(
        ValueError, match=f"^attention {kernel} is for NVIDIA's GPUs, and the model is on cpu"
    ):
        choose_attention(kernel, torch.device("cpu"))
    choose_attention("sdpa", torch.device("cpu"))


def test_flash_attention_3_that_is_not_installed_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("flux.speed.FLASH3", "no_such_module")
    with pytest.raises(
        ValueError, match="^attention flash3 needs FlashAttention 3, no_such_module, which is not"
    ):
        choose_attention("flash3", torch.device("cuda"))


def test_a_machine_without_a_compiler_is_told_so(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="^compile needs a C\\+\\+ compiler on a CPU"):
        compile_blocks(small_model(Flux, PARAMS))


def test_specs_say_what_is_chosen_and_only_then():
    plain = load_spec(TextSpec, None, {"prompts": ["a dog"]})
    assert not {"compile", "attention"} & plain.recipe()["model"].keys()
    model = {"name": "flux-tiny", "compile": True, "attention": "cudnn"}
    chosen = load_spec(TextSpec, None, {"prompts": ["a dog"], "model": model})
    assert chosen.recipe()["model"] | model == chosen.recipe()["model"]
    for way in ("modulation", "stream", "stream:4", "auto"):  # see placement/test_compiled.py
        beside = load_spec(TextSpec, None, {"prompts": ["a dog"], "model": model | {"offload": way}})
        assert beside.model.compile and beside.model.offload == way


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["sdpa", "cudnn"])
def test_on_a_gpu(kernel):
    """By inductor, with hooks and without, near to the plain model."""
    torch.compiler.reset()
    device = torch.device("cuda")
    plain, model = (small_model(Flux, PARAMS).to(device, torch.bfloat16) for _ in range(2))
    compile_blocks(model)
    choose_attention(kernel, device)
    try:
        for hooks in (None, Hooks(skip=[1]), Hooks(inject={"all": CopySource()})):
            given = {name: x.to(device) for name, x in inputs(2, 0).items()}
            expected = plain(**given, hooks=hooks).float()
            error = (model(**given, hooks=hooks).float() - expected).norm() / expected.norm()
            assert error < 0.05
    finally:
        choose_attention("sdpa", device)
