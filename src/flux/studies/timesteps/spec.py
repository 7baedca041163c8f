"""The spec of demo 1: which picture is watched, and whose attention is drawn."""

from collections.abc import Iterator
from typing import Any, ClassVar

from flux.studies.spec import Count, Field, Problem, Seed, Spec, Text
from flux.studies.vital import LayerChoice, layer_numbers, layer_problems


class LayerSpec(Spec):
    """Demo 1: one picture, seen at every timestep."""

    demo: ClassVar[str] = "layer"

    prompt: Text = Field(description="what the picture shows")
    seed: Seed = Field(0, description="of the starting noise")
    attention: LayerChoice = Field(
        (), description='layers whose attention maps are drawn: numbers, double.i, single.i, "all"'
    )
    frame_ms: Count = Field(200, description="how long the animation shows each step, in milliseconds")

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from layer_problems(("attention",), self.attention, self.model, any_model=False)

    def attention_layers(self) -> tuple[int, ...]:
        return layer_numbers(self.attention, self.model)

    def recipe(self) -> dict[str, Any]:
        return super().recipe() | {"attention": list(self.attention_layers())}
