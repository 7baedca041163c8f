"""No step waits for the device: nothing of it is copied there or back, and no number is read.

The device is torch's `meta`, which holds no numbers: what mixes it with the host's memory is a transfer.
"""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from helpers_models import SMALL_FLOW
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flux.hooks import AboveThreshold, CopySource, Hooks, KeptSource, LookAtSource, Mask, Recording, TopRatio
from flux.hooks.kept import kept_copies
from flux.hooks.regions import RegionAttention
from flux.hooks.weighing import WeighedTokens
from flux.integrators import Evaluation
from flux.methods.field import Conditioning, Field
from flux.methods.stable_flow import on_row
from flux.model import Flux
from flux.probes import PROBES, hooks_of
from flux.sampling import image_ids, velocity

META = torch.device("meta")
TOKENS, TXT = (3, 4), 6


class Lists(TorchFunctionMode):
    """What is made on the device of numbers that the host has in a list, as an index too: below of what a
    dispatch mode sees."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = args[0] if args else None
        made = func in (torch.tensor, torch.as_tensor) and out.device == META and not torch.is_tensor(given)
        index = args[1] if func is torch.Tensor.__getitem__ else ()
        if made or any(isinstance(each, list) for each in (index if isinstance(index, tuple) else (index,))):
            self.found.append(f"{func.__name__} of a list")
        return out


class Transfers(TorchDispatchMode):
    """The operations that copy between host and device, or read a number. Numbers without a dimension that
    the host knows are handed over with the call."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.lists = Lists(self.found)

    def __enter__(self):
        self.lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.lists.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        try:
            out = func(*args, **(kwargs or {}))
        except NotImplementedError:  # of meta, where a number is read
            self.found.append(str(func))
            raise
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        on_host = any(x.device.type == "cpu" and (x.dim() or x is out) for x in tensors)
        if on_host and any(x.device == META for x in tensors):
            self.found.append(str(func))
        return out


@contextmanager
def no_transfers():
    with Transfers() as transfers:
        yield
    assert transfers.found == []


@pytest.fixture(scope="module")
def model():
    with META:
        return Flux(SMALL_FLOW).requires_grad_(False)


def evaluate(model, rows, hooks=None, guidance=4.0, steps=2):
    """A function that evaluates one step; what comes before the loop has been done."""
    length = TOKENS[0] * TOKENS[1]
    p = SMALL_FLOW
    with META:
        ids = torch.zeros(rows, length, 3)
        txt, txt_ids = torch.randn(rows, TXT, p.context_in_dim), torch.zeros(rows, TXT, 3)
        x, vec = torch.randn(rows, length, p.in_channels), torch.randn(rows, p.vec_in_dim)
    predicted = velocity(model, ids, txt, txt_ids, vec, guidance, hooks=hooks)

    def step(index: int):
        return predicted(x, 0.5, Evaluation(index, steps))

    return step


IN_ALL = {
    "copy": CopySource(),
    "copy rows": CopySource(rows=(1,), strength=0.5, steps=(0, 9)),
    "ratio": CopySource(select=TopRatio(0.3)),
    "threshold": CopySource(select=AboveThreshold(1.0)),
    "mask": CopySource(select=Mask(torch.ones(TOKENS))),
    "on row": on_row(CopySource(), 2),
    "look": LookAtSource((0, 0, 1), heads=(1,), select=TopRatio(0.5), strength=lambda step, steps: 0.5),
}


@pytest.mark.parametrize("name", IN_ALL)
def test_a_step_with_injections(model, name):
    step = evaluate(model, 3, Hooks(inject={"all": IN_ALL[name]}), guidance=[1.0, 2.0, 3.0])
    step(0)  # in which masks are brought to the device, once for all
    with no_transfers():
        assert step(1).shape == (3, 12, 64)


def test_a_plain_step_and_one_with_layers_skipped(model):
    for hooks in (None, Hooks(skip={0: True, 3: "mlp", 1: "attention"})):
        with no_transfers():
            evaluate(model, 2, hooks)(0)


def test_attention_by_regions_and_by_weights(model):
    inside = torch.arange(12).reshape(1, 1, 12) < 6
    regions = RegionAttention(inside, apart=True)
    half = replace(regions, inside=torch.ones(1, 1, 12, dtype=torch.bool))
    with META:
        weighed = WeighedTokens(torch.ones(2, 12))
    for attend in (regions, half, weighed):
        step = evaluate(model, 2, Hooks(attend={"all": attend}))
        step(0)
        with no_transfers():
            step(1)


def test_a_source_that_is_kept_on_the_device(model):
    kept, how = KeptSource("device"), CopySource(select=TopRatio(0.5))
    kept.want("all", how)
    kept.begin()
    source = evaluate(model, 1, Hooks(inject=kept.hooks()))
    edits = evaluate(model, 2, Hooks(inject=dict(kept_copies(kept, [(1, ["all"], how)]))))
    with no_transfers():
        source(0)
        edits(0)


@pytest.mark.parametrize("probe", [row.name for row in PROBES])
def test_a_step_of_a_sweep(model, probe):
    sources = next(row.sources for row in PROBES if row.name == probe)
    hooks = hooks_of(probe, (1, 3), head=None, window=None, sources=2 if sources else 0, options={})
    step = evaluate(model, 4, hooks)
    step(0)
    with no_transfers():
        step(1)


def test_an_evaluation_of_a_method(model):
    with META:
        p = SMALL_FLOW
        texts = [
            Conditioning(torch.randn(n, TXT, p.context_in_dim), torch.randn(n, p.vec_in_dim))
            for n in (1, 2, 1)
        ]
        clean, edits = torch.randn(1, 12, 64), torch.randn(2, 12, 64)
    field = Field(model, *texts, of=(0, 0), size=TOKENS, clean=clean, look=lambda of, n, mask: Hooks())
    pair = lambda: field.pair(clean, edits, 0.5, Evaluation(0, 2), (1.0, 4.0))  # noqa: E731
    pair()
    with no_transfers():
        pair()


def test_a_transfer_is_seen(model):
    """What the others say would mean nothing otherwise."""
    rows = torch.zeros(3, device=META)
    with Transfers() as transfers:
        rows[[0, 2]]
        rows + torch.ones(3).to(META)
        torch.tensor([1, 2], device=META)
    assert len(transfers.found) == 3
    step = evaluate(model, 2, Hooks(inject={0: Recording()}))
    with Transfers() as transfers, pytest.raises(NotImplementedError):
        step(0)
    assert image_ids(*TOKENS).device.type == "cpu" and transfers.found
