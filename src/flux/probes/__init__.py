"""What does a layer need, carry and say? A probe changes one thing inside a layer, and one looks what becomes
of the picture. One file and one row each; imports no torch.

A probe is a function of a `Spot`, and of its own options by name, to the hooks that change it:

    def attention(spot: Spot) -> Hooks

`hooks_of` joins those of layers that are changed together, and keeps them to a window of steps. A user's own
probe is a function `layer -> Hooks` (the number of a layer), by its dotted name `package.module:function`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flux.hooks import Hooks


@dataclass(frozen=True)
class Spot:
    """What a probe changes: a layer, by its number, or one head of it.

    sources: how many rows at the start of the batch are sources; as many follow, each with its own.
    """

    layer: int
    head: int | None = None
    sources: int = 0


@dataclass(frozen=True)
class Option:
    """A number or a switch that a probe takes: its default and, of a number, its bounds. about: in words."""

    about: str
    default: bool | float
    lowest: float = 0
    highest: float = 0


@dataclass(frozen=True)
class ProbeRecord:
    """What is known of a probe before it runs.

    done: what was done to a layer, as in "layer 3 skipped". function: its dotted name.
    sources: whether each picture has a source beside it, made from another prompt and the same noise.
    heads: whether it can be done to one head at a time.
    references: whether it is about reference tokens, as Kontext has them.
    """

    name: str
    about: str
    done: str
    function: str
    options: Mapping[str, Option] = field(default_factory=dict)
    sources: bool = False
    heads: bool = False
    references: bool = False


PROBES: tuple[ProbeRecord, ...] = (
    ProbeRecord("skip", "the layer is left out", "skipped", "flux.probes.halves:skip"),
    ProbeRecord(
        "attention",
        "its attention is left out; of a head, its output",
        "without attention",
        "flux.probes.halves:attention",
        heads=True,
    ),
    ProbeRecord("mlp", "its MLP is left out", "without MLP", "flux.probes.halves:mlp"),
    ProbeRecord(
        "carry",
        "image tokens take keys and values of another prompt's picture: what does the layer carry of it?",
        "taking a source's keys and values",
        "flux.probes.carrying:carry",
        {"keys": Option("copy the keys", True), "values": Option("copy the values", True)},
        sources=True,
        heads=True,
    ),
    ProbeRecord(
        "text", "image tokens do not see the text", "without text", "flux.probes.reading:text", heads=True
    ),
    ProbeRecord(
        "text-scale",
        "image tokens see the values of text tokens times scale",
        "with text scaled",
        "flux.probes.reading:text_scale",
        {"scale": Option("what the text's values are multiplied by", 0.0, -100, 100)},
        heads=True,
    ),
    ProbeRecord(
        "region",
        "the picture's lower half reads the text of another prompt: does the layer obey regional prompts?",
        "with a stranger's text in the lower half",
        "flux.probes.regional:region",
        sources=True,
        heads=True,
    ),
    ProbeRecord(
        "hide",
        "text and picture do not see the picture that Kontext looks at: what does the layer carry of it?",
        "with what Kontext looks at hidden",
        "flux.probes.hiding:hide",
        heads=True,
        references=True,
    ),
    ProbeRecord(
        "mean",
        "values of image tokens are their mean, head by head",
        "with mean values",
        "flux.probes.averaging:mean",
        heads=True,
    ),
)

RECORDS: Mapping[str, ProbeRecord] = {row.name: row for row in PROBES}


def hooks_of(
    probe: str,
    layers: tuple[int, ...],
    *,
    head: int | None = None,
    window: tuple[int, int] | None = None,
    sources: int = 0,
    options: Mapping[str, Any] | None = None,
) -> "Hooks":
    """The hooks that change layers together. probe: a name of `PROBES`, or the dotted name of a function.

    window: (start, stop), the steps it is done in. sources: see `Spot`. options: those that are not at their
    default. Raises ValueError for a probe that gives no hooks, or whose layers get into each other's way.
    """
    from flux.hooks import Hooks

    record = RECORDS.get(probe)
    if record is None:
        own = resolve_name(probe)
        plans = [own(layer) for layer in layers]
    else:
        values = {name: option.default for name, option in record.options.items()} | dict(options or {})
        make = resolve_name(record.function)
        plans = [make(Spot(layer, head, sources), **values) for layer in layers]
    wrong = next((plan for plan in plans if not isinstance(plan, Hooks)), None)
    if wrong is not None:
        raise ValueError(f"probe {probe} must return flux.hooks.Hooks; got {type(wrong).__name__}")
    joined = plans[0]
    for plan in plans[1:]:
        joined = joined.joined(plan)
    return joined if window is None else joined.within(*window)
