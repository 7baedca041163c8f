"""What demo 2 does to the layers: the keys `probe` and `windows` of its spec."""

import importlib.util
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from flux.flags import choices
from flux.limits import MOST_PROMPTS
from flux.probes import PROBES, RECORDS, hooks_of
from flux.studies.prompts import Prompt
from flux.studies.spec import (
    Distinct,
    Field,
    PlainValidator,
    Problem,
    Section,
    Window,
    WithJsonSchema,
)

if TYPE_CHECKING:
    from flux.studies.sweep.spec import SkipSpec

DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _name(value: Any) -> str:
    """A probe's name, or that of a function whose module can be found."""
    if not isinstance(value, str) or (value not in RECORDS and not DOTTED.fullmatch(value)):
        text = choices([*RECORDS], value) if isinstance(value, str) else f"choose from {', '.join(RECORDS)}"
        raise ValueError(f'{text}, or name a function of your own, "package.module:function"')
    if value not in RECORDS:
        module = value.partition(":")[0]
        try:
            found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            raise ValueError(f"no module {module} can be imported here")
    return value


ProbeName = Annotated[str, PlainValidator(_name), WithJsonSchema({"type": "string"})]
Scale = Annotated[float, Field(ge=-100, le=100)]


def _heads(value: Any) -> tuple[int, ...] | str:
    if value == "all":
        return "all"
    heads = [value] if type(value) is int else value
    numbers = isinstance(heads, list | tuple) and all(type(head) is int for head in heads)
    if not numbers or not heads or min(heads) < 0 or len(set(heads)) < len(heads):
        raise ValueError('must be "all", or numbers of heads, from 0, each once')
    return tuple(heads)


Heads = Annotated[
    tuple[int, ...] | str,
    PlainValidator(_heads),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "all"},
                {"type": "integer", "minimum": 0},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            ]
        }
    ),
]


class ProbeChoice(Section):
    """What is done to a layer."""

    text_key: ClassVar[str] = "name"

    name: ProbeName = Field(
        "skip",
        description="; ".join(f"{row.name}: {row.about}" for row in PROBES)
        + '; or a function of your own, layer -> flux.hooks.Hooks, as "package.module:function"',
    )
    keys: bool | None = Field(None, description="for carry: copy the keys; null: true")
    values: bool | None = Field(None, description="for carry: copy the values; null: true")
    scale: Scale | None = Field(None, description="for text-scale: what the text's values are multiplied by")
    heads: Heads | None = Field(
        None, description='one head at a time: numbers, or "all"; null: all heads of a layer at once'
    )
    sources: (
        Annotated[tuple[Prompt, ...], Field(strict=False, min_length=1, max_length=MOST_PROMPTS)] | None
    ) = Field(
        None,
        description="for carry and region: for each prompt another one, whose keys and values, or whose "
        "text, its picture takes; null: the prompt that stands half the list further",
    )

    def problems(self) -> Iterator[Problem]:
        record = RECORDS.get(self.name)
        known = record.options if record else {}
        for name in ("keys", "values", "scale"):
            value = getattr(self, name)
            if value is not None and name not in known:
                yield Problem((name,), f'is not for probe "{self.name}"', value)
        if self.scale is None and "scale" in known:
            yield Problem(("scale",), f'missing: probe "{self.name}" needs it')
        if self.keys is False and self.values is False:
            yield Problem(("values",), "copy keys, values, or both", False)
        if self.sources is not None and not (record and record.sources):
            yield Problem(("sources",), f'is not for probe "{self.name}"', list(self.sources))
        if self.heads is not None and not (record and record.heads):
            with_heads = ", ".join(row.name for row in PROBES if row.heads)
            yield Problem(("heads",), f'is not for probe "{self.name}": choose from {with_heads}', self.heads)

    def problems_with(self, spec: "SkipSpec") -> Iterator[Problem]:
        """What is wrong with it for the model and the prompts of a spec."""
        count = spec.model.record.params.num_heads
        if isinstance(self.heads, tuple):
            for i, head in enumerate(self.heads):
                if head >= count:
                    yield Problem(
                        ("probe", "heads", i), f"{spec.model.name} has heads 0 to {count - 1}", head
                    )
        if self.name in RECORDS and RECORDS[self.name].references:
            if spec.model.record.reference != "kontext":
                text = f"is about reference tokens, and {spec.model.name} has none: choose flux-dev-kontext"
                yield Problem(("probe", "name"), text, self.name)
            elif not any(each.picture for each in spec.prompts):
                yield Problem(("prompts",), f'probe "{self.name}" needs a picture to look at for each')
        if not (self.name in RECORDS and RECORDS[self.name].sources):
            return
        if self.sources is None and len(spec.prompts) < 2:
            yield Problem(
                ("prompts",), f'probe "{self.name}" needs two prompts or more: each has another as source'
            )
        elif self.sources is not None and len(self.sources) != len(spec.prompts):
            text = f"needs one for each of the {len(spec.prompts)} prompts; got {len(self.sources)}"
            yield Problem(("probe", "sources"), text)
        else:
            for i, source in enumerate(self.sources_of(spec)):
                if source == spec.prompts[i].prompt:
                    place = ("prompts", i) if self.sources is None else ("probe", "sources", i)
                    yield Problem(place, "is its own source: it carries nothing else", source)

    def sources_of(self, spec: "SkipSpec") -> tuple[str, ...]:
        """By prompt, the text of its source."""
        texts = [each.prompt for each in spec.prompts]
        if self.sources is not None:
            return self.sources
        return tuple(texts[(i + len(texts) // 2) % len(texts)] for i in range(len(texts)))

    def heads_of(self, spec: "SkipSpec") -> list[int] | None:
        """The heads that it is done to one by one; None for all at once."""
        if self.heads == "all":
            return list(range(spec.model.record.params.num_heads))
        return None if self.heads is None else list(self.heads)

    def recipe(self, spec: "SkipSpec") -> dict[str, Any]:
        """As plain JSON, without what stands for nothing."""
        record = RECORDS.get(self.name)
        options = {
            name: option.default if getattr(self, name) is None else getattr(self, name)
            for name, option in (record.options if record else {}).items()
        }
        recipe: dict[str, Any] = {"name": self.name, **options}
        if (heads := self.heads_of(spec)) is not None:
            recipe["heads"] = heads
        if record and record.sources:
            recipe["sources"] = list(self.sources_of(spec))
        return recipe


def check_own(spec: "SkipSpec") -> None:
    """Ask a user's own function for its hooks once, before a model is loaded for them.

    Raises ValueError, one line, where there is no such function, or it gives none for one of the layers.
    """
    if spec.probe.name in RECORDS:
        return
    for group in spec.groups():
        try:
            hooks_of(spec.probe.name, group)
        except Exception as error:  # whatever a user's code raises
            words = " ".join(f"{type(error).__name__}: {error}".split())
            layers = "+".join(map(str, group))
            raise ValueError(f'probe.name = "{spec.probe.name}": of layer {layers}: {words}') from error


Windows = Distinct[Window]
"""Windows of steps, each once."""


def window_problems(windows: tuple[tuple[int, int], ...] | None, steps: int) -> Iterator[Problem]:
    """Windows that reach beyond the steps."""
    for i, (start, stop) in enumerate(windows or ()):
        if stop > steps:
            yield Problem(("windows", i), f"stop must be at most {steps}, the number of steps", [start, stop])
