"""Stopping when it is decided, against the full sweep: how often they disagree, and what is saved.

    python benchmarks/rounds.py output/dino/dino/similarity.csv
    python benchmarks/rounds.py table.csv --threshold 0.9 --tables 500

The table is the `similarity.csv` that demo 3 writes for a full sweep: a row for each prompt and layer. From
it 2000 tables are drawn, prompts with replacement, all layers of a prompt together; 2000 more of each
heavy-tailed shape are made up. In each of them every layer is decided round by round, and held against the
sign of the mean of all its prompts minus the threshold, as a full sweep decides. Several rules decide the
same tables:

    ours                what `flux.studies.sweep.rounds` does: skewness allowed for, patience before "above"
    without patience    skewness allowed for
    plain t             neither
    plain t, O'Brien    the same with O'Brien-Fleming-type spending

Figures go to `benchmarks/results/rounds.json`; `benchmarks/README.md` says how to read them.
"""

import argparse
import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from flux.studies.sweep.rounds import Rounds, critical, interval, plan_rounds

RESULTS = Path(__file__).parent / "results" / "rounds.json"
RULES = {
    "ours": {},
    "without patience": {"rare": 0},
    "plain t": {"rare": 0, "skewed": False},
    "plain t, O'Brien": {"rare": 0, "skewed": False, "spending": "obrien-fleming"},
}
LAYERS = 12
APART = np.linspace(-1, 1, LAYERS)
"""How far the means of made-up layers are from the threshold, in standard deviations."""

Draw = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


def t3(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Student's t with 3 degrees of freedom: mean 0, standard deviation 1, tails to both sides."""
    return rng.standard_t(3, shape) / math.sqrt(3)


def lognormal(sigma: float) -> Draw:
    """Tails downward, as if 1 - similarity were lognormal: mean 0, standard deviation 1."""
    mean, sd = math.exp(sigma**2 / 2), math.exp(sigma**2 / 2) * math.sqrt(math.expm1(sigma**2))
    return lambda shape, rng: (mean - rng.lognormal(0, sigma, shape)) / sd


def rare(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One prompt in ten falls far below the others: mean 0, standard deviation 1."""
    low = rng.random(shape) < 0.1
    values = np.where(low, -10 * rng.random(shape), -rng.random(shape)) + 0.95
    return values / 2.066


SHAPES: dict[str, Draw] = {
    "normal": lambda shape, rng: rng.standard_normal(shape),
    "t, 3 degrees": t3,
    "lognormal, sigma 1": lognormal(1.0),
    "lognormal, sigma 1.5": lognormal(1.5),
    "one in ten far below": rare,
}


def read_table(path: Path, column: str) -> tuple[list[str], np.ndarray]:
    """The labels of the layers, and similarities (prompts, layers) of the prompts that have all."""
    rows: dict[int, dict[str, float]] = {}
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["layers"] != "repeat" and row[column]:
                rows.setdefault(int(row["prompt"]), {})[row["layers"]] = float(row[column])
    labels = list(max(rows.values(), key=len))
    whole = [[row[label] for label in labels] for row in rows.values() if len(row) == len(labels)]
    return labels, np.array(whole)


def cases(table: np.ndarray, threshold: float, count: int, prompts: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each name with tables (prompts, tables, layers) of similarities minus the threshold."""
    rng = np.random.default_rng(0)
    resampled = table[rng.integers(0, len(table), (prompts, count))]
    yield "resampled, around it", resampled - threshold
    # The same shapes, with every layer's mean on the line: the worst that can be.
    yield "resampled, all at it", resampled - table.mean(axis=0)
    for name, draw in SHAPES.items():
        values = draw((prompts, count, LAYERS), rng)
        yield f"{name}, around it", values + APART
        yield f"{name}, all at it", values


def decide(rounds: Rounds, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verdicts (tables, layers), true for above; whether decided; prompts used. As `Rounds.decide`."""
    above = values.mean(axis=0) >= 0
    decided = np.zeros(above.shape, dtype=bool)
    used = np.full(above.shape, len(values))
    for look in rounds.looks:
        n = look.prompts
        low, high = interval(values[:n], critical(look.level, n), skewed=rounds.skewed)
        new = ((high < 0) | ((low > 0) & (n >= rounds.patience))) & ~decided
        above = np.where(new, low > 0, above)
        used[new] = n
        decided |= new
    return above, decided, used


def measure(rounds: Rounds, values: np.ndarray) -> dict[str, float]:
    """Shares of decisions, layers and tables that differ from the full sweep's, and of pictures saved."""
    full = values.mean(axis=0) >= 0
    above, decided, used = decide(rounds, values)
    differs = above != full
    return {
        "decisions": float(differs.mean()),
        "worst_layer": float(differs.mean(axis=0).max()),
        "tables": float(differs.any(axis=1).mean()),
        "wrongly_above": float((differs & above).mean()),
        "undecided": float(1 - decided.mean()),
        "saved": float(1 - used.mean() / len(values)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path, help="similarity.csv of a full sweep")
    parser.add_argument("--column", default="dino")
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    labels, table = read_table(options.table, options.column)
    prompts = options.rounds[-1]
    plans = {
        name: plan_rounds(0.0, options.confidence, options.rounds, prompts, **rule)
        for name, rule in RULES.items()
    }
    print(f"{options.tables} tables each, threshold {options.threshold:g}, confidence {options.confidence:g}")
    print(f"shares that differ from the full sweep of {prompts} prompts, and pictures saved, in %\n")
    print(f"{'tables':<36}{'rule':<19}{'decisions':>10}{'worst layer':>13}{'tables':>8}{'saved':>7}")
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for case, values in cases(table, options.threshold, options.tables, prompts):
        figures[case] = {}
        for name, rounds in plans.items():
            found = figures[case][name] = measure(rounds, values)
            shares = (found["decisions"], found["worst_layer"], found["tables"], found["saved"])
            each = "{:>10.2f}{:>13.2f}{:>8.2f}{:>7.1f}".format(*(100 * share for share in shares))
            print(f"{case if name == 'ours' else '':<36}{name:<19}{each}")

    means, sds = table.mean(axis=0), table.std(axis=0, ddof=1)
    skewness = ((table - means) ** 3).mean(axis=0) / sds**3
    result = {
        "threshold": options.threshold,
        "confidence": options.confidence,
        "rounds": options.rounds,
        "tables": options.tables,
        "sweep": {
            label: {"mean": round(m, 4), "sd": round(s, 4), "skewness": round(g, 2)}
            for label, m, s, g in zip(labels, means.tolist(), sds.tolist(), skewness.tolist(), strict=True)
        },
        "looks": {name: [vars(look) for look in rounds.looks] for name, rounds in plans.items()},
        "figures": figures,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\nfigures in {options.output}")


if __name__ == "__main__":
    main()
