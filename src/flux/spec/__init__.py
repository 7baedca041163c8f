"""What a demo is asked to do: a frozen model per demo, read from JSON, checked before torch loads."""

from flux.spec.command import Command, read_command
from flux.spec.dino import DinoSpec
from flux.spec.errors import SpecError
from flux.spec.facts import FACTS, ModelFacts
from flux.spec.loading import load_spec
from flux.spec.skip import SkipSpec
from flux.spec.specs import Edit, EditSpec, LayerSpec, ModelChoice, Spec, Strategy, TestSpec
from flux.spec.vital import VitalSet

__all__ = [
    "FACTS",
    "Command",
    "DinoSpec",
    "Edit",
    "EditSpec",
    "LayerSpec",
    "ModelChoice",
    "ModelFacts",
    "SkipSpec",
    "Spec",
    "SpecError",
    "Strategy",
    "TestSpec",
    "VitalSet",
    "load_spec",
    "read_command",
]
