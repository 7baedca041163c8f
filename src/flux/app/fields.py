"""Fields of a tab into a spec, and a spec into fields. Nothing here knows of components.

What a spec holds that has no field is kept beside the fields, as `beside`, so that nothing of it is lost.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flux.flags import typed

Json = dict[str, Any]


def without_empty(data: Mapping[str, Any]) -> Json:
    """A spec without keys that stand for nothing, which the reader completes."""
    return {key: value for key, value in data.items() if value not in (None, "", [], {})}


def rest_of(data: Mapping[str, Any], shown: Sequence[str]) -> Json:
    """What of a spec no field shows; what is the page's own to say is none of it."""
    own = ("$schema", "model", "output", "overwrite")
    return {key: value for key, value in data.items() if key not in shown and key not in own}


def numbers(text: Any) -> Any:
    """What was typed for seeds: one number, or a text such as `0-3` that the reader takes apart."""
    text = str(text).strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) < 20 else text


def lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


# Generate

GENERATE = (
    *("prompts", "seeds", "per_prompt", "steps", "guidance", "width", "height"),
    *("negative_prompt", "true_cfg", "prompt_2", "start"),
)
"""Keys of demo 0's spec that have fields, in the order of the fields; `start` has four."""


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
    beside: Mapping[str, Any] | None = None,
) -> Json:
    """Demo 0's spec of these fields. photo, mask: files that lie among the uploads."""
    second = lines(prompt_2)
    start = None if not photo else without_empty({"image": photo, "strength": strength, "mask": mask})
    if start is not None and beside and isinstance(beside.get("start"), dict):
        start = beside["start"] | start
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
    kept = rest_of(beside or {}, GENERATE)
    return kept | {key: value for key, value in fields.items() if value is not None}


def generate_fields(spec: Any) -> dict[str, Any]:
    """The fields of a spec of demo 0 that was read, by name, and under `beside` what has none."""
    recipe = spec.recipe()
    texts = [each if isinstance(each, str) else each["prompt"] for each in recipe["prompts"]]
    plain = all(isinstance(each, str) and "\n" not in each for each in recipe["prompts"])
    beside = rest_of(recipe, GENERATE)
    if not plain:  # prompts with seeds of their own have no field
        raise ValueError(
            "prompts: some have seeds of their own, or several lines, for which there are no fields"
        )
    start = recipe.get("start") or {}
    mask = start.get("mask") or {}
    extra = {key: value for key, value in start.items() if key not in ("image", "strength", "mask", "sha256")}
    if extra:
        beside["start"] = extra
    return {
        "prompts": "\n".join(texts),
        "seeds": " ".join(map(str, recipe["seeds"])),
        "per_prompt": recipe.get("per_prompt", 1),
        **{key: recipe[key] for key in ("steps", "guidance", "width", "height")},
        "negative_prompt": recipe.get("negative_prompt") or "",
        "true_cfg": recipe.get("true_cfg") or 1.0,
        "prompt_2": "\n".join(recipe.get("prompt_2") or ()),
        "photo": start.get("image"),
        "strength": start.get("strength", 0.8),
        "mask": mask.get("where"),
        "beside": beside,
    }


# Edit

SIDE_BY_SIDE = "side by side"
"""What the field of methods says where a spec names none."""
MASKS = ("none", "painted", "auto", "velocity", "words")

EDIT = (
    *("source", "edits", "method", "layers", "strategy", "strength", "window", "seed", "steps", "guidance"),
    *("width", "height", "mask", "watch"),
)
"""Keys of demo 4's spec that have fields."""


def settings_of(text: str | None) -> Json:
    """`start=0.2, guidance=5` as an object. Raises ValueError, one line."""
    found: Json = {}
    for part in (text or "").replace("\n", ",").split(","):
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
    beside: Mapping[str, Any] | None = None,
    point: Sequence[int] | None = None,
) -> Json:
    """Demo 4's spec of these fields. photo, mask_file: among the uploads. stop: 0 is behind the last step.

    steps: 0 for the method's own. point: whose attention is watched in the edits.
    """
    given = settings_of(settings)
    if given and method == SIDE_BY_SIDE:
        raise ValueError("settings: are a method's: choose one")
    kept = rest_of(beside or {}, EDIT)
    own = (beside or {}).get("source")
    source = (own if isinstance(own, dict) else {}) | {"prompt": prompt or ""}
    spec: Json = kept | {
        "source": source | ({"image": photo} if photo else {}),
        "edits": [*(lines(edits) or [""])],
        "layers": [*layers],
        "strategy": {"name": strategy} | ({} if strategy == "copy" else {strategy: amount}),
        "strength": strength if fade == "constant" else fade,
        "seed": numbers(seed),
        "width": width,
        "height": height,
    }
    if steps:
        spec["steps"] = steps
    if guidance is not None and method == SIDE_BY_SIDE:
        spec["guidance"] = guidance
    if method != SIDE_BY_SIDE:
        spec["method"] = {"name": method} | given
        if not layers:
            del spec["layers"]
    if start or stop:
        spec["window"] = [int(start), int(stop) or int(steps) or 1000]
    if mask == "painted":
        if not mask_file:
            raise ValueError(
                "mask: nothing is painted: paint where the edit may change the picture, or choose another"
            )
        spec["mask"] = mask_file
    elif mask != "none":
        spec["mask"] = mask
    if point is not None:
        spec["watch"] = {"points": [[int(each) for each in point]]}
    return spec


def edit_fields(spec: Any) -> dict[str, Any]:
    """The fields of a spec of demo 4 that was read, by name. Raises ValueError for one that has no fields."""
    recipe = spec.recipe()
    if recipe.get("sources") is not None:
        raise ValueError("sources: the page edits one source at a time: run this spec by demo_4_edit.py")
    own = [
        each
        for each in recipe["edits"]
        if any(value not in (None,) for key, value in each.items() if key != "prompt")
    ]
    if own or any("\n" in each["prompt"] for each in recipe["edits"]):
        raise ValueError(
            "edits: some have keys of their own, for which there are no fields: run it by demo_4_edit.py"
        )
    source, strategy = recipe["source"], recipe["strategy"]
    method = dict(recipe.get("method") or {"name": SIDE_BY_SIDE})
    name = method.pop("name")
    strength, mask = recipe["strength"], recipe.get("mask") or {}
    if isinstance(strength, list):
        raise ValueError("strength: a number for each step has no field: run this spec by demo_4_edit.py")
    where = mask.get("where")
    if isinstance(where, list):
        raise ValueError("mask: a box has no field: paint it, or run this spec by demo_4_edit.py")
    window = recipe.get("window") or [0, 0]
    beside = rest_of(recipe, EDIT)
    if source.get("prompt_2"):
        beside["source"] = {"prompt_2": source["prompt_2"]}
    return {
        "prompt": source["prompt"],
        "photo": source.get("image"),
        "edits": "\n".join(each["prompt"] for each in recipe["edits"]),
        "method": name,
        "settings": settings_text(method),
        "layers": list(recipe.get("layers") or ()),
        "strategy": strategy["name"],
        "amount": strategy.get("ratio") or strategy.get("threshold") or 0.5,
        "strength": 1.0 if isinstance(strength, str) else strength,
        "fade": strength if isinstance(strength, str) else "constant",
        "start": window[0],
        "stop": window[1],
        "seed": str(recipe["seed"]),
        **{key: recipe[key] for key in ("steps", "guidance", "width", "height")},
        "mask": "none" if where is None else where if where in MASKS else "painted",
        "mask_file": None if where in (None, *MASKS) else where,
        "beside": beside,
    }
