"""Which probe tells where to edit: its ranks against what copying each layer does, and sets chosen by it.

    python benchmarks/probes.py --out FOLDER                                   half an hour on two cores
    python benchmarks/probes.py --out FOLDER --prompts 4 --pairs 8 --steps 4   a first look, minutes
    python benchmarks/probes.py --out FOLDER --publish     copies figures and picture into the checkout

flux-tiny. Every probe is a sweep of demo 2 over the same captions, measured by demo 3's similarities. Pairs
of captions with a right answer are edited with the source's keys and values in each layer alone: how much
more of the source is kept, and how many edits are lost, without any model of similarity. Sets are chosen on
one half of the pairs and reported on the other: by skipping, by carrying, and by trying sets along either
order. All of it stands in the folder as it is made, and the same command goes on.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from probes_parts.claims import claims, late_layers, routed_layers
from probes_parts.edits import Edits, EditWay
from probes_parts.ranks import against, correlations, order_by, rank, signed
from probes_parts.sweeps import CLAIMED, LAYERS, METRICS, PROBES, Sweeps, make_sweeps

from flux.files import write_atomically
from flux.models import configs
from flux.studies.pages.plots import Point, scatter_plot
from flux.studies.similarity.recommending import TriedSet, recommend, sets_along
from flux.tiny.edit_pairs import draw_pairs
from flux.weights.identity import weights_id

PROMPTS, PAIRS, STEPS, TRIED = 32, 144, 16, 24
SEED = 1520
BY_SKIP, BY_CARRY, ASKED = "dino", "dino-whitened", "balanced"
RESULTS = Path(__file__).parent / "results" / "probes.json"
PICTURE = Path(__file__).parent.parent / "assets" / "probes.png"


def sets_of(sweeps: Sweeps, edits: Edits, half: list[int]) -> tuple[dict[str, EditWay], list[str]]:
    """By name, sets that are chosen on a half of the pairs; and notes."""
    record = configs["flux-tiny"]
    found = {
        "no injection": EditWay(),
        "vital, by skipping (set vital)": EditWay(tuple(record.layer_sets["vital"])),
        "set default": EditWay(tuple(record.layer_sets["default"])),
        "every layer": EditWay(LAYERS),
    }
    notes: list[str] = []
    for name, probe, metric in (("skipping", "skip", BY_SKIP), ("carrying", "carry", BY_CARRY)):
        order = order_by(sweeps.moved[probe][metric])
        found[f"top two by {name}"] = EditWay(tuple(sorted(order[:2])))
        ways = [EditWay(layers) for layers in sets_along(order, TRIED)]
        figures = edits.of([EditWay(), *ways], half)
        none, *tried = (
            TriedSet(way.layers, tuple(table[:, 0]), tuple(table[:, 1])) for way, table in figures.items()
        )
        chosen, said = recommend(tried, none)
        found |= {f"{take}, tried along {name}": EditWay(layers) for take, layers in chosen.items()}
        notes += [f"along {name}: {note}" for note in said]
    return found, notes


def figures_of(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures, as JSON."""
    sweeps = make_sweeps(folder, options.prompts, options.steps, SEED, options.without)
    edits = Edits(folder / "edits.json", draw_pairs(options.pairs, SEED), options.steps)
    numbers = list(range(options.pairs))
    halves = numbers[::2], numbers[1::2]
    alone = edits.of([EditWay(), *(EditWay((layer,)) for layer in LAYERS)], numbers)
    by_layer = np.stack([*alone.values()], axis=1)  # (pairs, 1 + layers, 2)
    choice = halves[0][: options.chosen_on]
    chosen, notes = sets_of(sweeps, edits, choice)
    early, always = late_layers(len(LAYERS), options.steps)
    routed = routed_layers(len(LAYERS), options.steps)
    fresh = edits.of([*chosen.values(), early, always, routed], halves[1])
    few = chosen[f"{ASKED}, tried along carrying"]
    measured = np.stack([table.mean(axis=0) for way, table in fresh.items() if way.layers])
    none, default = fresh[chosen["no injection"]], fresh[chosen["set default"]]
    return {
        "weights": weights_id(configs["flux-tiny"], configs["flux-tiny"].home),
        "prompts": options.prompts,
        "pairs": options.pairs,
        "chosen on": len(choice),
        "reported on": len(halves[1]),
        "steps": options.steps,
        "left out": list(options.without),
        "ranks": {
            f"{probe}, {metric}": correlations(tables[metric], by_layer)
            for probe, tables in sweeps.moved.items()
            for metric in METRICS
        },
        "layers": {
            "importance by skipping": _means(sweeps.moved["skip"][BY_SKIP]),
            "carry": _means(sweeps.moved["carry"][BY_CARRY]),
            "kept more": [round(float(x), 2) for x in (by_layer[:, 1:, 1] - by_layer[:, :1, 1]).mean(axis=0)],
            "made": [round(float(x), 3) for x in by_layer[:, 1:, 0].mean(axis=0)],
        },
        "sets": {
            name: {
                "layers": list(way.layers),
                "made": round(float(fresh[way][:, 0].mean()), 3),
                "kept": round(float(fresh[way][:, 1].mean()), 2),
                "made by region": round(float(fresh[way][:, 2].mean()), 3),
                "against no injection": against(fresh[way], none),
                "against the default": against(fresh[way], default),
            }
            for name, way in chosen.items()
        },
        "made by region against the judge's, rank correlation over sets": round(
            rank(measured[:, 2], measured[:, 0]), 3
        ),
        "notes": notes,
        "claims": [claim.line() for claim in claims(sweeps, by_layer, fresh, few, options.steps)],
    }


def _means(table: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in np.nanmean(table, axis=0)]


def show(table: Mapping[str, Any]) -> Iterator[str]:
    """The tables of `benchmarks/README.md`."""
    columns = list(next(iter(table["ranks"].values())))
    yield f"| probe, similarity | {' | '.join(columns)} |"
    yield "| --- " * (1 + len(columns)) + "|"
    for name, row in sorted(table["ranks"].items(), key=lambda item: -item[1][columns[0]][0]):
        yield f"| {name} | {' | '.join(signed(row[column]) for column in columns)} |"
    yield ""
    yield f"| layer | {' | '.join(map(str, LAYERS))} |"
    yield "| --- " * (1 + len(LAYERS)) + "|"
    for name, values in table["layers"].items():
        yield f"| {name} | {' | '.join(f'{value:g}' for value in values)} |"
    yield ""
    beside = "dB more than none | made more | dB more than the default | made more"
    yield f"| set | layers | kept, dB | made | by region | {beside} |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, row in table["sets"].items():
        cells = [
            name,
            ", ".join(map(str, row["layers"])) or "none",
            f"{row['kept']:.1f}",
            f"{row['made']:.2f}",
            f"{row['made by region']:.2f}",
        ]
        for other in ("against no injection", "against the default"):
            cells += [signed(row[other]["kept"], 1), signed(row[other]["made"])]
        yield f"| {' | '.join(cells)} |"
    name = "made by region against the judge's, rank correlation over sets"
    yield from ("", f"{name}: {table[name]:.2f}", *table["notes"], "", *table["claims"])


def picture(table: Mapping[str, Any]) -> bytes:
    """Skipping against carrying, layer by layer."""
    layers = configs["flux-tiny"].layers
    points = [
        Point(str(layer), layers.name(layer).partition(".")[0], x, y)
        for layer, (x, y) in enumerate(
            zip(table["layers"]["importance by skipping"], table["layers"]["carry"], strict=True)
        )
    ]
    return scatter_plot(
        points,
        title="flux-tiny: what a picture needs, and what an edit takes over",
        x="importance: 1 − DINO similarity without the layer",
        y="carry: whitened DINO similarity gained to a stranger",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where all of it is kept")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"captions of sweeps ({PROMPTS})")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"pairs to edit ({PAIRS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"sampling steps ({STEPS})")
    parser.add_argument("--chosen-on", type=int, help="choose sets on so many pairs of the half, not on all")
    able = [name for name in PROBES if name not in CLAIMED]
    parser.add_argument("--without", nargs="+", default=[], choices=able, help="probes that are left out")
    parser.add_argument("--publish", action="store_true", help="copy figures and picture into the checkout")
    options = parser.parse_args()
    least = (options.prompts, 2), (options.pairs, 4), (options.steps, 2), (options.chosen_on, 1)
    if any(value is not None and value < number for value, number in least):
        parser.error("two prompts, four pairs, two steps and one pair to choose on are the least")
    weights = weights_id(configs["flux-tiny"], configs["flux-tiny"].home)["flow model"]
    folder = options.out.resolve() / f"{weights}-{options.prompts}-{options.pairs}-{options.steps}"
    table = figures_of(folder, options)
    write_atomically(folder / "probes.json", (json.dumps(table, indent=1) + "\n").encode())
    write_atomically(folder / "probes.png", picture(table))
    print("\n".join(show(table)))
    if options.publish:
        shutil.copy(folder / "probes.json", RESULTS)
        shutil.copy(folder / "probes.png", PICTURE)


if __name__ == "__main__":
    main()
