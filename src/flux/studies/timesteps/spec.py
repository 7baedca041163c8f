"""The spec of demo 1: which picture is watched, and whose attention is drawn."""

from collections.abc import Iterator
from typing import Any, ClassVar

from flux.studies.given import Sparse
from flux.studies.layers import LayerChoice, layer_numbers, layer_problems
from flux.studies.looking import REFERENCE, ReferenceChoice, looking_problems
from flux.studies.prompts import OnePrompt
from flux.studies.spec import Field, Problem, Seed, Spec, below, whole
from flux.studies.watch.spec import Watch, with_watch


class LayerSpec(Sparse, Spec):
    """Demo 1: one picture, seen at every timestep."""

    demo: ClassVar[str] = "layer"
    quiet: ClassVar[frozenset[str]] = frozenset({"reference"})

    prompt: OnePrompt = Field(description="what the picture shows; or the path of a file with one prompt")
    seed: Seed = Field(0, description="of the starting noise; -1 is drawn")
    attention: LayerChoice = Field(
        (),
        description='layers whose attention maps are drawn: numbers, double.i, single.i, "0-3", "all"; the '
        "name of a set; or the path of a file of layers (.json)",
    )
    watch: Watch | None = Field(
        None,
        description="whose attention is watched: where points or a box of the picture look, and which places "
        "look at words of the prompt",
    )
    frame_ms: whole(1, 60_000) = Field(
        200, description="how long the animation shows each step, in milliseconds"
    )
    reference: ReferenceChoice | None = REFERENCE

    @property
    def looks(self) -> bool:
        return self.reference is not None

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        seen = [(("reference",), self.reference)]
        yield from looking_problems(self.model, (self.width, self.height), seen)
        yield from layer_problems(("attention",), self.attention, self.model)
        if self.watch is not None:
            prompts = {"prompt": self.prompt}
            found = self.watch.problems_in(self.model, (self.width, self.height), prompts)
            yield from below(("watch",), found)

    def attention_layers(self) -> tuple[int, ...]:
        return layer_numbers(self.attention, self.model)

    def recipe(self) -> dict[str, Any]:
        recipe = super().recipe() | {"attention": list(self.attention_layers())}
        return with_watch(recipe, self.watch, self.model)
