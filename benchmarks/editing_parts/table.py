"""From figures of pairs to those of rows: means with intervals, differences to the default, kinds of edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from editing_parts.measuring import Column, Measures

DRAWS = 2000
"""Bootstrap samples over pairs."""


@dataclass(frozen=True)
class Result:
    """A row's figures of each pair, (N,) with NaN for none; cost: seconds per pair, and MiB."""

    name: str
    section: str
    about: str
    figures: Mapping[str, np.ndarray]
    cost: Mapping[str, float | None]
    bound: bool = False

    @property
    def pairs(self) -> int:
        return len(next(iter(self.figures.values())))


def interval(values: np.ndarray) -> tuple[float, float, float] | None:
    """The mean of (N,) and its 95 % interval, by bootstrap over pairs; None where there is no figure."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    picks = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def against(row: Result, default: Result, columns: Sequence[Column]) -> dict[str, tuple[float, float, float]]:
    """Row less default on the pairs that both have: mean and interval, by column."""
    count, found = min(row.pairs, default.pairs), {}
    for column in columns:
        if column.paired and column.name in row.figures and column.name in default.figures:
            a, b = (each.figures[column.name][:count] for each in (row, default))
            if (difference := interval(a - b)) is not None:
                found[column.name] = difference
    return found


def beats(differences: Mapping[str, Sequence[float]], decisive: Sequence[str]) -> list[str]:
    """The decisive columns in which a row is better beyond the interval, if it is worse in none."""
    known = {name: differences[name] for name in decisive if name in differences}
    if any(high < 0 for _, _, high in known.values()):
        return []
    return [name for name, (_, low, _) in known.items() if low > 0]


def by_kind(row: Result, kinds: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means of some columns for each kind of edit. kinds: of each pair."""
    names = np.array(kinds[: row.pairs])
    table: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(kinds):
        at = names == kind
        cells = {name: row.figures[name][at] for name in columns if name in row.figures}
        table[kind] = {
            name: float(np.nanmean(values)) for name, values in cells.items() if not np.isnan(values).all()
        }
    return table


def summary(
    rows: Sequence[Result], default: str | None, kinds: Sequence[str], measures: Measures
) -> list[dict[str, Any]]:
    """One record for each row, as JSON has it, to four digits behind the point. kinds: of each pair."""
    known = {row.name: row for row in rows}
    records = []
    for row in rows:
        record = {"name": row.name, "section": row.section, "about": row.about, "pairs": row.pairs}
        record["figures"] = {name: interval(values) for name, values in row.figures.items()}
        if default in known and row.name != default:
            record["against default"] = against(row, known[default], measures.columns)
            won = [] if row.bound else beats(record["against default"], measures.decisive)
            record["beats default in"] = won
        record["kinds"] = by_kind(row, kinds, measures.by_kind)
        records.append(_rounded(record))
    return records


def _rounded(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {key: _rounded(value) for key, value in x.items() if value is not None}
    if isinstance(x, list | tuple):
        return [_rounded(each) for each in x]
    return round(x, 4) if isinstance(x, float) else x


@dataclass(frozen=True)
class Grid:
    """A table of texts. note: what is said below it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def grids(
    records: Sequence[Mapping], costs: Mapping[str, Mapping], kinds: Sequence[str], measures: Measures
) -> list[Grid]:
    """The tables: figures, differences to the default, and some columns by kind of edit."""
    columns = [c for c in measures.columns if any(record["figures"].get(c.name) for record in records)]
    head = ("row", "pairs", *(c.name.replace("_", " ") for c in columns), "s a pair", "MiB")
    tables = [Grid(head, tuple(_figures(r, columns, costs[r["name"]], measures) for r in records))]
    if compared := [record for record in records if "against default" in record]:
        tables.append(_differences(compared, [c for c in columns if c.paired], measures.decisive))
    tables += [_kinds(records, c, kinds) for c in columns if c.name in measures.by_kind]
    return tables


def markdown(tables: Sequence[Grid]) -> str:
    return "\n\n".join(_lines(table) + (f"\n\n{table.note}" if table.note else "") for table in tables) + "\n"


def _differences(records: Sequence[Mapping], columns: Sequence[Column], decisive: Sequence[str]) -> Grid:
    rows = [
        (r["name"], *(_difference(r["against default"].get(c.name), c.unit) for c in columns))
        for r in records
    ]
    winners = [f"{r['name']} ({', '.join(r['beats default in'])})" for r in records if r["beats default in"]]
    note = (
        f"Better than the default in {' or '.join(decisive)} by more than the interval, and not worse in the "
        f"other by more: {', '.join(winners) or 'none'}."
    )
    return Grid(("row less default", *(c.name.replace("_", " ") for c in columns)), tuple(rows), note)


def _kinds(records: Sequence[Mapping], column: Column, kinds: Sequence[str]) -> Grid:
    def cell(record: Mapping, kind: str) -> str:
        found = record["kinds"].get(kind, {}).get(column.name)
        return "-" if found is None else column.unit.format(found)

    rows = tuple((record["name"], *(cell(record, kind) for kind in kinds)) for record in records)
    return Grid((f"{column.name}, by kind", *kinds), rows)


def _figures(
    record: Mapping, columns: Sequence[Column], cost: Mapping, measures: Measures
) -> tuple[str, ...]:
    cells = [record["name"], str(record["pairs"])]
    for column in columns:
        found = record["figures"].get(column.name)
        cells.append(
            "-" if found is None else _with_interval(found, column.unit, column.name in measures.decisive)
        )
    seconds, memory = cost.get("seconds"), cost.get("memory")
    shown = ("-" if seconds is None else f"{seconds:.2f}", "-" if memory is None else f"{memory:.0f}")
    return (*cells, *shown)


def _with_interval(found: Sequence[float], unit: str, shown: bool) -> str:
    mean, low, high = (unit.format(x) for x in found)
    return f"{mean} [{low}, {high}]" if shown else mean


def _difference(found: Sequence[float] | None, unit: str) -> str:
    if found is None:
        return "-"
    signed = unit.replace("{:", "{:+")
    mean, low, high = (signed.format(x) for x in found)
    return f"{mean} [{low}, {high}]"


def _lines(table: Grid) -> str:
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
