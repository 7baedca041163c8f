"""Each method's best settings, chosen on the tuning split by one rule.

The rule: of the settings that make at least as many edits as the most, less `FORGIVEN`, the one nearest to
the rendered target (`truth`), the edit pasted into its photograph; of equals the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from editing_parts.rows import Row, Run
from editing_parts.table import Result

FORGIVEN = 0.04
RULE = (
    f"of the settings that make at least as many edits as the most, less {FORGIVEN}, "
    "the one nearest to the rendered target when pasted"
)

Axes = Mapping[str, Sequence[Any]]
"""Values to try, by a setting's name."""

GRIDS: Mapping[str, Axes] = {
    "flowedit": {
        "start": (2 / 16, 4 / 16),
        "source_guidance": (1.0, 1.5, 3.5),
        "guidance": (1.0, 2.0, 3.5, 5.5),
    },
    "flowalign": {"start": (2 / 16, 4 / 16), "scale": (1.5, 3.5, 5.5), "guidance": (1.0, 2.0)},
    "rf-inversion": {"eta": (0.7, 0.9), "stop": (4 / 16, 6 / 16, 8 / 16), "guidance": (1.0, 3.5)},
    "uniedit": {"depth": (0.6, 0.8, 1.0), "weight": (1.0, 3.0, 5.0)},
    "dnaedit": {"start": (2 / 16, 4 / 16), "weight": (0.6, 0.8, 1.0), "guidance": (1.0, 2.5)},
    "noise": {"strength": (0.6, 0.75, 0.9), "guidance": (1.0, 3.5)},
}


def candidates(method: str, axes: Axes, pairs: int) -> list[Row]:
    """A row for each combination of values, its edits pasted."""
    rows = []
    for values in product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        name = f"{method}: " + ", ".join(f"{key} {value:.4g}" for key, value in settings.items())
        rows.append(Row(name, Run(method, settings), "tuning", paste=True, pairs=pairs))
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
        made, truth = (float(np.nanmean(found.figures[name])) for name in ("made", "truth"))
        yield (
            method,
            {
                "settings": dict(row.run.settings),
                "said": found.name.partition(": ")[2],
                "made": round(made, 4),
                "truth": round(truth, 2),
                "tried": len(tried),
            },
        )
