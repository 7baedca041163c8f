"""A strip with a cell for each layer: which are chosen, and how much each matters where that was measured."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from flux.models import ModelSpec
from flux.studies.reading import SpecError
from flux.studies.vital import read_vital_set


def layer_strip(value: dict[str, Any], **more: Any) -> gr.HTML:
    """Cells that are chosen by a click or by keys. Not a class, for which Gradio would write a file."""
    here = files("flux.app")
    return gr.HTML(
        value=value,
        html_template=here.joinpath("strip.html").read_text(encoding="utf-8"),
        js_on_load=here.joinpath("strip.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        **more,
    )


def strip_value(
    record: ModelSpec, chosen: Sequence[int] = (), importance: Sequence[float | None] | None = None
) -> dict[str, Any]:
    """What a strip shows. importance: of each layer, from 0 to 1; None for one that was not measured."""
    layers = record.layers
    sets = {name: list(layers.indices(names)) for name, names in record.layer_sets.items()}
    return {
        "names": [layers.name(index) for index in range(len(layers))],
        "chosen": sorted(chosen),
        "importance": list(importance or [None] * len(layers)),
        "sets": sets | {"none": []},
    }


def chosen_in(value: Any) -> list[int]:
    """The layers that are chosen on a strip; what a browser sends may be anything."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    chosen = value.get("chosen") if isinstance(value, Mapping) else None
    return [each for each in chosen or () if type(each) is int]


def measured(root: Path, model: str, count: int) -> list[float | None] | None:
    """How much each layer matters, 0 to 1, by the newest vital set in a folder of runs; None without one.

    A layer matters as much as its picture differs from the reference without it.
    """
    found = sorted(root.glob("**/vital_layers.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in found[:20]:
        with suppress(SpecError, OSError):
            vital = read_vital_set(file)
            if vital.model == model and vital.similarity is not None and len(vital.similarity) == count:
                return scaled([None if each is None else 1 - each for each in vital.similarity])
    return None


def scaled(lost: Sequence[float | None]) -> list[float | None]:
    """Numbers as shares of the largest."""
    most = max((each for each in lost if each is not None), default=0)
    return [None if each is None else max(0.0, min(1.0, each / most)) if most > 0 else 0.0 for each in lost]
