"""How often "lost the source" is said wrongly, and how often it is missed, by the rule before and by ours.

    python benchmarks/verdicts.py                      makes 864 pictures of flux-tiny first: minutes
    python benchmarks/verdicts.py --pictures FOLDER    keeps them there, or goes on with those that are there

The truth is the judge's: for pairs of captions that differ in one attribute it reads both pictures and says
whether a thing that should have stayed is gone, moved or turned, or one came that nobody asked for. Edits are
made with five sets of layers. The threshold of each rule is the one that is best on the first 72 pairs (the
model card's): the least sum of the shares of false alarms and of misses in the three sets that are neither
all nor none. The other 72 pairs only measure. Figures go to `benchmarks/results/verdicts.json`.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from flux.generate import Sampling
from flux.methods.stable_flow import Edit, EditRequest, Row, edit
from flux.pictures.features import Dino
from flux.pictures.files import to_pil
from flux.pictures.loss import loss
from flux.pictures.metrics import difference
from flux.tiny.asked import Asked, AskedThing, read_caption
from flux.tiny.edit_pairs import EditPair, draw_pairs
from flux.tiny.judge import load_judge
from flux.tiny.remarks import VALUES, Lost, remarks
from flux.tiny.scenes import SCENERY, Scene
from flux.util import TINY_WEIGHTS, load_models

PAIRS, SEEDS = 72, (0, 1)
SETS = {"default": (1, 11), "vital": (0, 3), "late": (8, 10, 11), "all": tuple(range(12))}
"""Layers injected; `none` is the picture without injection, taken for an edit."""
EVERY = (*SETS, "none")
TUNED = ("default", "vital", "late")
PIXEL = 8
RESULTS = Path(__file__).parent / "results" / "verdicts.json"


@dataclass(frozen=True)
class Case:
    """An edit. lost: the judge's truth. told: the same, read from the prompts alone.

    scores: by rule; the higher, the more is lost.
    """

    seed: int
    layers: str
    lost: bool
    told: bool
    scores: dict[str, float]


def make(folder: Path, pairs: Sequence[tuple[str, EditPair]]) -> None:
    """Make the pictures of pairs that are not in the folder yet, each pair in a folder of its own."""
    missing = [(name, pair) for name, pair in pairs if not (folder / name / "plain.png").is_file()]
    models = load_models("flux-tiny", device="cpu", dtype="float32") if missing else None
    for name, pair in missing:
        (folder / name).mkdir(parents=True, exist_ok=True)
        source, target = pair.prompts
        edits = tuple(Edit(target, layers) for layers in (*SETS.values(), ()))
        request = EditRequest(
            source, edits, Sampling(16, 3.5, 128, 128), seed=pair.seed, batch=5, compare=False
        )
        made = edit(models, request).pictures
        for i, kind in enumerate((*SETS, "plain")):
            to_pil(made[Row("edit", i)]).save(folder / name / f"{kind}.png")
        to_pil(made[Row("source")]).save(folder / name / "source.png")
        print(f"made {name}", flush=True)


def cases(folder: Path, pairs: Sequence[tuple[str, EditPair]]) -> Iterator[Case]:
    """Every edit of every pair, judged."""
    judge, dino = load_judge(TINY_WEIGHTS / "judge.safetensors"), Dino(TINY_WEIGHTS / "dino")
    for name, pair in pairs:
        files = {kind: folder / name / f"{kind}.png" for kind in ("source", "plain", *SETS)}
        pictures = {kind: Image.open(file).convert("RGB") for kind, file in files.items()}
        seen = dict(zip(pictures, judge.read(_stacked(pictures.values())), strict=True))
        features = dict(zip(pictures, dino.features(list(pictures.values())), strict=True))
        source, plain = pictures["source"], pictures["plain"]
        alike = {kind: float(features["source"] @ feature) for kind, feature in features.items()}
        for layers in EVERY:
            kind = "plain" if layers == "none" else layers
            lost, told = (
                any(isinstance(each, Lost) for each in remarks(*asked, seen["source"], seen[kind]))
                for asked in (map(_asked, (pair.source, pair.target)), map(read_caption, pair.prompts))
            )
            scores = {
                "before": alike["plain"] - alike[kind],
                "region": _changed_where_alike(source, pictures[kind], plain),
                "outlines": loss(source, pictures[kind]),
                "now": loss(source, pictures[kind], plain),
            }
            yield Case(int(name.partition("-")[0]), layers, lost, told, scores)


def _stacked(pictures) -> torch.Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    array = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def _asked(scene: Scene) -> Asked:
    """The whole truth of a scene as a wish."""
    things = [AskedThing(t.kind, **{name: getattr(t, name) for name in VALUES}) for t in scene.things]
    return Asked(tuple(things), **{name: getattr(scene, name) for name in SCENERY})


def _changed_where_alike(source: Image.Image, picture: Image.Image, plain: Image.Image) -> float:
    """The share of pixels an edit changed, of those that are alike in its source and without injection."""
    alike = difference(source, plain) <= PIXEL
    return float((alike & (difference(source, picture) > PIXEL)).sum() / max(1, alike.sum()))


def threshold(found: Sequence[Case], rule: str) -> float:
    """Above it an edit has lost its source. The rule before has its own."""
    if rule == "before":
        return -1e-9  # no closer than the picture without injection, equal ones too
    chosen = [case for case in found if case.seed == SEEDS[0] and case.layers in TUNED]
    steps = np.arange(0, 1, 0.01)
    return float(min(steps, key=lambda step: sum(_shares(chosen, rule, step))))


def wrong(found: Sequence[Case], rule: str, limit: float) -> tuple[int, int]:
    """How many false alarms there are, and how many misses."""
    flags = [case.scores[rule] > limit for case in found]
    alarms = sum(flag and not case.lost for flag, case in zip(flags, found, strict=True))
    return alarms, sum(case.lost and not flag for flag, case in zip(flags, found, strict=True))


def _shares(found: Sequence[Case], rule: str, limit: float) -> tuple[float, float]:
    lost = sum(case.lost for case in found)
    alarms, misses = wrong(found, rule, limit)
    return alarms / max(1, len(found) - lost), misses / max(1, lost)


def named(alarms: int, misses: int) -> dict[str, int]:
    return {"false alarms": alarms, "misses": misses}


def figures(found: Sequence[Case]) -> dict:
    """False alarms and misses of each rule, by seed and by layers."""
    table: dict = {"edits": {}, "thresholds": {}, "rules": {}}
    groups: dict[str, Callable[[Case], bool]] = {
        f"{seed} {layers}": (lambda case, s=seed, names=names: case.seed == s and case.layers in names)
        for seed in SEEDS
        for layers, names in {**{name: (name,) for name in EVERY}, "tuned": TUNED, "every": EVERY}.items()
    }
    for title, belongs in groups.items():
        some = [case for case in found if belongs(case)]
        lost = sum(case.lost for case in some)
        otherwise = sum(case.lost != case.told for case in some)
        table["edits"][title] = {"kept": len(some) - lost, "lost": lost, "told otherwise": otherwise}
    for rule in found[0].scores:
        limit = table["thresholds"][rule] = threshold(found, rule)
        table["rules"][rule] = {
            title: named(*wrong([c for c in found if belongs(c)], rule, limit))
            for title, belongs in groups.items()
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="where the pictures are kept; without it they are not")
    options = parser.parse_args()
    pairs = [(f"{seed}-{i:02}", pair) for seed in SEEDS for i, pair in enumerate(draw_pairs(PAIRS, seed))]
    with TemporaryDirectory() as scratch:
        folder = options.pictures or Path(scratch)
        make(folder, pairs)
        table = figures(list(cases(folder, pairs)))
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    for rule, rows in table["rules"].items():
        print(f"\n{rule}, above {table['thresholds'][rule]:.2f}")
        for title, row in rows.items():
            of = table["edits"][title]
            print(
                f"  {title:10} false alarms {row['false alarms']:3} of {of['kept']:3}   "
                f"misses {row['misses']:3} of {of['lost']:3}   told otherwise {of['told otherwise']}"
            )


if __name__ == "__main__":
    main()
