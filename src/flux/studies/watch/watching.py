"""Watching the rows of a batch while they are sampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from flux.hooks import Hooks, WatchAttention
from flux.modules.words import Spans, tokens_of
from flux.studies.spec import Spec
from flux.studies.watch.kept import WatchedPicture
from flux.studies.watch.spec import Watch
from flux.weights.load import Models


@dataclass(frozen=True)
class Watching:
    """A hook that watches some rows of one batch, and what is known of them.

    layers: that are watched. prompts, spans: of each row of `hook.rows`, as T5 reads it. places: the image
    tokens of each.
    """

    hook: WatchAttention
    layers: tuple[int, ...]
    prompts: tuple[str, ...]
    spans: tuple[Spans | None, ...]
    places: Mapping[str, Sequence[int]]
    words: tuple[str, ...]

    def behind(self, hooks: Hooks | None) -> Hooks:
        """The plan with the hook behind all injections, where it sees what a layer attends with."""
        hooks = Hooks() if hooks is None else hooks
        # By numbers of its own: the chains of a layer are joined in the order in which the plan names it.
        chains = {name: chain for name, chain in hooks.inject.items() if name not in self.layers}
        own = {layer: (*hooks.inject.get(layer, ()), self.hook) for layer in self.layers}
        return replace(hooks, inject={**chains, **own})

    def picture(self, row: int, times: Sequence[float], looking: Sequence[int] = ()) -> WatchedPicture:
        """What was found of one row of the batch, when all steps are done.

        times: where each step starts. looking: the layers in which it looks at a source.
        """
        found, index = self.hook.found, self.hook.rows.index(row)

        def stacked(name: str) -> Tensor:
            by_layer = [
                [getattr(found[layer, step], name)[index] for step in range(len(times))]
                for layer in self.layers
            ]
            return torch.stack([torch.stack(steps) for steps in by_layer])

        return WatchedPicture(
            prompt=self.prompts[index],
            spans=list(self.spans[index] or ()),
            layers=self.layers,
            looking=tuple(layer for layer in self.layers if layer in looking),
            times=tuple(times),
            places=self.places,
            words=dict(zip(self.words, self.hook.words[index], strict=True)),
            from_places=stacked("places"),
            to_words=stacked("words"),
            shares=stacked("shares"),
        )


def watching(
    watch: Watch,
    spec: Spec,
    models: Models,
    rows: Sequence[int],
    prompts: Sequence[str],
    size: tuple[int, int] | None = None,
    *,
    last: bool = False,
    seconds: Mapping[str, str] = MappingProxyType({}),
) -> Watching:
    """Watch `rows` of a batch, whose prompts are `prompts`, as a spec asks for.

    size: (width, height) of the pictures; the spec's where it is left out. last: as `WatchAttention` has it.
    seconds: what T5 reads in the place of some of the prompts; attention goes to its tokens.
    Raises ValueError where words are asked for and the tokenizer does not tell which tokens they are.
    """
    prompts = [seconds.get(prompt, prompt) for prompt in prompts]
    # An encoder of a client's own may know nothing of this.
    of = getattr(models.t5, "spans", lambda prompt: None)
    spans, words = tuple(of(prompt) for prompt in prompts), watch.words or ()
    if words and None in spans:
        raise ValueError(
            "watch.words: the tokenizer of this T5 does not tell where its tokens stand in a prompt: put its "
            "tokenizer.json beside it, or watch points or a box"
        )
    places = watch.places(*(size or (spec.width, spec.height)))
    tokens = [
        [tokens_of(word, prompt, each or ()) for word in words]
        for prompt, each in zip(prompts, spans, strict=True)
    ]
    hook = WatchAttention(rows, list(places.values()), tokens, last=last)
    return Watching(hook, watch.layer_numbers(spec.model), tuple(prompts), spans, places, words)
