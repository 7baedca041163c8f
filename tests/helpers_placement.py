"""A device that is none: copies of weights on the CPU, and a list of what was fetched when."""

import torch

from flux.generate import Sampling, encode, sample_steps
from flux.hooks import CopySource, Hooks
from flux.placement.lanes import Lane
from flux.placement.work import kept_weights

SAMPLING = Sampling(steps=3, guidance=3.5, width=32, height=32)
PROMPTS, SEEDS = ["a", "b"], [0, 1]

HOOKS = {
    "plain": None,
    "skip": Hooks(skip=(1, 5)),
    "halves": Hooks(skip={2: "attention", 6: "mlp"}),
    "all skipped": Hooks(skip="all"),
    "inject": Hooks(inject={1: CopySource(), 7: CopySource()}),
    "attend": Hooks(attend={3: lambda q, k, v, site: v.transpose(1, 2).flatten(2)}),
    "window": Hooks(skip=(0, 4)).within(1, 2),
}


class FakeLane(Lane):
    """Notes each master that is sent, in order, and how many bytes; `rooms`: sizes of all rooms made."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.sent: list[torch.Tensor] = []
        self.held: list[torch.Tensor] = []
        self.rooms: list[int] = []

    def hold(self, size):
        self.held.append(super().hold(size))
        return self.held[-1]

    def room(self, size):
        self.rooms.append(size)
        return super().room(size).fill_(255)  # no number: whoever computes before it is sent shows it

    def send(self, source, room, after=None):
        self.sent.append(source)
        return super().send(source, room, after)


def latents(models, offload=False, **how):
    texts = encode(models, [*PROMPTS, "no"], offload=offload)
    sampling = how.pop("sampling", SAMPLING)
    return [
        step.after for step in sample_steps(models, texts, PROMPTS, SEEDS, sampling, offload=offload, **how)
    ]


def same(found, expected):
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def names_sent(lane, models):
    """Layers in the order in which they were fetched."""
    blocks = kept_weights(models.flow, lane, "stream").blocks
    numbers = {master.bytes.data_ptr(): number for number, master in enumerate(blocks.values())}
    return [numbers[each.data_ptr()] for each in lane.sent if each.data_ptr() in numbers]


class Reader(torch.nn.Module):
    """T5 with random weights, which reads numbers."""

    def __init__(self, layers=5):
        super().__init__()
        from transformers import T5Config, T5EncoderModel

        shape = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=layers, num_heads=2, vocab_size=32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.hf_module = T5EncoderModel(shape).eval().requires_grad_(False)

    def forward(self, ids):
        return self.hf_module(input_ids=ids)["last_hidden_state"]
