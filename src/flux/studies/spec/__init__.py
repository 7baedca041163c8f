"""What a demo is asked to do: a frozen model per demo, read from JSON, checked before torch loads."""

from flux.studies.spec.command import Command, read_command
from flux.studies.spec.dino import DinoSpec
from flux.studies.spec.errors import SpecError
from flux.studies.spec.loading import load_spec
from flux.studies.spec.skip import SkipSpec
from flux.studies.spec.specs import Edit, EditSpec, LayerSpec, ModelChoice, Spec, Strategy, TestSpec
from flux.studies.spec.vital import VitalSet

__all__ = [
    "Command",
    "DinoSpec",
    "Edit",
    "EditSpec",
    "LayerSpec",
    "ModelChoice",
    "SkipSpec",
    "Spec",
    "SpecError",
    "Strategy",
    "TestSpec",
    "VitalSet",
    "load_spec",
    "read_command",
]
