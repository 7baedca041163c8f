"""One spec per demo. The texts below are those of `--help` and of the JSON Schemas."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from flux.models import FROM_TEXT, ModelSpec, configs
from flux.studies.spec.errors import Problem, below
from flux.studies.spec.layer_choice import LayerChoice, layer_numbers, layer_problems
from flux.studies.spec.part import Part, key, part, part_of
from flux.studies.spec.values import (
    device,
    flag,
    folder,
    hub_or_folder,
    layers,
    list_of,
    number,
    one_of,
    or_null,
    path,
    text,
    whole,
    window,
)

SHORTHAND = {"model": "name", "strategy": "name", "source": "prompt", "edits": "prompt", "engine": "name"}
"""Where a bare text may stand for an object, and the key of that object it is the value of."""

MORE_THAN_ANY_SEED = 2**63

count, pixels, share = whole(1), whole(16, multiple=16), number(0, 1)
seed = whole(0, MORE_THAN_ANY_SEED - 1)


@part
class ModelChoice(Part):
    """Which model runs, and where."""

    name: str = key(one_of(FROM_TEXT), "the model", "flux-tiny")
    weights: Path | None = key(
        or_null(folder),
        "a folder with all its weights, such as a clone of FLUX.1-dev; null: where upstream looks for them",
        None,
    )
    device: str = key(device, "auto, cpu, mps, cuda or cuda:1; auto is CUDA where there is one", "auto")
    dtype: str = key(
        one_of(("auto", "float32", "bfloat16", "float16")),
        "of the weights; auto is bfloat16 on CUDA and float32 elsewhere",
        "auto",
    )
    offload: bool = key(flag, "keep on the device only the part that is at work", False)

    @property
    def record(self) -> ModelSpec:
        return configs[self.name]


@part
class Strategy(Part):
    """What an injection copies from the source, and to which image tokens."""

    name: str = key(
        one_of(("copy", "ratio", "threshold")),
        "copy: to all image tokens; ratio: to the share of them that receive most attention in the source; "
        "threshold: to those that receive at least so many times the uniform share",
        "copy",
    )
    ratio: float | None = key(
        or_null(share), 'for "ratio": 0 to 1, a larger one keeps more of the source', None
    )
    threshold: float | None = key(
        or_null(number(0)),
        'for "threshold": 1 is the attention a token would receive if all received the same',
        None,
    )
    keys: bool = key(flag, "copy the keys", True)
    values: bool = key(flag, "copy the values", True)

    def problems(self) -> Iterator[Problem]:
        for name in ("ratio", "threshold"):
            value = getattr(self, name)
            if value is None and self.name == name:
                yield Problem((name,), f'missing: strategy "{name}" needs it')
            if value is not None and self.name != name:
                yield Problem((name,), f'is for strategy "{name}", and the strategy is "{self.name}"', value)


@part
class Source(Part):
    """The picture to edit."""

    prompt: str = key(text, "what the source picture shows")


@part
class Edit(Part):
    """One edit. What it does not say itself, it takes from the spec."""

    prompt: str = key(text, "what the edited picture shows")
    seeds: tuple[int, ...] | None = key(
        or_null(list_of(seed, unique=True)), "several pairs of source and edit, one from each seed", None
    )
    layers: LayerChoice | None = key(or_null(layers), "its own layers", None)
    strategy: Strategy | None = key(or_null(part_of(Strategy, "name")), "its own strategy", None)
    strength: float | None = key(or_null(share), "its own strength", None)
    window: tuple[int, int] | None = key(or_null(window), "its own step window", None)


@part
class Checks(Part):
    """When a run says that an edit did not work."""

    pixel: int = key(
        whole(0, 255),
        "a pixel counts as changed when a channel differs by more than so many of 255 levels",
        8,
    )
    did_nothing: float = key(
        share,
        "an edit did nothing when this share of its pixels, or fewer, differs from the source; the run's "
        "measured noise floor counts where it is larger",
        0.002,
    )
    lost_source: float = key(
        number(-2, 2),
        "an edit lost the source when its DINO similarity to the source is no higher than that of the "
        "picture without injection plus this",
        0.0,
    )
    dino: str = key(
        hub_or_folder,
        "the DINOv2 model: auto (the model's own, or facebook/dinov2-base), off, a folder, or a hub name",
        "auto",
    )


@part
class Spec(Part):
    """What every spec holds.

    Paths are relative to the spec's folder, on the command line to the working directory.
    """

    demo: ClassVar[str]

    model: ModelChoice = key(part_of(ModelChoice, "name"), "the model and where it runs", ModelChoice())
    steps: int = key(or_null(count), "sampling steps; null: the model's own number", None)
    guidance: float | None = key(
        or_null(number(0)), "how strictly the prompt is followed; null: the model's own value", None
    )
    width: int = key(or_null(pixels), "in pixels, a multiple of 16; null: the model's own size", None)
    height: int = key(or_null(pixels), "in pixels, a multiple of 16; null: the model's own size", None)
    output: Path | None = key(
        or_null(path),
        "folder of the run; null: output/<demo>/<name of the spec> in the working directory. Where it holds "
        "a run of another spec, a number is added",
        None,
    )
    overwrite: bool = key(flag, "make a finished run again", False)

    def __post_init__(self) -> None:
        model = self.model.record
        own = {
            "steps": model.num_steps,
            "guidance": model.guidance,
            "width": model.size,
            "height": model.size,
        }
        for name, value in own.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def problems(self) -> Iterator[Problem]:
        if self.model.record.guidance is None and self.guidance is not None:
            yield Problem(("guidance",), f"{self.model.name} takes no guidance: use null", self.guidance)

    def recipe(self) -> dict[str, Any]:
        """What decides the pictures, as plain JSON that reads as the same spec again wherever it is put."""
        return {name: value for name, value in self.as_json().items() if name not in ("output", "overwrite")}


@part
class TestSpec(Spec):
    """Demo 0: a picture of every prompt with every seed."""

    __test__: ClassVar[bool] = False  # for pytest, which would collect it by its name
    demo: ClassVar[str] = "test"

    prompts: tuple[str, ...] = key(list_of(text, or_one=True), "what the pictures show")
    seeds: tuple[int, ...] = key(
        list_of(seed, unique=True, or_one=True), "every prompt is drawn from each of these", (0,)
    )
    batch: int = key(count, "pictures that are made side by side; fewer need less memory", 4)


@part
class LayerSpec(Spec):
    """Demo 1: one picture, seen at every timestep."""

    demo: ClassVar[str] = "layer"

    prompt: str = key(text, "what the picture shows")
    seed: int = key(seed, "of the starting noise", 0)
    attention: LayerChoice = key(
        layers, 'layers whose attention maps are drawn: numbers, double.i, single.i, "all"', ()
    )
    frame_ms: int = key(count, "how long the animation shows each step, in milliseconds", 200)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from layer_problems(("attention",), self.attention, self.model, any_model=False)

    def attention_layers(self) -> tuple[int, ...]:
        return layer_numbers(self.attention, self.model)

    def recipe(self) -> dict[str, Any]:
        return super().recipe() | {"attention": list(self.attention_layers())}


@part
class EditSpec(Spec):
    """Demo 4: a source picture and its edits, made side by side from the same noise."""

    demo: ClassVar[str] = "edit"

    source: Source = key(part_of(Source, "prompt"), "the picture to edit: its prompt")
    edits: tuple[Edit, ...] = key(
        list_of(part_of(Edit, "prompt")), "the edits: prompts, or objects with keys of their own"
    )
    layers: LayerChoice = key(
        layers,
        'layers that are injected: a list of numbers, double.i, single.i, double.*, "all"; the name of a '
        "set; or the path of a vital-set file (.json)",
        "default",
    )
    any_model: bool = key(flag, "take a vital-set file that was found on another model", False)
    strategy: Strategy = key(part_of(Strategy, "name"), "what is copied, to which tokens", Strategy())
    strength: float = key(share, "0 leaves an edit's own keys and values, 1 takes the source's", 1.0)
    window: tuple[int, int] | None = key(
        or_null(window), "[start, stop]: inject from step start to before stop", None
    )
    seed: int = key(seed, "of the noise that source and edits start from", 0)
    batch: int = key(count, "edits that run beside the source at once; fewer need less memory", 4)
    compare: bool = key(flag, "make each edit without injection too", True)
    checks: Checks = key(part_of(Checks), "when to say that an edit did not work", Checks())

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from layer_problems(("layers",), self.layers, self.model, any_model=self.any_model)
        yield from self._window_problems(self.window)
        for i, edit in enumerate(self.edits):
            yield from below(("edits", i), self._edit_problems(edit))

    def _edit_problems(self, edit: Edit) -> Iterator[Problem]:
        if edit.layers is not None:
            yield from layer_problems(("layers",), edit.layers, self.model, any_model=self.any_model)
        yield from self._window_problems(edit.window)

    def _window_problems(self, window: tuple[int, int] | None) -> Iterator[Problem]:
        if window is not None and window[1] > self.steps:
            yield Problem(
                ("window",), f"stop must be at most {self.steps}, the number of steps", list(window)
            )

    def completed(self, edit: Edit) -> Edit:
        """The edit with all it takes from the spec: layers as numbers, strategy, strength, window, seeds."""
        names = ("layers", "strategy", "strength", "window")
        taken = {name: getattr(self, name) for name in names if getattr(edit, name) is None}
        whole = replace(edit, seeds=edit.seeds or (self.seed,), **taken)
        return replace(whole, layers=layer_numbers(whole.layers, self.model))

    def recipe(self) -> dict[str, Any]:
        recipe = super().recipe() | {"layers": list(layer_numbers(self.layers, self.model))}
        for item, edit in zip(recipe["edits"], self.edits, strict=True):
            if edit.layers is not None:
                item["layers"] = list(layer_numbers(edit.layers, self.model))
        return recipe
