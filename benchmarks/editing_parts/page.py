"""The page of a table: the front, the tables, and the first edits of every row as pictures."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from editing_parts.table import Grid
from flux.studies.pages.render import SMALL, TEMPLATES

WIDTH, HEIGHT, EDGE = 900, 420, 48


def page(
    title: str,
    about: Mapping[str, Any],
    records: Sequence[Mapping],
    tables: Sequence[Grid],
    kinds: Sequence[str],
    strips: Sequence[Mapping[str, str]],
    files: Mapping[str, str],
    axes: tuple[str, str],
) -> str:
    """The page as text. strips: name, file and about of each row's pictures. axes: columns of the front."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["SMALL"] = SMALL
    environment.filters["json"] = partial(json.dumps, indent=2)
    values = {"title": title, "tables": tables, "kinds": kinds, "strips": strips, "files": files}
    return environment.get_template("page.html").render(
        values, about=about, recipe=dict(about), front=_front(records, *axes)
    )


def _front(records: Sequence[Mapping], x: str, y: str) -> dict[str, Any]:
    """Dots of rows in the plot's coordinates, a line through those that none beats in both, and ticks."""
    found = {
        r["name"]: (r["figures"][x][0], r["figures"][y][0])
        for r in records
        if r["figures"].get(x) and r["figures"].get(y)
    }
    plot = {"x": x, "y": y, "width": WIDTH, "height": HEIGHT, "points": [], "line": "", "ticks": []}
    if not found:
        return plot
    sides = [(min(values), max(values)) for values in zip(*found.values(), strict=True)]
    sides = [(low, high if high > low else low + 1) for low, high in sides]

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across, up = ((v - low) / (high - low) for v, (low, high) in zip(point, sides, strict=True))
        return round(EDGE + across * (WIDTH - 4 * EDGE), 1), round(
            HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE), 1
        )

    best = [name for name, point in found.items() if not any(_beats(o, point) for o in found.values())]
    for name, point in found.items():
        place = at(point)
        title = f"{name}: {x} {point[0]:.2f}, {y} {point[1]:.3f}"
        plot["points"].append(
            {"x": place[0], "y": place[1], "name": name, "title": title, "best": name in best}
        )
    ordered = sorted(at(found[name]) for name in best)
    plot["line"] = " ".join(f"{px},{py}" for px, py in ordered)
    plot["ticks"] = list(_ticks(sides))
    return plot


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(p >= q for p, q in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def _ticks(sides: Sequence[tuple[float, float]]):
    """Five lines each way with what they stand for."""
    for i in range(5):
        share = i / 4
        x, y = EDGE + share * (WIDTH - 4 * EDGE), HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)
        values = [low + share * (high - low) for low, high in sides]
        yield {"x1": x, "x2": x, "y1": EDGE, "y2": HEIGHT - EDGE, "text": f"{values[0]:.1f}"} | {
            "at": (x, HEIGHT - EDGE + 16),
            "anchor": "middle",
        }
        yield {"x1": EDGE, "x2": WIDTH - 3 * EDGE, "y1": y, "y2": y, "text": f"{values[1]:.2f}"} | {
            "at": (EDGE - 6, y + 4),
            "anchor": "end",
        }
