"""What a method is given, and what it yields.

A method is a function of a task and its settings, which yields a `MethodStep` for every step it takes:

    def flowedit(task: EditTask, *, guidance: float, ...) -> Iterator[MethodStep]

The last one holds the edits' latents. Its settings' defaults stand in `flux.methods.METHODS`. It does not
know whether the source was photographed or generated; it writes nothing and prints nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flux.conditions import Region, Regions
from flux.generate import Sampling, Texts
from flux.methods.field import Conditioning, Field
from flux.modules.words import differing_tokens
from flux.references import Reference
from flux.sampling import get_schedule
from flux.weights.load import Models

Tokens = tuple[int, ...]

Parts = Sequence[Sequence[Region]]
"""The regions of each row; empty for none of any."""


@dataclass(frozen=True)
class EditTask:
    """Sources to edit: their latents, their noise, and the velocities of both sides.

    clean: the sources' latents, packed, float32 (S, L, 64). seeds: one per source, for its noise.
    times: noise levels from 1 to 0. spread: the standard deviation of the model's latents, to which masks
    are relative. words: of each edit the text tokens that its source's prompt has alone, and those that its
    own has alone; none where that is not known. word_layers: where image tokens look at such words.
    shown: how much of each position of the sources' latents shows a photo and no padding, in [0, 1],
    (S, 2 h, 2 w); None where all of it does.
    """

    field: Field
    seeds: tuple[int, ...]
    times: tuple[float, ...]
    spread: float = 1.0
    words: tuple[tuple[Tokens, Tokens], ...] = ()
    word_layers: tuple[int, ...] = ()
    shown: Tensor | None = None

    @property
    def clean(self) -> Tensor:
        return self.field.clean

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def shown_by_edit(self) -> Tensor | None:
        """`shown` of the source of each edit: (N, 2 h, 2 w)."""
        return None if self.shown is None else self.shown[list(self.field.of)]

    def noise(self, draw: int) -> Tensor:
        """Draw number `draw`, from 0, of each source's own noise: N(0, 1), (S, L, 64), on any device."""
        return torch.stack([_noise(seed, draw, self.clean[0]) for seed in self.seeds])

    def rows(self, rows: Sequence[int]) -> "EditTask":
        """The task of some of the edits, in the order given."""
        sources = list(dict.fromkeys(self.field.of[row] for row in rows))
        return replace(
            self,
            field=self.field.rows(rows),
            seeds=tuple(self.seeds[each] for each in sources),
            shown=None if self.shown is None else self.shown[sources],
            words=tuple(self.words[row] for row in rows),
        )

    def with_mask(self, mask: Tensor | None) -> "EditTask":
        """The same, for another run, with a mask of where edits may change their sources, packed, (N, L, 64)
        in [0, 1]."""
        return self.afresh(mask=mask)

    def afresh(self, **parts: Any) -> "EditTask":
        """The same for another run, which is not told how alike the velocities of this one were.

        parts: of the field, that are others there.
        """
        return replace(self, field=replace(self.field, alike={}, **parts))


def open_task(
    models: Models,
    texts: Texts,
    sources: Sequence[str],
    edits: Sequence[str],
    of: Sequence[int],
    clean: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    reference: Reference | None = None,
    regions: tuple[Parts, Parts] = ((), ()),
    regional: Regions | None = None,
    seconds: Mapping[str, str] = MappingProxyType({}),
) -> EditTask:
    """The task of edits of sources whose latents are `clean`, packed, (S, L, 64); on the models' device.

    reference: the picture that the model looks at, for sources and edits alike. regions: of each source and
    of each edit, the parts that have prompts of their own, encoded in `texts` too; regional: how they obey.

    sources, edits: their prompts, encoded in `texts`, and "" beside them. of: the source of each edit.
    seconds: what T5 read in the place of some of the prompts, as for `flux.generate.encode`.
    sampling: its steps give the noise levels; its guidance is not looked at, for methods bring their own.
    """
    clean = clean.to(models.device, torch.float32)
    return EditTask(
        field=Field(
            flow=models.flow,
            sources=Conditioning.of(texts, sources, regions[0]),
            edits=Conditioning.of(texts, edits, regions[1]),
            empty=Conditioning.of(texts, [""]),
            of=tuple(of),
            size=(sampling.height // 16, sampling.width // 16),
            clean=clean,
            reference=reference,
            regional=regional or Regions(),
        ),
        seeds=tuple(seeds),
        times=tuple(get_schedule(sampling.steps, clean.shape[1], shift=models.spec.shift)),
        spread=models.spec.latent_spread,
        words=tuple(
            _words(models.t5, tuple(seconds.get(each, each) for each in (sources[i], edit)))
            for i, edit in zip(of, edits, strict=True)
        ),
        word_layers=models.spec.word_layers or models.spec.layers.expand("double.*"),
    )


def _words(t5: nn.Module, prompts: tuple[str, str]) -> tuple[Tokens, Tokens]:
    """The tokens that differ between two texts that T5 read; none where its tokenizer does not say which."""
    spans = [t5.spans(prompt) if hasattr(t5, "spans") else None for prompt in prompts]
    return ((), ()) if None in spans else differing_tokens(prompts, tuple(spans))


def _noise(seed: int, draw: int, like: Tensor) -> Tensor:
    state = np.random.SeedSequence((seed, draw)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]) >> 1)
    return torch.randn(like.shape, generator=generator).to(like)


@dataclass(frozen=True)
class MethodStep:
    """One step of a method, from noise level t to t_next; `index`, from 0, of `steps` of its phase.

    phase: "edit", "invert", or what else a method does in turn. edit: the edits' latents behind it,
    (N, L, 64); None while there are none yet. source: the sources', (S, L, 64), where they move.
    mask: what the method itself found of where edits may change their sources, packed, (N, L, 64).
    """

    phase: str
    index: int
    steps: int
    t: float
    t_next: float
    edit: Tensor | None = None
    source: Tensor | None = None
    mask: Tensor | None = None


Method = Callable[..., "object"]
"""Takes a task and its settings by name, and returns an iterator of MethodStep."""


def begin(times: Sequence[float], share: float) -> int:
    """The step that is begun with when `share` of all steps are left out at the noisy end.

    The last step is never left out.
    """
    steps = len(times) - 1
    return min(round(share * steps), steps - 1)
