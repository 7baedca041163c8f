"""JSON Schemas of the specs, so that editors complete and check them.

python -m flux.studies.schema [folder]     writes them, into json/schema where none is named
"""

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from flux.entry import Console, show
from flux.flags import HELP
from flux.outcome import EXIT_OK, mistake

SCHEMAS = {
    "test": "flux.studies.text.spec:TestSpec",
    "layer": "flux.studies.timesteps.spec:LayerSpec",
    "skip": "flux.studies.sweep.spec:SkipSpec",
    "edit": "flux.studies.edit.spec:EditSpec",
    "dino": "flux.studies.similarity.spec:DinoSpec",
    "vital_layers": "flux.studies.vital:VitalSet",
}
"""Each schema's name, and the object it describes, by its dotted name: studies stand above this file."""

DEMOS = {
    "test": "demo_0_test",
    "layer": "demo_1_layer",
    "skip": "demo_2_skip",
    "dino": "demo_3_dino",
    "edit": "demo_4_edit",
}
"""The demo that reads a spec, by the name of its schema."""


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a spec."""
    kind = resolve_name(SCHEMAS[name])
    body = _without_titles(kind.model_json_schema())
    link = {"$schema": {"description": "the schema, for editors", "type": "string"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        **body,
        "description": inspect.cleandoc(kind.__doc__).partition("\n")[0],
        "properties": {**link, **body["properties"]},
    }


def _without_titles(node: Any) -> Any:
    """Without what pydantic repeats from the keys: titles, and null as a default."""
    if isinstance(node, list):
        return [_without_titles(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _without_titles(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else _without_titles(value)
        for key, value in node.items()
        if key != "title" and not (key == "default" and value is None)
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


def main(argv: Sequence[str] = ()) -> int:
    """Write the schemas, and say where; returns the exit code."""
    if any(word in HELP for word in argv):
        print(__doc__.strip())
        return EXIT_OK
    if len(argv) > 1 or any(word.startswith("-") for word in argv):
        return mistake(f"name one folder and nothing else; got {' '.join(argv)}")
    try:
        for path in write_schemas(Path(*argv or ("json/schema",))):
            show(path)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        return mistake(f"the schemas cannot be written: {error}")
    return EXIT_OK


if __name__ == "__main__":
    with Console():
        sys.exit(main(sys.argv[1:]))
