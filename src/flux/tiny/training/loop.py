"""One training loop for every part: resumable, repeatable, and shown as it goes.

Step s of a stage draws its data from a generator seeded by (seed, stage, s), so a run that was interrupted
and resumed sees the same data as one that was not. A GPU is faster than one process draws, so there several
draw ahead.
"""

import json
import math
import time
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from flux.files import write_atomically
from flux.tiny.training.device import device_name, device_of, moved
from flux.tiny.training.graphs import Recorded
from flux.tiny.training.processes import cores

SAVE_EVERY_SECONDS = 120.0
LOG_EVERY = 50
MOST_DRAWING = 8
"""Processes that draw ahead for a GPU, at most."""


class Drawn(NamedTuple):
    """What a step learns from. kind: the steps of one kind compute the same on arrays of the same shapes, and
    look at no value, so that a GPU can record one of them; None where that is not so. arrays: in tuples or
    dicts."""

    kind: Hashable
    arrays: Any


@dataclass
class Stage:
    """One model in training, on the device where it is.

    draw: from a NumPy generator and the step, what the step learns from, as `Drawn`. given: what chance and
    models that do not learn make of it, on the device. loss: from its kind and what is given, the loss and
    figures to log; a figure that is not a number is not known.
    peak_lr factors come from `warmup_cosine`; each optimiser's own learning rate is its peak.
    """

    name: str
    folder: Path
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    draw: Callable[[np.random.Generator, int], "Drawn"]
    loss: Callable[[Hashable, Any], tuple[Tensor, dict[str, float | Tensor]]]
    steps: int
    seed: int = 0
    warmup: int = 100
    final_lr: float = 0.02
    ema_decay: float | None = None
    grad_clip: float = 1.0
    given: Callable[[Any], Any] = lambda arrays: arrays
    history: list[dict] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.name}.ckpt"

    def run(self) -> nn.Module:
        """Train to the last step, from the checkpoint if there is one. Returns the averaged model if
        averaging."""
        self.folder.mkdir(parents=True, exist_ok=True)
        peaks = [[group["lr"] for group in opt.param_groups] for opt in self.optimizers]
        ema = None if self.ema_decay is None else [p.detach().clone() for p in self.model.parameters()]
        start, seconds = self._resume(ema)
        started = saved = time.monotonic()
        device = device_of(self.model)
        recorded = Recorded() if device.type == "cuda" else None
        for group in self._groups():
            if recorded:
                group["lr"] = torch.zeros((), device=device)  # what a recorded step reads anew
            if "capturable" in group:  # a checkpoint may be another device's
                group["capturable"] = recorded is not None
        bar = tqdm(total=self.steps, initial=start, desc=self.name, mininterval=10)
        for step, (torch_seed, drawn) in enumerate(self._drawn(start, device.type), start):
            torch.manual_seed(torch_seed)
            factor = warmup_cosine(step, self.steps, self.warmup, self.final_lr)
            for group, peak in zip(self._groups(), (lr for lrs in peaks for lr in lrs), strict=True):
                if recorded:
                    group["lr"].fill_(peak * factor)
                else:
                    group["lr"] = peak * factor
            given = self.given(moved(drawn.arrays, device))
            learn = partial(self._learn, drawn.kind)
            recordable = recorded and drawn.kind is not None
            loss, figures = recorded(drawn.kind, learn, given) if recordable else learn(given)
            if ema is not None:
                # The average forgets its start faster in the beginning.
                decay = min(self.ema_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(ema, [p.detach() for p in self.model.parameters()], 1 - decay)
            if step % LOG_EVERY == 0 or step == self.steps - 1:
                known = {name: float(value) for name, value in ({"loss": loss} | figures).items()}
                self.history.append(
                    {"step": step} | {name: value for name, value in known.items() if not math.isnan(value)}
                )
                bar.set_postfix({k: f"{v:.4g}" for k, v in self.history[-1].items() if k != "step"})
            bar.update()
            now = time.monotonic()
            if now - saved > SAVE_EVERY_SECONDS or step == self.steps - 1:
                self._save(step + 1, seconds + now - started, ema)
                saved = now
        bar.close()
        if ema is not None:
            with torch.no_grad():
                for p, average in zip(self.model.parameters(), ema, strict=True):
                    p.copy_(average)
        return self.model.eval()

    def _learn(self, kind: Hashable, given: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        """One step of all optimisers."""
        loss, figures = self.loss(kind, given)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        for opt in self.optimizers:
            opt.step()
            opt.zero_grad(set_to_none=True)
        return loss.detach(), figures

    def _groups(self) -> list[dict[str, Any]]:
        return [group for opt in self.optimizers for group in opt.param_groups]

    def _drawn(self, start: int, device: str) -> Iterator[tuple[int, Drawn]]:
        """torch's seed and what is drawn, for each step from `start` on."""
        draws = _Draws(self.name, self.seed, self.draw, self.steps)
        workers = 0 if device == "cpu" else min(MOST_DRAWING, cores() // 2)
        ahead = {"prefetch_factor": 4, "multiprocessing_context": "fork"} if workers else {}
        yield from DataLoader(
            draws,
            batch_size=None,
            sampler=range(start, self.steps),
            collate_fn=_as_it_is,
            num_workers=workers,
            **ahead,
        )

    def _resume(self, ema: list[Tensor] | None) -> tuple[int, float]:
        if not self.checkpoint.exists():
            return 0, 0.0
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        for opt, opt_state in zip(self.optimizers, state["optimizers"], strict=True):
            opt.load_state_dict(opt_state)
        for average, saved in zip(ema or [], state["ema"], strict=True):
            average.copy_(saved)
        self.history[:] = json.loads(state["history"])
        return state["step"], state["seconds"]

    def _save(self, step: int, seconds: float, ema: list[Tensor] | None) -> None:
        state = {
            "step": step,
            "seconds": seconds,
            "model": self.model.state_dict(),
            "optimizers": [opt.state_dict() for opt in self.optimizers],
            "ema": ema or [],
            "history": json.dumps(self.history),
        }
        write_atomically(self.checkpoint, partial(torch.save, state))
        log = {"step": step, "seconds": round(seconds, 1), "device": device_name(device_of(self.model))}
        log["history"] = self.history
        (self.folder / f"{self.name}.json").write_text(json.dumps(log))


class _Draws(Dataset):
    """What each step of a stage learns from, drawn as it is asked for."""

    def __init__(self, name: str, seed: int, draw: Callable, steps: int):
        self.name, self.seed, self.draw, self.steps = name, seed, draw, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[int, Drawn]:
        rng = np.random.default_rng((self.seed, zlib.crc32(self.name.encode()), step))
        return int(rng.integers(2**62)), self.draw(rng, step)


def _as_it_is(drawn: Any) -> Any:
    return drawn


def warmup_cosine(step: int, steps: int, warmup: int, final: float) -> float:
    """Learning-rate factor: linear to 1 over `warmup` steps, then half a cosine down to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def mean_of(history: Iterable[dict], key: str, last: int = 5) -> float:
    """Mean of a logged figure over the last rows that have it."""
    values = [row[key] for row in history if key in row][-last:]
    return sum(values) / len(values)
