"""The spec of demo 4: a source, its edits, and when to say that one did not work."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from flux.flags import UsageError, shown
from flux.methods import STRATEGIES
from flux.prompts import prompt_file
from flux.studies.layers import LayerChoice, layer_numbers, layer_problems
from flux.studies.prompts import OnePrompt, Prompt, PromptItem, from_file, read_prompts
from flux.studies.spec import (
    Field,
    HubOrFolder,
    PlainValidator,
    Problem,
    Rows,
    Section,
    Seed,
    Seeds,
    Several,
    Share,
    Spec,
    WithJsonSchema,
    below,
    whole,
)

MOST_PAIRS = 1000

_PARAMETERS = {row.name: row.parameter for row in STRATEGIES if row.parameter is not None}


def _parameter(name: str) -> Any:
    """The type of the key that holds a strategy's number."""
    known = _PARAMETERS[name]
    about = f'for "{name}": {known.about}'
    return Annotated[float | None, Field(ge=known.lowest, le=known.highest, description=about)]


class Strategy(Section):
    """What an injection copies from the source, and to which image tokens."""

    text_key: ClassVar[str] = "name"

    name: Literal[tuple(row.name for row in STRATEGIES)] = Field(
        STRATEGIES[0].name, description="; ".join(f"{row.name}: {row.about}" for row in STRATEGIES)
    )
    ratio: _parameter("ratio") = None
    threshold: _parameter("threshold") = None
    keys: bool = Field(True, description="copy the keys")
    values: bool = Field(True, description="copy the values")

    def problems(self) -> Iterator[Problem]:
        for name in _PARAMETERS:
            value = getattr(self, name)
            if value is None and self.name == name:
                yield Problem((name,), f'missing: strategy "{name}" needs it')
            if value is not None and self.name != name:
                yield Problem((name,), f'is for strategy "{name}", and the strategy is "{self.name}"', value)


def _window(value: Any) -> tuple[int, int]:
    whole = isinstance(value, list | tuple) and all(type(step) is int for step in value)
    if not whole or len(value) != 2 or not 0 <= value[0] < value[1]:
        raise ValueError("must be [start, stop], two whole numbers with 0 <= start < stop")
    return tuple(value)


Window = Annotated[
    tuple[int, int],
    PlainValidator(_window),
    WithJsonSchema(
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}
    ),
]


class Source(Section):
    """The picture to edit."""

    text_key: ClassVar[str] = "prompt"

    prompt: OnePrompt = Field(description="what the source picture shows")


class EditItem(Section):
    """One edit. What it does not say itself, it takes from the spec."""

    text_key: ClassVar[str] = "prompt"

    prompt: Prompt = Field(description="what the edited picture shows")
    seeds: Seeds | None = Field(None, description="several pairs of source and edit, one from each seed")
    layers: LayerChoice | None = Field(None, description="its own layers")
    strategy: Strategy | None = Field(None, description="its own strategy")
    strength: Share | None = Field(None, description="its own strength")
    window: Window | None = Field(None, description="its own step window")


class Checks(Section):
    """When a run says that an edit did not work."""

    pixel: whole(0, 255) = Field(
        8, description="a pixel counts as changed when a channel differs by more than so many of 255 levels"
    )
    did_nothing: Share = Field(
        0.002,
        description="an edit did nothing when this share of its pixels, or fewer, differs from the source; "
        "the run's measured noise floor counts where it is larger",
    )
    lost_source: Share = Field(
        0.2,
        description="an edit lost the source when more of it is lost than this: outlines that only one of "
        "the two has, and places that look like neither the source nor the picture without injection; a "
        "model's judge, which flux-tiny has, decides instead where it understands the prompts",
    )
    dino: HubOrFolder = Field(
        "auto",
        description="the DINOv2 model for similarities: auto (the model's own, or facebook/dinov2-base), "
        "off, a folder, or a hub name",
    )


def _edit(item: PromptItem) -> Any:
    """A prompt of a file as an edit."""
    return item.prompt if item.seed is None else {"prompt": item.prompt, "seeds": [item.seed]}


def _typed_prompts(words: list[Any]) -> list[Any]:
    """What was typed behind `--prompts`, or the prompts of the file that was; at least one entry."""
    try:
        path = prompt_file(words[0]) if len(words) == 1 and isinstance(words[0], str) else None
        return list(read_prompts(path)) if path is not None else words or [""]
    except ValueError as error:
        raise UsageError(f"--prompts = {shown(words)}: {error}") from None


class EditSpec(Spec):
    """Demo 4: a source picture and its edits, made side by side from the same noise."""

    demo: ClassVar[str] = "edit"

    source: Source = Field(description="the picture to edit: its prompt")
    edits: Annotated[Several[EditItem], from_file(EditItem, alone=(), entry=_edit)] = Field(
        description="the edits: prompts, or objects with keys of their own; or the path of a file of prompts"
    )
    layers: LayerChoice = Field(
        "default",
        description='layers that are injected: numbers, double.i, single.i, "0-3", double.*, "all"; the name '
        "of a set; or the path of a vital-set file (.json)",
    )
    any_model: bool = Field(False, description="take a vital-set file that was found on another model")
    strategy: Strategy = Field("copy", validate_default=True, description="what is copied, to which tokens")
    strength: Share = Field(1.0, description="0 leaves an edit's own keys and values, 1 takes the source's")
    window: Window | None = Field(None, description="[start, stop]: inject from step start to before stop")
    seed: Seed = Field(0, description="of the noise that source and edits start from; -1 is drawn")
    batch: Rows = Field(4, description="edits that run beside the source at once; fewer need less memory")
    compare: bool = Field(True, description="make each edit without injection too")
    checks: Checks = Field({}, validate_default=True, description="when to say that an edit did not work")

    @classmethod
    def from_flags(cls, flags: dict[str, Any]) -> dict[str, Any]:
        """`--prompts "source" "edit 1" ...`, or a file of these, as the source and its edits."""
        if "prompts" not in flags:
            return flags
        source, *edits = _typed_prompts(flags.pop("prompts"))
        if not edits:
            raise UsageError(
                '--prompts: needs the source\'s prompt and at least one edit\'s: --prompts "source" "edit"'
            )
        if isinstance(source, PromptItem):
            own = {} if source.seed is None else {"seed": source.seed}
            return {"source": {"prompt": source.prompt}, "edits": list(map(_edit, edits)), **own, **flags}
        return {"source": {"prompt": source} if isinstance(source, str) else source, "edits": edits, **flags}

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        pairs = sum(1 if edit.seeds is None else len(edit.seeds) for edit in self.edits)
        if pairs > MOST_PAIRS:
            yield Problem(
                ("edits",), f"{pairs} pairs of source and edit are more than the {MOST_PAIRS} of one run"
            )
            return
        yield from self._choice_problems(self)
        for i, edit in enumerate(self.edits):
            yield from below(("edits", i), self._choice_problems(edit))

    def _choice_problems(self, chosen: "EditSpec | EditItem") -> Iterator[Problem]:
        """What is wrong with the layers and the window of the spec, or of an edit."""
        if chosen.layers is not None:
            yield from layer_problems(("layers",), chosen.layers, self.model, any_model=self.any_model)
        if chosen.window is not None and chosen.window[1] > self.steps:
            yield Problem(
                ("window",), f"stop must be at most {self.steps}, the number of steps", list(chosen.window)
            )

    def recipe(self) -> dict[str, Any]:
        recipe = super().recipe() | {"layers": list(layer_numbers(self.layers, self.model))}
        for item, edit in zip(recipe["edits"], self.edits, strict=True):
            if edit.layers is not None:
                item["layers"] = list(layer_numbers(edit.layers, self.model))
        return recipe
