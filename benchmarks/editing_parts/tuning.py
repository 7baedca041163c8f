"""Each method's best settings, chosen on the tuning split by one rule.

The rule: of the settings that make at least as many edits as the most, less `FORGIVEN`, the one nearest to
the rendered target (`truth`), the edit pasted into its photograph; of equals the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from editing_parts.catalogue import at, mask_of, steps_of, vital_of
from editing_parts.rows import Row, Run
from editing_parts.table import Result
from flux.models import ModelSpec

FORGIVEN = 0.04
RULE = (
    f"of the settings that make at least as many edits as the most, less {FORGIVEN}, "
    "the one nearest to the rendered target when pasted"
)

Axes = Mapping[str, Sequence[Any]]
"""Values to try, by a setting's name, or by several joined by +, whose values go together. `layers` are those
in which edits look at their sources, by a name of `layer_sets`, "" for none."""

GUIDANCES = ((1.0, 1.0), (1.0, 2.0), (1.0, 3.5), (1.5, 3.5), (1.5, 5.5), (3.5, 3.5))
"""Of source and edit."""

GRIDS: Mapping[str, Axes] = {
    "gentle": {"shift": (1.0, 1.45, 2.0), "limit": (0.8, 0.85, 0.9), "guidance": (1.0, 1.5)},
    "stable-flow": {
        "layers": ("vital", "default", ""),
        "integrator+nudge": (("euler", 1.15), ("midpoint", 1.0)),
        "guidance": (3.0, 5.0),
    },
    "rf-solver": {"inject": (0.0, 3 / 25, 8 / 25), "guidance": (1.0, 2.0, 3.5)},
    "fireflow": {"inject": (1 / 8, 2 / 8), "guidance": (1.0, 2.0, 3.5)},
    "flowedit": {"start": (2 / 16, 4 / 16), "source_guidance+guidance": GUIDANCES},
    "decflowedit": {
        "search": (0.25, 1.0),
        "threshold": (0.4, 0.55),
        "source_guidance+guidance": ((1.0, 1.0), (1.5, 5.5), (3.5, 3.5)),
    },
    "flowalign": {"scale": (1.5, 3.5, 5.5), "guidance": (1.0, 2.0)},
    "rf-inversion": {"eta": (0.7, 0.9), "stop": (4 / 16, 6 / 16, 8 / 16), "guidance": (1.0, 3.5)},
    "uniedit": {"depth": (0.6, 0.8, 1.0), "weight": (1.0, 3.0, 5.0)},
    "dnaedit": {"weight": (0.6, 0.8, 1.0), "guidance": (1.0, 2.5)},
    "noise": {"strength": (0.6, 0.75, 0.9), "guidance": (1.0, 3.5)},
    "kv-edit": {
        "origin": ("inverted", "noised", "straight"),
        "source_guidance+guidance": ((1.0, 1.0), (1.5, 5.5), (1.5, 3.5)),
    },
}


def candidates(spec: ModelSpec, method: str, axes: Axes, pairs: int) -> list[Row]:
    """A row for each combination of values, its edits pasted."""
    rows = []
    for values in product(*axes.values()):
        settings: dict[str, Any] = {}
        for names, value in zip(axes, values, strict=True):
            each = names.split("+")
            settings |= dict(zip(each, value if len(each) > 1 else (value,), strict=True))
        said = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value or 'none'}"
                         for key, value in settings.items())  # fmt: skip
        sets = {"": (), "vital": vital_of(spec)} | dict(spec.layer_sets)
        look = at(sets.get(settings.pop("layers", ""), ()))
        run = Run(method, settings, steps_of(method), look, mask_of(method))
        rows.append(Row(f"{method}: {said}", run, "tuning", paste=True, pairs=pairs))
    return rows


def best(results: Sequence[Result]) -> Result:
    """The one that the rule chooses."""
    made = [float(np.mean(each.figures["made"])) for each in results]
    able = [each for each, share in zip(results, made, strict=True) if share >= max(made) - FORGIVEN]
    return max(able, key=lambda each: float(np.nanmean(each.figures["truth"])))


def choices(rows: Mapping[str, Sequence[Row]], results: Mapping[str, Result]) -> Iterator[tuple[str, dict]]:
    """For each method what is chosen, as `editing_best.json` has it."""
    for method, tried in rows.items():
        found = best([results[row.name] for row in tried])
        row = next(row for row in tried if row.name == found.name)
        yield (
            method,
            {
                "settings": dict(row.run.settings),
                "look": list(row.run.look),
                "said": found.name.partition(": ")[2],
                "made": round(float(np.mean(found.figures["made"])), 4),
                "truth": round(float(np.nanmean(found.figures["truth"])), 2),
                "tried": len(tried),
                "pairs": row.pairs,
            },
        )
