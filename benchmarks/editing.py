"""Edits with a known right answer: methods and settings side by side, as a table and a page of pictures.

    python benchmarks/editing.py                       the table: rendered scenes as photographs, test split
    python benchmarks/editing.py --sources generated   the same for pictures that the model made
    python benchmarks/editing.py --plan                the rows and how long they would take, nothing run
    python benchmarks/editing.py --rows flowedit ours --pairs 22     some rows, on fewer pairs
    python benchmarks/editing.py tune                  each method's best settings, on the tuning split
    python benchmarks/editing.py pie FOLDER --model flux-dev     a folder in PIE-Bench's layout, its metrics

A table is made in `output/editing-...` (or --out) row by row; run again, it goes on with what is missing.
`benchmarks/README.md` says what the columns are; rows stand in `editing_parts/catalogue.py`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from editing_parts import catalogue, pie, pie_metrics, planning, tuning
from editing_parts.measuring import MEASURES, TINY, Measures, Yardstick, patch_similarity
from editing_parts.page import page
from editing_parts.remembering import Remembering
from editing_parts.rows import STEPS, Row, chosen
from editing_parts.running import Bench, Folder, as_json
from editing_parts.table import grids, markdown, summary
from editing_parts.tasks import BATCH, SOURCES, SPLITS, draw

from flux.files import write_atomically
from flux.models import FROM_TEXT
from flux.tiny.judge import load_judge
from flux.util import TINY_WEIGHTS, configs, load_models
from flux.weights.identity import digest, weights_id

MODEL = "flux-tiny"
RESULTS = Path(__file__).resolve().parent / "results"


def open_bench(given: argparse.Namespace, count: int, *, rebuild: bool = True) -> Bench:
    """flux-tiny and a task set; pictures are drawn when the first row needs them."""
    models = load_models(MODEL, device=given.device, dtype="float32")
    models = replace(models, flow=Remembering(models.flow))
    judge = load_judge(TINY_WEIGHTS / "judge.safetensors")
    alike = patch_similarity(TINY_WEIGHTS / "dino")
    return Bench(
        models,
        partial(draw, models, given.sources, given.split, count, given.steps),
        partial(Yardstick.of, judge=judge, alike=alike),
        rebuild=rebuild,
    )


def facts_of(given: argparse.Namespace) -> dict[str, Any]:
    """What decides all figures of a table."""
    weights = weights_id(configs[MODEL], configs[MODEL].home)
    return {
        "model": MODEL,
        "weights": weights | {"judge": digest([TINY_WEIGHTS / "judge.safetensors"])},
        "sources": given.sources,
        "split": given.split,
        "seed": SPLITS[given.split],
        "steps": given.steps,
    }


def columns_of(measures: Measures) -> dict[str, list[str]]:
    """What a folder's rows are measured by."""
    return {"columns": [column.name for column in measures.columns]}


def show(
    folder: Folder,
    rows: Sequence[Row],
    facts: dict[str, Any],
    kinds: Sequence[str],
    default: str | None,
    measures: Measures = TINY,
) -> str:
    """Write table.json, table.md and page.html of the rows that are done; returns the tables as Markdown."""
    done = [row for row in rows if folder.done(row)]
    results = [folder.result(row) for row in done]
    records = summary(results, default, kinds, measures)
    costs = {each.name: each.cost for each in results}
    each_kind = list(dict.fromkeys(kinds))
    tables = grids(records, costs, each_kind, measures)
    columns = {column.name: column.about for column in measures.columns}
    table = facts | {"columns": columns, "default": default, "rows": records}
    write_atomically(folder.path / "table.json", as_json(table))
    text = markdown(tables)
    write_atomically(folder.path / "table.md", text.encode())
    strips = [
        {
            "name": row.name,
            "about": row.about,
            "file": f"pictures/{folder.file('pictures', row, '.png').name}",
        }
        for row in done
    ]
    files = {"table.json": "all figures", "table.md": "the tables as Markdown"}
    title = f"Edits of {facts['sources']}, {facts['split']} split"
    shown = {key: value for key, value in facts.items() if key != "weights"} | facts["weights"]
    made = page(title, shown, records, tables, each_kind, strips, files, measures.axes)
    write_atomically(folder.path / "page.html", made.encode())
    return text


def make_table(given: argparse.Namespace) -> None:
    rows = chosen(catalogue.catalogue(configs[MODEL]), given.rows, given.sources)
    if given.pairs is not None:
        rows = [replace(row, pairs=min(row.pairs, given.pairs)) for row in rows]
    count = max(row.pairs for row in rows)
    if given.plan:
        print(planning.plan(open_bench(given, min(count, BATCH)), rows, given.steps))
        return
    name = f"editing-{given.sources}-{given.split}"
    facts, folder = facts_of(given), Folder(given.out or Path("output", name))
    folder.begin(facts | columns_of(TINY))
    tuned = json.loads(catalogue.BEST.read_text(encoding="utf-8")) if catalogue.BEST.is_file() else facts
    if tuned["weights"] != facts["weights"]:
        print("settings were tuned on other weights: run `editing.py tune` first", file=sys.stderr)
    if any(not folder.done(row) for row in rows):
        open_bench(given, count).make(folder, rows, given.steps)
    kinds = [pair.attribute for pair in planning.pairs_of(given.split, count)]
    measures = MEASURES[given.sources]
    print(show(folder, rows, facts, kinds, catalogue.DEFAULT[given.sources], measures))
    if given.publish:
        for ending in (".json", ".md"):
            text = (folder.path / f"table{ending}").read_bytes()
            write_atomically(RESULTS / f"{name}{ending}", text)


def tune(given: argparse.Namespace) -> None:
    """Run each method's grid on the tuning split, and write what the rule chooses."""
    for name in given.methods or ():
        if name not in tuning.GRIDS:
            raise ValueError(f"--methods {name!r}: there are grids for {', '.join(tuning.GRIDS)}")
    tried = {
        method: tuning.candidates(configs[MODEL], method, axes, given.pairs)
        for method, axes in tuning.GRIDS.items()
        if given.methods is None or method in given.methods
    }
    rows = [row for some in tried.values() for row in some]
    if given.plan:
        print(planning.plan(open_bench(given, min(given.pairs, BATCH), rebuild=False), rows, given.steps))
        return
    bench = open_bench(given, given.pairs, rebuild=False)
    facts, folder = facts_of(given), Folder(given.out or Path("output", "editing-tuning"))
    folder.begin(facts | columns_of(TINY))
    bench.make(folder, rows, given.steps)
    kinds = [pair.attribute for pair in planning.pairs_of(given.split, given.pairs)]
    show(folder, rows, facts, kinds, None)
    before = json.loads(given.best.read_text(encoding="utf-8")) if given.best.is_file() else {}
    same = all(before.get(name) == facts[name] for name in ("weights", "steps"))
    methods = before["methods"] if same else {}
    methods |= dict(tuning.choices(tried, {row.name: folder.result(row) for row in rows}))
    facts |= {"rule": tuning.RULE, "methods": methods}
    write_atomically(given.best, as_json(facts))
    for method, choice in methods.items():
        print(f"{method}: {choice['said']}: made {choice['made']:.3f}, truth {choice['truth']:.2f} dB")


def make_pie(given: argparse.Namespace) -> None:
    """The table of a folder in PIE-Bench's layout, by its metrics."""
    cases, spec = pie.read_cases(given.folder, given.pairs), configs[given.model]
    rows = [replace(row, pairs=len(cases)) for row in pie.rows_for(catalogue.catalogue(spec), given.rows)]
    folder = Folder(given.out or Path("output", f"editing-pie-{given.model}"))
    size = given.size or spec.size
    facts = {
        "model": given.model,
        "weights": weights_id(spec, given.weights or spec.home),
        "sources": "photos",
        "split": given.folder.name,
        "pairs": len(cases),
        "size": size,
        "steps": given.steps,
        "clip": given.clip,
        "dino": given.dino,
    }
    folder.begin(facts | columns_of(pie_metrics.MEASURES))
    if any(not folder.done(row) for row in rows):
        metrics = pie_metrics.load(given.clip, given.dino)
        models = load_models(given.model, device=given.device, weights=given.weights)
        models = replace(models, flow=Remembering(models.flow))
        draw_cases = partial(pie.draw_folder, models, cases, size, given.batch)
        Bench(models, draw_cases, metrics).make(folder, rows, given.steps)
    kinds = [case.attribute for case in cases]
    print(show(folder, rows, facts, kinds, pie.default_of(rows), pie_metrics.MEASURES))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of every method ({STEPS})")
    parser.add_argument("--plan", action="store_true", help="print the rows and their minutes, run nothing")
    parser.add_argument("--out", type=Path, help="the folder that the table is made in")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of torch, on whose number roundings depend")
    if argv[:1] == ["tune"]:
        parser.prog += " tune"
        parser.add_argument("--methods", nargs="+", metavar="METHOD", help="some of them; else all")
        parser.add_argument("--pairs", type=int, default=33, help="pairs a setting (33)")
        parser.add_argument("--best", type=Path, default=catalogue.BEST, help="the file that is written")
        parser.set_defaults(run=tune, split="tuning", sources="photos")
        return parser.parse_args(argv[1:])
    if argv[:1] == ["pie"]:
        parser.prog += " pie"
        parser.add_argument("folder", type=Path, help=f"holds {pie.MAPPING} and {pie.PICTURES}/")
        parser.add_argument("--model", choices=FROM_TEXT, default="flux-dev")
        parser.add_argument("--weights", type=Path, help="the model's folder; else where loading looks")
        parser.add_argument("--size", type=int, help="pixels of a side; else the model's own")
        parser.add_argument("--batch", type=int, default=2, help="edits side by side (2)")
        parser.add_argument("--pairs", type=int, help="the first so many; else all")
        parser.add_argument("--rows", nargs="+", metavar="ROW", help="some rows by name; else all")
        parser.add_argument("--clip", default=pie_metrics.CLIP, help="a hub name or a folder")
        parser.add_argument("--dino", default=pie_metrics.DINO, help="a hub name or a folder")
        parser.set_defaults(run=make_pie, steps=28)
        return parser.parse_args(argv[1:])
    parser.add_argument("--sources", choices=SOURCES, default="photos")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="some rows by name; else all")
    parser.add_argument("--pairs", type=int, help="at most so many pairs a row")
    parser.add_argument("--publish", action="store_true", help="put the table into benchmarks/results too")
    parser.set_defaults(run=make_table)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(sys.argv[1:] if argv is None else argv)
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        given.run(given)
    except (ValueError, ImportError, OSError) as error:
        print(f"editing.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
