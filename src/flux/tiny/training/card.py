"""The model card: what flux-tiny was trained on, how long, and how good each part is, measured here and
now."""

import json
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from flux.hooks import VITAL_LAYERS, Hooks
from flux.model import layers_of
from flux.tiny.edit_pairs import (
    PRESENCE,
    EditPair,
    EditScore,
    copy_in,
    draw_pairs,
    make_pair,
    score_pairs,
)
from flux.tiny.judge import Judge, load_judge
from flux.tiny.phrasings import load_phrasings
from flux.tiny.scenes import ATTRIBUTES, render
from flux.tiny.training import autoencoder
from flux.tiny.training.evaluate import (
    held_out_scenes,
    judge_generated,
    judge_phrasings,
    judge_rendered,
    streaks_kept,
)
from flux.tiny.training.loop import mean_of
from flux.tiny.training.shapes import RECORDS
from flux.tiny.training.steps import STEPS
from flux.weights.load import Models, load_models

STAGES = {
    "autoencoder": ("psnr_whole",),
    "text": ("t5_things", "clip_things"),
    "flow": ("flow64", "flow128", "label128"),
    "distil": ("distil128",),
    "judge": ("centre",),
    "dino": ("class", "patch"),
    "decoder": ("psnr",),
}
RENDERED, GENERATED, PAIRS, PAIRS_EACH = 200, 400, 72, 36
CASES = 100
"""How many figures and signs the scenes of the generated pictures hold at least."""
NOTE = "note.md"
"""In the folder of a training that was not only the command's: what was done, for the card to say."""
VITAL_SET = "vital_layers.json"
"""What demo 3 writes: the layers that a sweep of these weights found vital. It may lie in the repository."""


def write(folder: Path, repo: Path) -> dict:
    """Measure everything in `repo`, write `card.json` and `MODEL_CARD.md` there, and return the figures."""
    models = load_models("flux-tiny", device="cpu", dtype="float32", weights=str(repo), records=RECORDS)
    judge = load_judge(repo / "judge.safetensors")
    encode = (models.t5, models.clip)
    asked = held_out_scenes(GENERATED, cases=CASES)
    held_out = asked[:RENDERED]
    parts = (models.flow, models.ae, encode, judge)
    decoded = judge_rendered(judge, held_out, models.ae)
    card = {
        "made_with": {"torch": torch.__version__, "python": platform.python_version()},
        "training": training_figures(folder),
        "note": (folder / NOTE).read_text().strip() if (folder / NOTE).is_file() else "",
        "parameters": {
            name: sum(p.numel() for p in part.parameters())
            for name, part in (
                ("flow", models.flow),
                ("ae", models.ae),
                ("t5", models.t5),
                ("clip", models.clip),
            )
        },
        "autoencoder_psnr": autoencoder.psnr(models.ae, np.stack([render(s) for s in held_out[:64]])),
        "streaks_kept": streaks_kept(models.ae, held_out[:64]),
        "judge_rendered": judge_rendered(judge, held_out),
        "judge_decoded": decoded,
        "generated": {
            str(guidance): judge_generated(
                *parts, asked, guidance=guidance, most_saturated=decoded["saturated"]
            )
            for guidance in (1.0, 3.5)
        },
        "phrasings": judge_phrasings(*parts, load_phrasings()),
        "edits": edit_table(models, judge, edit_sets(models, repo)),
        "edits_of_things": edit_table(
            models, judge, {"none": (), "default": VITAL_LAYERS["flux-tiny"]["default"]}, PRESENCE
        ),
        "edits_by_layer": edits_by_layer(models, judge, repo),
    }
    (repo / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (repo / "MODEL_CARD.md").write_text(as_markdown(card))
    return card


def training_figures(folder: Path) -> dict:
    """Steps, minutes and last losses of each stage, from the logs in `folder`."""
    figures = {}
    for name, keys in STAGES.items():
        log = json.loads((folder / f"{name}.json").read_text())
        logged = [key for key in keys if any(key in row for row in log["history"])]  # a short try lacks some
        last = {key: round(mean_of(log["history"], key), 4) for key in logged}
        figures[name] = {
            "steps": log["step"],
            "planned": STEPS[name],
            "minutes": round(log["seconds"] / 60, 1),
            "device": log["device"],
            **last,
        }
    return figures


def edit_table(
    models: Models,
    judge: Judge,
    layer_sets: dict[str, tuple[int, ...]],
    attributes: Sequence[str] = ATTRIBUTES,
    seed: int = 0,
) -> dict:
    """Per layer set and attribute, over the same pairs: PSNR kept outside the edit, share of edits made,
    other attributes right; each a mean with its 95 % interval."""
    pairs = draw_pairs(PAIRS, seed, attributes)
    table = {}
    for name, layers in layer_sets.items():
        hooks = copy_in(layers) if layers else None
        scores = edit_scores(models, judge, pairs, hooks, f"edits, {name}")
        groups = {a: [s for s in scores if s.attribute == a] for a in attributes} | {"all": scores}
        table[name] = {
            "layers": list(layers),
            **{attribute: _edit_figures(some) for attribute, some in groups.items() if some},
        }
    return table


def edit_scores(
    models: Models, judge: Judge, pairs: Sequence[EditPair], hooks: Hooks | None, label: str
) -> list[EditScore]:
    make = partial(make_pair, models.flow, models.ae, (models.t5, models.clip), hooks=hooks)
    return list(score_pairs(tqdm(pairs, desc=label, mininterval=5), judge, make))


def edits_by_layer(models: Models, judge: Judge, repo: Path, seed: int = 0) -> dict:
    """What copying in one layer alone does, over `PAIRS_EACH` pairs: dB kept beyond those without injection,
    share of edits made. With a sweep's vital set also each layer's similarity when skipped, and the rank
    correlation (Spearman's) of importance and dB, of all layers and of the single blocks."""
    pairs = draw_pairs(PAIRS_EACH, seed)
    every = range(len(layers_of(models.flow)))
    figures = [
        _edit_figures(edit_scores(models, judge, pairs, hooks, label))
        for hooks, label in (
            (None, "edits, none"),
            *((copy_in((layer,)), f"edits, layer {layer}") for layer in every),
        )
    ]
    plain, rows = figures[0]["kept_db"], figures[1:]
    table = {
        "pairs": PAIRS_EACH,
        "gained_db": [row["kept_db"] - plain for row in rows],
        "made": [row["made"] for row in rows],
    }
    if found := vital_found(repo):
        table |= {"vital": found["layers"], "rule": found["evidence"]["rule"]}
        table |= {"prompts": found["evidence"]["prompts"]}
        table |= with_importance(table["gained_db"], found["similarity"], layers_of(models.flow).depth)
    return table


def vital_found(repo: Path) -> dict | None:
    """The vital set in `repo`; None where there is none, or one without layers or of a part of them."""
    if not (repo / VITAL_SET).is_file():
        return None
    found = json.loads((repo / VITAL_SET).read_text())
    return found if found["layers"] and None not in found["similarity"] else None


def with_importance(gained: Sequence[float], similarity: Sequence[float], depth: int) -> dict:
    """The similarities, and how far importance tells what a layer keeps: of all layers, of single blocks."""
    importance = [1 - value for value in similarity]
    return {
        "similarity": list(similarity),
        "rank_correlation": rank_correlation(importance, gained),
        "rank_correlation_single": rank_correlation(importance[depth:], gained[depth:]),
    }


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, in [-1, 1]; without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def edit_sets(models: Models, repo: Path) -> dict[str, tuple[int, ...]]:
    """No layers, the default ones and all; with a sweep's vital set also that, and as many of the most
    important single blocks and of the least important layers."""
    every = tuple(range(len(layers_of(models.flow))))
    sets = {"none": (), "default": VITAL_LAYERS["flux-tiny"]["default"], "all": every}
    if found := vital_found(repo):
        vital = tuple(layers_of(models.flow).indices(found["layers"]))
        similarity = found["similarity"]
        by_importance = sorted(every, key=lambda layer: similarity[layer])
        single = [layer for layer in by_importance if layer >= layers_of(models.flow).depth]
        sets |= {
            "vital": vital,
            "vital single blocks": tuple(sorted(single[: len(vital)])),
            "least important": tuple(sorted(by_importance[-len(vital) :])),
        }
    return sets


def _edit_figures(scores: list[EditScore]) -> dict:
    figures = {"pairs": len(scores)}
    for key, name in (("kept_db", "kept"), ("made", "made"), ("others", "others")):
        mean, half = mean_and_interval([float(getattr(score, name)) for score in scores])
        figures |= {key: mean, f"{key}_interval": half}
    return figures


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval (normal approximation)."""
    if len(values) < 2:
        return float(np.mean(values)), 0.0
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5)


def as_markdown(card: dict) -> str:
    """The figures as a page."""
    parts = [HEAD.format(**card["parameters"], **card["made_with"])]
    parts += [
        "## Training\n\n| stage | steps | minutes | on | last figures |\n| --- | --- | --- | --- | --- |"
    ]
    for name, row in card["training"].items():
        rest = ", ".join(
            f"{k} {v}" for k, v in row.items() if k not in ("steps", "minutes", "planned", "device")
        )
        where = row.get("device", "cpu")
        parts.append(f"| {name} | {row['steps']} | {row['minutes']} | {where} | {rest} |")
    if card["note"]:
        parts.append(f"\n{card['note']}")
    parts += ["\n## Quality, on attribute combinations no training picture shows\n"]
    rain = f"it keeps {card['streaks_kept']:.0%} of the contrast of rain by day"
    parts += [f"Autoencoder: {card['autoencoder_psnr']:.1f} dB PSNR on rendered pictures; {rain}.\n"]
    names = ["attributes", *ATTRIBUTES, "extra", "missing"]
    parts += ["| read by the judge | " + " | ".join(names) + " | pictures |"]
    parts += ["| --- " * (len(names) + 2) + "|"]
    rows = {"rendered": card["judge_rendered"], "rendered, through the autoencoder": card["judge_decoded"]}
    rows |= {f"generated, guidance {g}": row for g, row in card["generated"].items()}
    for label, row in rows.items():
        parts.append(f"| {label} | " + " | ".join(f"{row[n]:.3f}" for n in names) + f" | {row['pictures']} |")
    parts += quality_lines(card["generated"]["3.5"])
    parts += phrasing_lines(card["phrasings"])
    parts += [EDITS_HEAD.format(pairs=PAIRS)]
    parts += edit_lines(card["edits"])
    parts += [THINGS_HEAD, *edit_lines(card["edits_of_things"])]
    parts += layer_lines(card["edits_by_layer"])
    return "\n".join(parts) + "\n"


def edit_lines(table: dict) -> list[str]:
    lines = []
    for label, row in table.items():
        for attribute in (name for name in row if name != "layers"):
            r = row[attribute]
            figures = (
                f"{r[key]:.{digits}f} ± {r[f'{key}_interval']:.{digits}f}"
                for key, digits in (("kept_db", 1), ("made", 2), ("others", 2))
            )
            title = f"{label} {row['layers'] or ''}".strip()
            lines.append(f"| {title} | {attribute} | {' | '.join(figures)} | {r['pairs']} |")
    return lines


def quality_lines(row: dict) -> list[str]:
    """How sure the figures of the generated pictures are, and how many pictures are overexposed."""
    lines = [QUALITY_HEAD]
    for name, (low, high) in row["intervals"].items():
        lines.append(f"| {name} | {row[name]:.3f} | {low:.3f} to {high:.3f} | {row['cases'][name]} |")
    clipped = f"{row['clipped']:.1%} of the pictures have more saturated pixels than any rendered scene has"
    return [*lines, f"\n{clipped}\nthat passed through the autoencoder."]


def phrasing_lines(row: dict) -> list[str]:
    """How far free phrasings are understood, and which are not."""
    lines = [PHRASINGS_HEAD.format(**row)]
    return [*lines, *(f"- {prompt}" for prompt in row["not_understood"])]


def layer_lines(table: dict) -> list[str]:
    similarity = table.get("similarity", [None] * len(table["made"]))
    lines = [EACH_HEAD.format(pairs=table["pairs"])]
    if "vital" in table:
        listed = ", ".join(map(str, table["vital"]))
        lines.insert(0, VITAL_HEAD.format(layers=listed, rule=table["rule"], prompts=table["prompts"]))
    for layer, row in enumerate(zip(similarity, table["gained_db"], table["made"], strict=True)):
        skipped = "-" if row[0] is None else f"{row[0]:.3f}"
        lines.append(f"| {layer} | {skipped} | {row[1]:+.1f} | {row[2]:.2f} |")
    if "rank_correlation" in table:
        lines += ["\nRank correlation of importance (1 - similarity) and dB gained: "]
        lines[-1] += f"{table['rank_correlation']:.2f}; of the single blocks alone: "
        lines[-1] += f"{table['rank_correlation_single']:.2f}."
    return lines


HEAD = """# flux-tiny

A small model of FLUX.1's architecture, trained on drawn scenes alone by `python -m flux.tiny.training`. It
exists so that every tool of this package runs for real on a laptop; it knows one world and nothing else.

- Flow model {flow:,} parameters (4 double and 8 single blocks, hidden 192), guidance-distilled;
  autoencoder {ae:,}; T5 encoder {t5:,}; CLIP text model {clip:,}.
- Its world, 128 x 128: a day, night or sunset sky, clear, cloudy or rainy; grass, sand, snow or water; one to
  three of house, tree, car, boat, cat, flower, figure (arms up or down) and sign (a B, K, O, T or X on it),
  each red, yellow, green, blue, purple or white, small or big, with or without a hat, anywhere.
- Data: scenes drawn by `flux.tiny.scenes`, in pairs that differ in one thing or attribute, with captions by
  `flux.tiny.training.wordings`; one combination of kind, colour, size and hat in eight never shown in
  training. No pictures or texts from elsewhere. Licence: as the
  package.
- Measured with torch {torch}, Python {python}, on a CPU.
"""

QUALITY_HEAD = """
Guidance 3.5, with 95 % intervals (Wilson's):

| attribute | right | 95 % | cases |
| --- | --- | --- | --- |"""

PHRASINGS_HEAD = """
## Free phrasings

Of {pictures} that the caption grammar does not produce (`phrasings.json`), {understood:.0%} are understood:
everything that is said is right, and nothing is missing or too much. {attributes:.1%} of their attributes are
right. Not understood:
"""

EDITS_HEAD = """
## Edits

{pairs} pairs drawn by a seed, one attribute changed in each; source and edit from the same noise, guidance
3.5, 16 steps; keys and values of the source copied into the layers given. Vital: found by the sweep of
demos 2 and 3; vital single blocks: as many, of these alone. Default: found by trying sets. Kept: PSNR in dB
between source and edit outside the edited region. Made: share of pairs in which the judge finds the wanted
value. Others: share of all other attributes as asked. ± is half of a 95 % interval.

| layers | attribute | kept, dB | made | others | pairs |
| --- | --- | --- | --- | --- | --- |"""

THINGS_HEAD = """
### Whole things

A thing more or less in the prompt; made: the judge finds it, or finds none of its kind.

| layers | edit | kept, dB | made | others | pairs |
| --- | --- | --- | --- | --- | --- |"""

VITAL_HEAD = """
## Vital layers

{layers}, by the rule `{rule}` (`python demos/demo_2_skip.py`, `python demos/demo_3_dino.py`; {prompts}
prompts).

![How much each layer matters](../../../../assets/importance.png)"""

EACH_HEAD = """
## One layer at a time

Keys and values of the source copied in one layer alone, {pairs} pairs. Similarity: DINO, of pictures made
without that layer to pictures made with it. Gained: PSNR outside the edit beyond that without injection.

| layer | similarity when skipped | gained, dB | made |
| --- | --- | --- | --- |"""
