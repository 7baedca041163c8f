"""JSON Schemas of the specs, so that editors complete and check them."""

import json
from pathlib import Path
from typing import Any

from flux.studies.spec.dino import DinoSpec
from flux.studies.spec.skip import SkipSpec
from flux.studies.spec.specs import EditSpec, LayerSpec, TestSpec
from flux.studies.spec.vital import VitalSet

SCHEMAS = {
    "test": TestSpec,
    "layer": LayerSpec,
    "skip": SkipSpec,
    "edit": EditSpec,
    "dino": DinoSpec,
    "vital_layers": VitalSet,
}
"""Each schema's name, and the object it describes."""


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a spec."""
    body = SCHEMAS[name].schema()
    link = {"$schema": {"description": "the schema, for editors", "type": "string"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        **body,
        "properties": {**link, **body["properties"]},
    }


def schema_text(name: str) -> str:
    """As it stands in `json/schema/<name>.json`."""
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema into `folder` and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json" for name in SCHEMAS]
    for path in paths:
        path.write_text(schema_text(path.stem), encoding="utf-8")
    return paths
