"""All rows of the table. One that differs from another says only what differs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from editing_parts.rows import MANY, Row, Run
from flux.methods import METHODS

BEST = Path(__file__).resolve().parents[1] / "results" / "editing_best.json"
"""What `editing.py tune` chose on the tuning split: settings by method."""

DEFAULT = {"photos": "ours", "generated": "ours, generated"}
"""The rows that all others are compared with."""

BOTH = ("photos", "generated")
PLAIN = Run("flowedit", {"guidance": 1.0, "source_guidance": 1.0, "start": 2 / 16})
"""FlowEdit at guidance 1 on both sides, 14 of 16 steps: where the third trial starts."""


def catalogue(best: Path = BEST) -> list[Row]:
    """Every row, for photographs and for generated pictures."""
    rows = [*_baselines(), *_as_published(), *_tuned(best), *_operators(), *_masks(), *_finishes()]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return rows


def _baselines() -> Iterator[Row]:
    for name, about in (
        ("the photo", "nothing edited"),
        ("the autoencoder alone", "nothing edited, through the autoencoder"),
        ("the right answer", "the rendered target: how often the judge is right"),
    ):
        sources = ("photos",) if name == "the right answer" else BOTH
        yield Row(name, None, "to read the columns by", about, pairs=MANY, sources=sources)


def _as_published() -> Iterator[Row]:
    for method in METHODS:
        pairs = MANY if method.name == "flowedit" else 99
        row = Row(method.name, Run(method.name), "as published", method.about, pairs=pairs, sources=BOTH)
        yield row
        yield replace(row, name=f"{method.name}, pasted", paste=True, sources=("photos",))


def _tuned(best: Path) -> Iterator[Row]:
    if not best.is_file():
        return
    for name, choice in json.loads(best.read_text(encoding="utf-8"))["methods"].items():
        run = Run(name, choice["settings"])
        row = Row(f"{name}, tuned", run, "at its best on the tuning split", choice["said"])
        yield row
        yield replace(row, name=f"{name}, tuned, pasted", paste=True)


def _operators() -> Iterator[Row]:
    section = "operators, on FlowEdit at guidance 1"
    yield Row("flowedit 1 / 1", PLAIN, section, "none", pairs=MANY, sources=BOTH)
    for name, settings in (
        ("gate", {"limit": 0.85}),
        ("velo-edit", {"limit": 0.85}),
        ("perpendicular", {}),
        ("blend", {}),
    ):
        yield Row(f"1 / 1, {name}", replace(PLAIN, operators=((name, settings),)), section)
    for rate in ("exponential", "vags"):
        yield Row(f"1 / 1, {rate}", replace(PLAIN, schedules=(None, (rate, {}))), section)
    gate = ("gate", {"limit": 0.85})
    yield Row(
        "1 / 1, gate and perpendicular", replace(PLAIN, operators=(gate, ("perpendicular", {}))), section
    )


def _masks() -> Iterator[Row]:
    section = "masks, on FlowEdit at guidance 1"
    masked = replace(PLAIN, operators=(("masked", {}),))
    yield Row("1 / 1, true mask", replace(masked, mask="true"), section, "a bound: nobody knows it")
    yield Row("1 / 1, true mask, pasted", replace(masked, mask="true"), section, "a bound", paste=True)
    yield Row("1 / 1, own mask, two passes", replace(masked, mask="own"), section)
    yield Row("1 / 1, own mask, two passes, pasted", replace(masked, mask="own"), section, paste=True)


def _finishes() -> Iterator[Row]:
    section = "what becomes of the latents, on FlowEdit at guidance 1 with the gate"
    gated = replace(PLAIN, operators=(("gate", {"limit": 0.85}),))
    row = Row("gated", gated, section)
    for threshold in (0.14, 0.2, 0.28):
        yield replace(row, name=f"gated, blended at {threshold}", blend=threshold, sources=BOTH)
        yield replace(row, name=f"gated, pasted at {threshold}", paste=True, threshold=threshold)
    yield replace(row, name="gated, pasted, no residual", paste=True, residual=False)
    yield replace(row, name="gated, pasted, all of the photo's residual", paste=True, residual=True)
