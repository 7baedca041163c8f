"""All rows of the table. One that differs from another says only what differs.

Rows are made for a model: layers are those of its record.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from editing_parts.rows import MANY, Named, Row, Run
from flux.methods import METHODS, method_record
from flux.models import ModelSpec, configs

BEST = Path(__file__).resolve().parents[1] / "results" / "editing_best.json"
"""What `editing.py tune` chose on the tuning split: settings by method."""

OURS = "gentle"
DEFAULT = {"photos": "ours", "generated": "ours, generated"}
"""The rows that all others are compared with."""

BOTH = ("photos", "generated")
GENERATED = ("generated",)
DECIDING = ("flowedit", "decflowedit")
"""Methods that are measured on all pairs."""

PLAIN = Run("flowedit", {"guidance": 1.0, "source_guidance": 1.0, "start": 2 / 16})
"""FlowEdit at guidance 1 on both sides, 14 of 16 steps: where the third trial starts."""
GUIDED = replace(PLAIN, settings=PLAIN.settings | {"guidance": 3.5, "source_guidance": 3.5})
GATE: Named = ("gate", {"limit": 0.85})
MASKED: Named = ("masked", {})
GATED = replace(PLAIN, operators=(GATE,))
BESIDE = Run("editing_parts.beside:beside")
"""A generated source and its edit from the same noise, as demo 4 makes them."""

Layers = tuple[str | int, ...]


def catalogue(spec: ModelSpec, best: Path = BEST) -> list[Row]:
    """Every row, for photographs and for generated pictures."""
    rows = [
        *_baselines(),
        *_ours(),
        *_stable_flow(spec),
        *_as_published(),
        *_tuned(spec, best),
        *_operators(),
    ]
    rows += [*_looks(spec), *_masks(), *_finishes(), *_generated(spec)]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return rows


def at(layers: Layers, **role: Any) -> tuple[dict[str, Any], ...]:
    """The look of one role."""
    return ({"layers": layers, **role},) if layers else ()


def _baselines() -> Iterator[Row]:
    section = "to read the columns by"
    yield Row("the photo", None, section, "nothing edited", pairs=MANY, sources=BOTH)
    yield Row("the autoencoder alone", None, section, "nothing edited", pairs=MANY)
    about = "the rendered target: what the judge sees"
    yield Row("the right answer", None, section, about, pairs=MANY, bound=True)


def _ours() -> Iterator[Row]:
    """The package's default for photographs; that for generated pictures stands with its like."""
    run = Run(OURS, steps=steps_of(OURS))
    row = Row("ours", run, "ours", "the package's default", paste="auto", pairs=MANY)
    yield row
    yield replace(row, name="ours, not pasted", about="", paste=False)


def _stable_flow(spec: ModelSpec) -> Iterator[Row]:
    """The paper's rule on photographs, and its ablations."""
    section, rule = "the paper's rule and its ablations", Run("stable-flow", look=at(vital_of(spec)))
    row = Row("stable flow", rule, section, pairs=99)
    yield replace(row, about="vital layers, nudge undone, pinned right", pairs=MANY)
    yield replace(row, name="stable flow, pasted", paste=True, pairs=MANY)
    sets = {"all layers": ("all",), "no layers": (), "least important layers": least_of(spec)}
    if "default" in spec.layer_sets:
        sets["default layers"] = spec.layer_sets["default"]
    for name, layers in sets.items():
        if layers or name == "no layers":
            yield replace(row, name=f"stable flow, {name}", run=replace(rule, look=at(layers)))
    for name, settings in (
        ("without a nudge", {"nudge": 1.0}),
        ("nudge not undone", {"undo_nudge": False}),
        ("pinned as released", {"pinning": "released"}),
        ("free", {"pinning": "free"}),
        ("exact", {"pinning": "exact"}),
        ("by midpoint, without a nudge", {"integrator": "midpoint", "nudge": 1.0}),
    ):
        yield replace(row, name=f"stable flow, {name}", run=replace(rule, settings=settings))
    for name, number in (("ratio", 0.5), ("threshold", 1.0)):
        look = at(vital_of(spec), select=(name, number))
        yield replace(row, name=f"stable flow, {name} {number}", run=replace(rule, look=look))


def _as_published() -> Iterator[Row]:
    """Every other method at its paper's settings, without and with paste-back."""
    more = {
        "decflowedit": {"decflowedit, full first stage": {"search": 1.0}},
        "uniedit": {"uniedit, depth .8": {"depth": 0.8}},
    }
    for method in METHODS:
        if method.name in ("stable-flow", OURS):
            continue
        run = Run(method.name, mask=mask_of(method.name))
        pairs = MANY if method.name in DECIDING else 99
        for name, settings in ({method.name: {}} | more.get(method.name, {})).items():
            row = Row(name, replace(run, settings=settings), "as published", method.about, pairs=pairs)
            yield replace(row, sources=BOTH)
            yield replace(row, name=f"{name}, pasted", about="", paste=True)
        if method.needs_mask:
            about = "a bound: nobody knows it"
            yield Row(
                f"{method.name}, true mask", replace(run, mask="true"), "as published", about, bound=True
            )


def _tuned(spec: ModelSpec, best: Path) -> Iterator[Row]:
    """What was tuned on this model; on another it is nobody's best."""
    found = json.loads(best.read_text(encoding="utf-8")) if best.is_file() else {"methods": {}}
    if configs.get(found.get("model"), spec) != spec:
        return
    for name, choice in found["methods"].items():
        run = Run(name, choice["settings"], steps_of(name), tuple(choice["look"]), mask_of(name))
        row = Row(f"{name}, tuned", run, "at its best on the tuning split", choice["said"])
        yield row
        yield replace(row, name=f"{name}, tuned, pasted", about="", paste=True)


def _operators() -> Iterator[Row]:
    section = "operators and guidance, on FlowEdit at guidance 1"
    yield Row("1 / 1", PLAIN, section, "no operator", pairs=MANY, sources=BOTH)
    yield Row("1 / 1, pasted", PLAIN, section, paste=True, pairs=MANY)
    alone = (GATE, ("velo-edit", {"limit": 0.85}), ("perpendicular", {}), ("blend", {}))
    for operator in alone:
        yield Row(f"1 / 1, {operator[0]}", replace(PLAIN, operators=(operator,)), section)
    both = replace(PLAIN, operators=(GATE, ("perpendicular", {})))
    yield Row("1 / 1, gate and perpendicular", both, section)
    for name in ("exponential", "vags"):
        yield Row(f"1 / 1, {name}", replace(PLAIN, schedules=(None, (name, {}))), section)
    for guidance in (2.0, 3.5):
        run = replace(GATED, settings=GATED.settings | {"guidance": guidance})
        yield Row(f"1 / {guidance:g}, gate", run, section)
        yield Row(f"1 / {guidance:g}, gate, pasted", run, section, paste=True)


def _looks(spec: ModelSpec) -> Iterator[Row]:
    section = "where edits look at their sources, on FlowEdit"
    yield Row("3.5 / 3.5", GUIDED, section, "in no layer")
    if "default" not in spec.layer_sets:
        return
    layers = spec.layer_sets["default"]
    look = replace(GUIDED, look=at(layers))
    yield Row("3.5 / 3.5, default layers", look, section, "the best before the third trial")
    yield Row("3.5 / 3.5, default layers, pasted", look, section, paste=True)
    yield Row("1 / 1, default layers", replace(PLAIN, look=at(layers)), section)
    yield Row("1 / 1, all layers outside its own mask", _outside(PLAIN), section, "two passes")
    yield Row("1 / 1, all layers outside its own mask, pasted", _outside(PLAIN), section, paste=True)


def _outside(run: Run, *more: dict[str, Any]) -> Run:
    return replace(run, look=(*at(("all",), side="outside"), *more), mask="own")


def _masks() -> Iterator[Row]:
    section = "masks, on FlowEdit at guidance 1 with the gate"
    run = replace(GATED, operators=(GATE, MASKED))
    for name, mask, about in (
        ("true mask", "true", "a bound: nobody knows it"),
        ("own mask", "own", "two passes"),
        ("velocity mask", ("velocity", {}), ""),
        ("words' mask", ("words", {}), ""),
    ):
        row = Row(f"gated, {name}", replace(run, mask=mask), section, about, bound=mask == "true")
        yield row
        yield replace(row, name=f"{row.name}, pasted", about="", paste=True)


def _finishes() -> Iterator[Row]:
    section = "what becomes of the latents, on FlowEdit at guidance 1 with the gate"
    row = Row("gated", GATED, section)
    for peak in (0.2, 0.3, 0.4):
        yield replace(row, name=f"gated, pasted, peak {peak}", paste=True, peak=peak)
    row = replace(row, about="by the threshold alone", peak=0.0)
    for threshold in (0.14, 0.17, 0.2, 0.24, 0.28):
        name = f"at {threshold}"
        yield replace(row, name=f"gated, blended {name}", blend=threshold, sources=BOTH)
        yield replace(row, name=f"gated, pasted {name}", paste=True, threshold=threshold)
    row = Row("gated", GATED, section)
    for residual in (False, True):
        about = "the photo's residual kept inside" if residual else "the photo's residual left out"
        name = f"gated, pasted, {'with' if residual else 'without'} residual"
        yield replace(row, name=name, about=about, paste=True, residual=residual)


def _generated(spec: ModelSpec) -> Iterator[Row]:
    """Pictures that the model made: their noise is known."""
    section = "from the source's own noise"
    sets: Sequence[tuple[str, Layers]] = [("no layers", ()), ("vital layers", vital_of(spec))]
    if "default" in spec.layer_sets:
        sets = [*sets, ("default layers", spec.layer_sets["default"])]
    for name, layers in sets:
        row = Row(f"beside, {name}", replace(BESIDE, look=at(layers)), section, sources=GENERATED)
        if name == "default layers":
            row = replace(row, about="the default before", pairs=MANY)
            about = "the package's default for pictures it made"
            yield replace(row, name=DEFAULT["generated"], section="ours", about=about, paste="auto")
            row = replace(row, about="")
            for threshold in (0.17, 0.2, 0.24):
                yield replace(row, name=f"{row.name}, blended at {threshold}", blend=threshold)
            for threshold in (0.14, 0.28):
                pasted = f"{row.name}, pasted at {threshold}"
                yield replace(row, name=pasted, paste="auto", threshold=threshold)
            yield replace(row, name=f"{row.name}, pasted, mask as it is", paste="auto", residual=True)
            yield replace(row, name=f"{row.name}, blended and pasted", blend=0.2, paste="auto")
            two = _outside(BESIDE, *at(layers))
            yield replace(row, name="beside, all layers outside its own mask", run=two, blend=0.2)
            row = replace(row, about="the default before")
        yield row
    row = Row(OURS, Run(OURS, steps=steps_of(OURS)), section, "as if photographed", pairs=MANY)
    yield replace(row, name=f"{OURS}, blended", blend=0.2, sources=GENERATED)
    yield replace(row, name=f"{OURS}, pasted", paste="auto", sources=GENERATED)


def mask_of(method: str) -> Named | None:
    """The mask of a method that does nothing without one: where velocities part."""
    needs = any(row.needs_mask for row in METHODS if row.name == method)
    return ("velocity", {}) if needs else None


def steps_of(method: str) -> int | None:
    """Steps of a method's rows: those of the table, but ours are its own."""
    return method_record(method).steps if method == OURS else None


def vital_of(spec: ModelSpec) -> Layers:
    """The layers that skipping finds, else those of the released code."""
    return spec.layer_sets.get("vital") or spec.layer_sets.get("released") or ()


def least_of(spec: ModelSpec) -> Layers:
    """As many layers as there are vital ones, of least importance; none where nothing is known of it."""
    file = spec.home and Path(spec.home) / "vital_layers.json"
    if not file or not file.is_file():
        return ()
    alike = json.loads(file.read_text(encoding="utf-8"))["similarity"]
    order = sorted(range(len(alike)), key=lambda layer: -alike[layer])
    return tuple(sorted(order[: len(vital_of(spec))]))
