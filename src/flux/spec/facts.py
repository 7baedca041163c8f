"""What a spec must know of a model before torch is imported. A test holds the table against `flux.util`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from flux.layers import Layers


@dataclass(frozen=True)
class ModelFacts:
    """A text-to-image model: its layers, its defaults in a spec, and what an estimate of cost needs.

    guidance: the default, None for a model that takes none. size: default width and height in pixels.
    *_parameters: counts of each part. ae_width: channels of the autoencoder's finest level.
    decoder_operations: floating-point operations to decode a pixel.
    """

    depth: int = 19
    depth_single: int = 38
    hidden: int = 3072
    steps: int = 50
    guidance: float | None = 3.5
    size: int = 1024
    t5_length: int = 512
    flow_parameters: int = 11_901_408_320
    t5_parameters: int = 4_762_310_656
    clip_parameters: int = 123_060_480
    ae_parameters: int = 83_819_683
    ae_width: int = 128
    decoder_operations: int = 9_496_000

    @property
    def layers(self) -> Layers:
        return Layers(self.depth, self.depth_single)


FLUX_DEV = ModelFacts()

FACTS: Mapping[str, ModelFacts] = MappingProxyType(
    {
        "flux-tiny": ModelFacts(
            depth=4,
            depth_single=8,
            hidden=192,
            steps=16,
            size=128,
            t5_length=48,
            flow_parameters=10_131_392,
            t5_parameters=508_608,
            clip_parameters=439_424,
            ae_parameters=1_049_603,
            ae_width=32,
            decoder_operations=170_500,
        ),
        "flux-dev": FLUX_DEV,
        "flux-dev-krea": FLUX_DEV,
        "flux-dev-kontext": replace(FLUX_DEV, steps=30, guidance=2.5),
        # No guidance embedding: two linear layers of 256 and 3072 to 3072 less.
        "flux-schnell": replace(
            FLUX_DEV, steps=4, guidance=None, t5_length=256, flow_parameters=11_891_178_560
        ),
    }
)
"""The models that make a picture from text alone, by the name the loaders know them by."""
