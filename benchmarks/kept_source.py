"""What a further edit of a source costs beside it, and of a source that is kept: flux-tiny, on a CPU.

    python benchmarks/kept_source.py [--turns 4] [--out FILE]

Both sides make the same edits from the same noise and take turns (A B B A), one thread, processor seconds.
Encoding and decoding count, loading does not. The source of the kept side was made before.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from flux.generate import Sampling
from flux.hooks import KeptSource
from flux.methods.stable_flow import Edit, EditRequest, edit
from flux.models import VITAL_LAYERS
from flux.pictures.files import to_pil
from flux.weights.load import load_models

SOURCE = "a big red house and a small yellow figure with arms down on the grass under a blue day sky"
EDIT = "a big red house and a small purple figure with arms down on the grass under a blue day sky"
RESULTS = Path(__file__).resolve().parent / "results" / "kept_source.json"


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def levels(a: torch.Tensor, b: torch.Tensor) -> int:
    """By how many of 255 levels two pictures differ at most."""
    one, other = (torch.tensor(list(to_pil(x).tobytes()), dtype=torch.int32) for x in (a, b))
    return int((one - other).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=4, help="of A B B A")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    models = load_models("flux-tiny", device="cpu")
    layers = VITAL_LAYERS["flux-tiny"]["default"]
    side = models.spec.size
    sampling = Sampling(16, 3.5, side, side)
    request = EditRequest(SOURCE, (Edit(EDIT, layers),), sampling, seed=2, compare=False)
    plain = replace(request, edits=(Edit(EDIT, ()),))
    kept = KeptSource()
    edit(models, request, kept=kept)
    ways = {
        "beside": lambda: edit(models, request),
        "kept": lambda: edit(models, request, kept=kept),
        "plain picture": lambda: edit(models, plain, kept=kept),
    }
    apart = levels(ways["beside"]().edits[0], ways["kept"]().edits[0])
    ways["plain picture"]()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.turns):
        for order in (list(ways), list(ways)[::-1]):
            for name in order:
                taken[name].append(seconds(ways[name]))
        print(turn + 1, {name: round(statistics.median(each), 2) for name, each in taken.items()}, flush=True)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    figures = {
        "threads": 1,
        "torch": torch.__version__,
        "steps": 16,
        "layers": list(layers),
        "bytes": kept.bytes,
        "levels_apart": apart,
        "seconds": taken,
        "median": medians,
        "beside / kept": medians["beside"] / medians["kept"],
        "kept / plain picture": medians["kept"] / medians["plain picture"],
    }
    given.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps({name: figures[name] for name in ("median", "beside / kept", "kept / plain picture")}))


if __name__ == "__main__":
    main()
