"""The files of demo 1's run."""

from dataclasses import dataclass

from flux.studies.timesteps.spec import LayerSpec

PICTURE = "picture.png"
WATCHED = "picture"
"""Its name in tables of attention."""


@dataclass(frozen=True)
class Files:
    """The files of a run, by step where there is one of each step; maps[layer] likewise."""

    noisy: list[str]
    estimates: list[str]
    maps: dict[int, list[str]]

    def all(self) -> list[str]:
        return [
            PICTURE,
            *self.noisy,
            *self.estimates,
            *(file for files in self.maps.values() for file in files),
        ]


def files_of(spec: LayerSpec) -> Files:
    """Where each picture of a run goes."""
    steps = [f"step-{i:02}.png" for i in range(1, spec.steps + 1)]
    name = spec.model.record.layers.name
    return Files(
        noisy=[f"noisy/{step}" for step in steps],
        estimates=[f"estimate/{step}" for step in steps],
        maps={
            layer: [f"attention/{name(layer)}/{step}" for step in steps] for layer in spec.attention_layers()
        },
    )
