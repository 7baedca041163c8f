"""Fields of a tab into a spec, and a spec into fields. Nothing here knows of components.

What of a spec has no field stands as JSON in a field of its own, `more`, and wins over the others: all of a
spec can be said on the page, and nothing of one that is loaded is lost.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flux.flags import typed
from flux.methods import DEFAULT_METHOD, METHODS, MethodRecord
from flux.models import ModelSpec
from flux.studies.edit.choices import usual_steps
from flux.text_files import parse_json

Json = dict[str, Any]

OWN = ("$schema", "model", "output", "overwrite")
"""Keys that are the page's to say."""


def without_empty(data: Mapping[str, Any]) -> Json:
    """A spec without keys that stand for nothing, which the reader completes."""
    return {key: value for key, value in data.items() if value not in (None, "", [], {})}


def more_keys(text: str | None) -> Json:
    """What was typed as further keys of a spec. Raises ValueError, one line."""
    if not (text or "").strip():
        return {}
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ValueError(f'More keys: {error}: write a JSON object such as {{"batch": 1}}') from None
    if not isinstance(found, dict):
        raise ValueError(
            f'More keys: must be a JSON object such as {{"batch": 1}}; got {text.strip()[:60]!r}'
        )
    return found


def more_text(keys: Mapping[str, Any]) -> str:
    """The other way round: a key on a line."""
    rows = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items())
    return "{" + ",\n ".join(rows) + "}" if keys else ""


def merged(fields: Mapping[str, Any], more: Mapping[str, Any]) -> Json:
    """Fields with further keys, which win; in objects key by key."""
    found = dict(fields)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def rest_of(recipe: Mapping[str, Any], made: Mapping[str, Any]) -> Json:
    """What of a recipe that of the fields lacks: merged into theirs it gives the recipe again."""
    rest: Json = {}
    for key, value in recipe.items():
        if key in OWN or key in made and value == made[key]:
            continue
        other = made.get(key)
        nested = isinstance(value, dict) and isinstance(other, dict) and other.keys() <= value.keys()
        rest[key] = rest_of(value, other) if nested else value
    return rest


def numbers(text: Any) -> Any:
    """What was typed for seeds: one number, or a text such as `0-3` that the reader takes apart."""
    text = str(text).strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) < 20 else text


def lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


# Generate


def generate_spec(
    prompts: str,
    seeds: Any,
    per_prompt: int,
    steps: int,
    guidance: float | None,
    width: int,
    height: int,
    negative_prompt: str,
    true_cfg: float,
    prompt_2: str,
    photo: str | None,
    strength: float,
    mask: str | None,
    more: str | None = None,
) -> Json:
    """Demo 0's spec of these fields. photo, mask: files that lie among the uploads."""
    second = lines(prompt_2)
    start = None if not photo else without_empty({"image": photo, "strength": strength, "mask": mask})
    fields = {
        "prompts": lines(prompts) or [""],
        "seeds": numbers(seeds),
        "per_prompt": per_prompt,
        "steps": steps,
        "guidance": guidance,
        "width": width,
        "height": height,
        "negative_prompt": (negative_prompt or "") if true_cfg > 1 else None,
        "true_cfg": true_cfg if true_cfg > 1 else None,
        "prompt_2": second if len(second) > 1 else (second or [None])[0],
        "start": start,
    }
    return merged({key: value for key, value in fields.items() if value is not None}, more_keys(more))


def generate_fields(spec: Any) -> dict[str, Any]:
    """The fields of a spec of demo 0 that was read, by name, as far as there are any."""
    recipe = spec.recipe()
    texts = [each if isinstance(each, str) else each["prompt"] for each in recipe["prompts"]]
    start = recipe.get("start") or {}
    mask = start.get("mask") or {}
    return {
        "prompts": "\n".join(" ".join(lines(each)) for each in texts),
        "seeds": " ".join(map(str, recipe["seeds"])),
        "per_prompt": recipe.get("per_prompt", 1),
        **{key: recipe[key] for key in ("steps", "guidance", "width", "height")},
        "negative_prompt": _text(recipe.get("negative_prompt")),
        "true_cfg": recipe.get("true_cfg") or 1.0,
        "prompt_2": "\n".join(recipe.get("prompt_2") or ()),
        "photo": start.get("image"),
        "strength": start.get("strength", 0.8),
        "mask": mask.get("where"),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# Edit

SIDE_BY_SIDE = "side by side"
"""What the field of methods says where a spec names none."""
MASKS = ("none", "painted", "auto", "velocity", "words")


def settings_of(text: str | None) -> Json:
    """`start=0.2, guidance=5` as an object. Raises ValueError, one line."""
    found: Json = {}
    for part in re.split(r",(?![^{]*\})", (text or "").replace("\n", ",")):
        if not part.strip():
            continue
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (name and equals and value):
            raise ValueError(
                f"settings: {part.strip()[:60]!r} is no setting: write name=value, with commas between"
            )
        found[name] = typed(value)
    return found


def settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value).strip(chr(34))}" for name, value in settings.items())


def edit_spec(
    prompt: str,
    photo: str | None,
    edits: str,
    method: str,
    settings: str,
    layers: Sequence[int],
    strategy: str,
    amount: float,
    strength: float,
    fade: str,
    start: int,
    stop: int,
    seed: Any,
    steps: int,
    guidance: float | None,
    width: int,
    height: int,
    mask: str,
    mask_file: str | None,
    more: str | None = None,
    *,
    record: ModelSpec,
) -> Json:
    """Demo 4's spec of these fields. photo, mask_file: among the uploads. stop: 0 is behind the last step.

    steps: 0 for the method's own, or the model's. record: of the page's model. Where the photo, or `sources`
    among the further keys, cannot be edited side by side, the method is the usual one. layers: of no meaning
    to methods that look in none; without any, they are named to those that would take a set of their own.
    """
    further = more_keys(more)
    given = settings_of(settings)
    if given and method == SIDE_BY_SIDE:
        raise ValueError("settings: are a method's: choose one")
    if method == SIDE_BY_SIDE and (photo or further.get("sources")) and not further.get("method"):
        method = DEFAULT_METHOD
    row = method_row(further.get("method"), method)
    spec: Json = {
        "source": {"prompt": prompt or ""} | ({"image": photo} if photo else {}),
        "edits": [*(lines(edits) or [""])],
        "strategy": {"name": strategy} | ({} if strategy == "copy" else {strategy: amount}),
        "strength": strength if fade == "constant" else fade,
        "seed": numbers(seed),
        "width": width,
        "height": height,
    }
    if steps:
        spec["steps"] = steps
    if guidance is not None and row is None:
        spec["guidance"] = guidance
    if method != SIDE_BY_SIDE:
        spec["method"] = {"name": method} | given
    if row is None or row.pairs and (layers or row.layers):
        spec["layers"] = [*layers]
    if start or stop:
        usual = record.num_steps if row is None else usual_steps(row, record)
        spec["window"] = [int(start or 0), int(stop or 0) or further.get("steps") or steps or usual]
    if mask == "painted":
        if not mask_file:
            raise ValueError(
                "mask: nothing is painted: paint where the edit may change the picture, or choose another"
            )
        spec["mask"] = {"where": mask_file}
    elif mask != "none":
        spec["mask"] = {"where": mask}
    if further.get("sources"):  # each with edits of its own
        del spec["source"], spec["edits"]
    return merged(spec, further)


def method_row(said: Any, chosen: str | None = None) -> MethodRecord | None:
    """The row of a method, as a spec says it or else as it was chosen; None for one without a row."""
    name = said.get("name", chosen) if isinstance(said, dict) else said or chosen
    return next((row for row in METHODS if row.name == name), None)


def edit_fields(spec: Any) -> dict[str, Any]:
    """The fields of a spec of demo 4 that was read, by name, as far as there are any."""
    recipe = spec.recipe()
    first = (recipe.get("sources") or [{}])[0]
    source = recipe.get("source") or first
    edits = recipe.get("edits") or first.get("edit") or ()
    strategy = recipe["strategy"]
    method = dict(recipe.get("method") or {"name": SIDE_BY_SIDE})
    name = method.pop("name")
    strength = recipe["strength"]
    where = (recipe.get("mask") or {}).get("where")
    painted = where if isinstance(where, str) and where not in MASKS else None
    start, stop = recipe.get("window") or (0, 0)
    return {
        "prompt": source.get("prompt") or "",
        "photo": source.get("image"),
        "edits": "\n".join(" ".join(lines(each["prompt"])) for each in edits),
        "method": name,
        "settings": settings_text(method),
        "layers": list(recipe.get("layers") or ()),
        "strategy": strategy["name"],
        "amount": strategy.get("ratio") or strategy.get("threshold") or 0.5,
        "strength": strength if isinstance(strength, int | float) else 1.0,
        "fade": strength if isinstance(strength, str) else "constant",
        "start": start,
        "stop": stop,
        "seed": str(recipe["seed"]),
        **{key: recipe[key] for key in ("steps", "guidance", "width", "height")},
        "mask": "painted" if painted is not None else _text(where) or "none",
        "mask_file": painted,
    }


# Layers


def layers_spec(
    prompt: str, probe: str, other: str, layers: str, steps: int, seed: Any, more: str | None = None
) -> Json:
    """Demo 2's spec of these fields. other: whose keys and values `carry` takes."""
    one = {"name": probe} | ({"sources": [other]} if probe == "carry" else {})
    fields = {"prompts": [prompt], "probe": one, "layers": layers or "all", "steps": steps}
    return merged(fields | {"seed": numbers(seed), "noise_floor": 0, "batch": 1}, more_keys(more))


def layers_fields(spec: Any) -> dict[str, Any]:
    """The fields of a spec of demo 2 that was read, by name, as far as there are any."""
    recipe = spec.recipe()
    probe, first = recipe.get("probe") or {"name": "skip"}, recipe["prompts"][0]
    other = (probe.get("sources") or [""])[0]
    return {
        "prompt": first["prompt"],
        "probe": probe["name"] if probe["name"] in PROBES else PROBES[0],
        "other": _text(other),
        "layers": ", ".join("+".join(map(str, group)) for group in recipe["layers"]),
        "steps": recipe["steps"],
        "seed": str(first["seed"]),
    }


PROBES = ("skip", "carry")
"""Those of demo 2 that have fields."""


# All


def rest_beyond(asked: Any, spec: Mapping[str, Any], read: Any) -> Json:
    """What of a spec that was read its fields do not say.

    spec: that of the fields; read: reads one, as `flux.app.desk.Desk.read`.
    """
    own = {key: value for key, value in asked.recipe.items() if key not in OWN}
    try:
        made = read(asked.kind, spec).recipe
    except (ValueError, OSError):
        made = {}  # the fields alone say nothing that is whole
    rest = rest_of(own, made)
    if rest.get("sources"):
        made = {key: value for key, value in made.items() if key not in ("source", "edits")}
    return {key: value for key, value in rest.items() if value is not None or key in made}
