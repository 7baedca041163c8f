"""The rows of the table, as data: which method, with which settings, and what becomes of its latents.

Rows of one `Run` share its velocities: they differ in what is done with the latents behind it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from flux.methods.masks import own_mask

STEPS = 16
FEW, MANY = 99, 220
"""Pairs of a row: the first of the split, and all for the rows that decide."""

DEFINING = ("name", "run", "blend", "paste", "threshold", "peak", "whole", "residual", "pairs")
"""What decides a row's figures, of all that it has."""

Named = tuple[str, Mapping[str, Any]]
"""A function by its name, and its settings."""


@dataclass(frozen=True)
class Run:
    """What decides an edit's latents.

    method: a name of METHODS, or dotted, `package.module:name`. settings: beside its defaults. steps: None
    for the table's. look: roles of layers, settings of `flux.methods.looks.Role`. mask: "true" for the region
    that differs, "own" for the change that a first pass makes, or one of the table MASKS. operators:
    of OPERATORS. schedules: of SCHEDULES, for the source and for the edit.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    look: tuple[Mapping[str, Any], ...] = ()
    mask: Named | str | None = None
    operators: tuple[Named, ...] = ()
    schedules: tuple[Named | None, Named | None] = (None, None)

    @property
    def key(self) -> str:
        """The same for equal runs; those behind an edit's own mask are equal while that is found alike."""
        found = {"own_mask": own_mask.__kwdefaults__} if self.mask == "own" else {}
        return json.dumps(asdict(self) | found, sort_keys=True, default=list)


@dataclass(frozen=True)
class Row:
    """A row of the table, of section `section`.

    blend: threshold of the edit's own mask by which the final latents are blended with the source's.
    paste: whether the result is pasted into the photo, "auto" as the package does. threshold, peak, whole: of
    the own mask by which it is. residual: whether the photo's details stay inside it, "auto" as the package
    does. pairs: how many it is measured on. bound: whether it knows what nobody knows and beats no default.
    sources: what it is for.
    """

    name: str
    run: Run | None
    section: str = ""
    about: str = ""
    blend: float | None = None
    paste: bool | Literal["auto"] = False
    threshold: float = 0.2
    peak: float = 0.3
    whole: float = 0.75
    residual: bool | Literal["auto"] = "auto"
    pairs: int = FEW
    bound: bool = False
    sources: tuple[str, ...] = ("photos",)

    @property
    def definition(self) -> dict[str, Any]:
        """All that decides its figures, as JSON has it."""
        return json.loads(json.dumps({name: asdict(self)[name] for name in DEFINING}, default=list))


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that share their velocities, in the order of each group's first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.run.key if row.run else f"without: {row.name}", []).append(row)
    return list(groups.values())


def chosen(rows: Sequence[Row], names: Sequence[str] | None, sources: str) -> list[Row]:
    """The rows for these sources, or some of them by name; ValueError for a name that no row has."""
    rows = [row for row in rows if sources in row.sources]
    if names is None:
        return rows
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            raise ValueError(f"--rows {name!r}: there is no such row of {sources}; --plan lists them")
    return [known[name] for name in names]
