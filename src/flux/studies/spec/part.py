"""Objects of a spec as frozen dataclasses, read from JSON with every mistake collected.

@part
class Source(Part):
    prompt: str = key(text, "what the source picture shows")

Source.read({"prompt": "a red house"}, Context())
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from flux.studies.spec.errors import Problem, Refused, below, choices
from flux.studies.spec.values import Context, Kind

P = TypeVar("P", bound="Part")

part = dataclass(frozen=True, kw_only=True)
"""The decorator of every part."""


def key(kind: Kind, about: str, default: Any = MISSING) -> Any:
    """A key of a part: its kind, its meaning, and its default; without one the key must be given."""
    return field(default=default, metadata={"kind": kind, "about": about})


@part
class Part:
    """An object with a fixed set of keys."""

    @classmethod
    def read(cls: type[P], data: Any, context: Context) -> P:
        """From JSON. Raises Refused with every mistake: unknown or missing keys, wrong values, `problems`."""
        if isinstance(data, cls):
            return data
        keys = {each.name: each for each in fields(cls)}
        if not isinstance(data, Mapping):
            raise Refused([Problem((), f"must be an object with the keys {', '.join(keys)}", data)])
        values, wrong = {}, []
        for name, value in data.items():
            if name == "$schema":  # for editors
                continue
            if name not in keys:
                wrong.append(Problem((name,), f"unknown key, {choices(keys, name)}", value))
                continue
            try:
                values[name] = keys[name].metadata["kind"].read(value, context)
            except Refused as refused:
                wrong += below((name,), refused.problems)
        missing = [name for name, each in keys.items() if each.default is MISSING and name not in data]
        wrong += [Problem((name,), f"missing: {keys[name].metadata['about']}") for name in missing]
        if wrong:
            raise Refused(wrong)
        self = cls(**values)
        wrong = list(self.problems())
        if wrong:
            raise Refused(wrong)
        return self

    def problems(self) -> Iterator[Problem]:
        """What is wrong between keys that are right by themselves."""
        return iter(())

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The JSON Schema of the object."""
        needed = [each.name for each in fields(cls) if each.default is MISSING]
        return {
            "description": inspect.cleandoc(cls.__doc__ or "").partition("\n")[0],
            "type": "object",
            "properties": {each.name: _schema_of(each) for each in fields(cls)},
            "additionalProperties": False,
            **({"required": needed} if needed else {}),
        }

    def as_json(self) -> dict[str, Any]:
        """As plain JSON that reads as an equal part from any folder."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def _schema_of(each: dataclasses.Field) -> dict[str, Any]:
    default = {} if each.default in (MISSING, None) else {"default": _plain(each.default)}
    return {"description": each.metadata["about"], **each.metadata["kind"].schema, **default}


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.as_json()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def part_of(cls: type[Part], text_key: str | None = None) -> Kind:
    """The kind of a nested part. text_key: a bare text stands for an object with this key alone."""

    def read(value: Any, context: Context) -> Part:
        return cls.read({text_key: value} if text_key and isinstance(value, str) else value, context)

    schema = cls.schema()
    return Kind(read, {"anyOf": [{"type": "string"}, schema]} if text_key else schema, cls)
