"""Do regions obey? The judge of flux-tiny counts: of pictures of two things, one meant for either half.

    python benchmarks/regions.py --pairs 24 --seeds 4         # about 40 minutes on one core
    python benchmarks/regions.py --pairs 4 --seeds 1 --no-layers

Without regions the prompt names both things, and nothing says which stands where. A region obeys if the judge
finds its thing, of its kind and colour, in its half. Writes `results/regions.json`.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from flux.conditions import Conditions, Regions, box_region
from flux.generate import Sampling, generate
from flux.models import configs
from flux.tiny.judge import Reading, load_judge
from flux.tiny.scenes import COLOURS, GROUNDS, KINDS
from flux.util import load_models

SIDE = 128
HALVES = ((0, 0, SIDE // 2, SIDE), (SIDE // 2, 0, SIDE, SIDE))
SAMPLING = Sampling(16, 3.5, SIDE, SIDE)
PLACES = {"grass": "on the grass", "sand": "on the sand", "snow": "in the snow", "water": "on the water"}
RESULTS = Path(__file__).parent / "results" / "regions.json"

Thing = tuple[str, str]
"""Kind and colour."""


def pairs(count: int) -> Iterator[tuple[tuple[Thing, Thing], str]]:
    """Two things of different kinds and colours, and where both stand."""
    draw = np.random.default_rng(0)
    kinds = [kind for kind in KINDS if kind not in ("figure", "sign")]
    for _ in range(count):
        kind, colour = draw.choice(kinds, 2, replace=False), draw.choice(COLOURS, 2, replace=False)
        things = tuple(zip(map(str, kind), map(str, colour), strict=True))
        yield things, f"{PLACES[str(draw.choice(GROUNDS))]} under a blue day sky"


def obeyed(reading: Reading, things: tuple[Thing, Thing]) -> list[bool]:
    """Whether each thing is found in its half."""
    return [
        any((found.kind, found.colour) == thing and (found.x < SIDE / 2) == left for found in reading.things)
        for thing, left in zip(things, (True, False), strict=True)
    ]


WAYS = {
    "without regions": None,
    "regions": {},
    "regions, alone": {"alone": True},
    "regions, apart": {"apart": True},
    "regions, alone and apart": {"alone": True, "apart": True},
    "regions in double blocks": {"layers": ("double.*",)},
    "regions in single blocks": {"layers": ("single.*",)},
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-layers", action="store_true", help="leave out the layers one by one")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    models = load_models("flux-tiny", device=options.device)
    judge = load_judge(configs["flux-tiny"].home / "judge.safetensors")
    ways = dict(WAYS)
    if not options.no_layers:
        ways |= {f"regions in layer {n}": {"layers": (n,)} for n in range(len(models.spec.layers))}
    shares = {}
    for name, how in ways.items():
        found = []
        for things, tail in pairs(options.pairs):
            texts = [f"a big {colour} {kind}" for kind, colour in things]
            conditions = None
            if how is not None:
                parts = (
                    box_region(f"{text} {tail}", box, (SIDE, SIDE))
                    for text, box in zip(texts, HALVES, strict=True)
                )
                conditions = Conditions(regions=Regions(tuple(parts), **how))
            prompts, seeds = [f"{' and '.join(texts)} {tail}"] * options.seeds, range(options.seeds)
            pictures = generate(models, prompts, list(seeds), SAMPLING, conditions=conditions)
            found += [obeyed(reading, things) for reading in judge.read(pictures.clamp(-1, 1))]
        share = np.array(found).mean()
        both = np.array(found).all(axis=1).mean()
        shares[name] = {
            "regions": round(float(share), 4),
            "both": round(float(both), 4),
            "pictures": len(found),
        }
        print(f"{name:<26} {share:.3f} of regions obey, in {both:.3f} of pictures both", flush=True)
    about = {
        "pairs": options.pairs,
        "seeds": options.seeds,
        "device": str(models.device),
        "steps": SAMPLING.steps,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"about": about, "shares": shares}, indent=2) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
