"""What a command of flux-tiny takes from its first letter to its page: this tree against an earlier one.

    python benchmarks/start.py --against e4ffcbb        # an earlier commit, in a worktree of its own
    python benchmarks/start.py --against FOLDER         # another checkout
    python benchmarks/start.py --alone --turns 1        # this tree's parts alone

One edit with the shipped spec, each time in a process of its own, in turns A B B A, one thread. A process of
each side goes before, which leaves Python's compiled files behind and is not counted. Counted are seconds of
the processor, the user's and the system's, which a busy machine stretches less than the clock; the clock, up
to the edit's picture and up to the end; and the most memory. Both sides must write the same bytes.

Where the seconds go is told by one more process of each side in each turn, in which the same command imports
its packages one after the other and its functions are timed. The collector's seconds are in the others'.

Figures go to `benchmarks/results/start.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "start.json"
EDIT = ["--prompts", "a big red house on the grass by day", "a big red house on the grass at night"]
PICTURE = "edit-01.png"
OF_ITS_TIME = ("run.json",)
"""Files that tell seconds and memory, and differ from run to run."""

PARTS = """
import functools, gc, importlib, json, runpy, sys
from time import process_time as now

file, demo, *argv = sys.argv[1:]
spent = {"python": now()}
begun = [0.0]


def collected(phase, info):
    if phase == "start":
        begun[0] = now()
    else:
        spent["collector"] = spent.get("collector", 0) + now() - begun[0]


def timed(part, work):
    @functools.wraps(work)
    def timed_work(*given, **named):
        start = now()
        try:
            return work(*given, **named)
        finally:
            spent[part] = spent.get(part, 0) + now() - start
    return timed_work


def watch(part, module, name):
    *owner, name = name.split(".")
    place = functools.reduce(getattr, owner, importlib.import_module(module))
    setattr(place, name, timed(part, getattr(place, name)))


gc.callbacks.append(collected)
from flux.entry import Console

with Console():
    timed("import torch", importlib.import_module)("torch")
    text = timed("import transformers", importlib.import_module)("transformers")
    timed("import T5 and CLIP", lambda: (text.T5EncoderModel, text.CLIPTextModel))()
    timed("import flux", importlib.import_module)("flux.studies.edit.run")
    watch("tokenizers", "flux.modules.conditioner", "load_tokenizer")
    watch("weights", "flux.studies.run", "load_models")
    watch("sampling", "flux.model", "Flux.forward")
    watch("decoding", "flux.modules.autoencoder", "AutoEncoder.decode")
    watch("DINO and judge", "flux.studies.edit.verdicts", "load_dino")
    watch("DINO and judge", "flux.studies.edit.verdicts", "load_judge")
    watch("report", "flux.studies.edit.report", "render")
    watch("report", "flux.studies.edit.report", "contact_sheet")
    sys.argv = [demo, *argv]
    try:
        runpy.run_path(demo, run_name="__main__")
    except SystemExit:
        pass
    spent["until its end"] = now()
    with open(file, "w") as out:
        json.dump(spent, out)
"""
"""A demo whose parts are timed: the file for the figures, the demo, and its flags."""


def environment(tree: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}


def carry_out(tree: Path, command: list[str], folder: Path) -> dict[str, float]:
    """Run a process that fills `folder`, and say what it took."""
    start, at = time.time(), time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *command, *EDIT, "--output", str(folder)],
        cwd=folder.parent,
        env=environment(tree),
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    clock = time.perf_counter() - at
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{tree} failed, exit code {child.returncode}")
    return {
        "processor": used.ru_utime + used.ru_stime,
        "clock to the picture": (folder / PICTURE).stat().st_mtime - start,
        "clock": clock,
        "MiB at most": used.ru_maxrss / 1024,
    }


def parts_of(tree: Path, folder: Path) -> dict[str, float]:
    """Seconds of the processor by what they went into."""
    file = folder.with_suffix(".json")
    whole = carry_out(tree, ["-c", PARTS, str(file), str(demo_of(tree))], folder)["processor"]
    spent = json.loads(file.read_text())
    end = spent.pop("until its end")
    collector = spent.pop("collector", 0.0)
    spent["weights"] -= spent["tokenizers"]
    return {
        **spent,
        "the rest": end - sum(spent.values()),
        "after its end": whole - end,
        "of all these, the collector before the end": collector,
    }


def demo_of(tree: Path) -> Path:
    return tree / "demos" / "demo_4_edit.py"


def bytes_of(folder: Path) -> dict[str, str]:
    """The digest of each file of a run that has to be the same in another."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in OF_ITS_TIME]
    return {str(file.relative_to(folder)): sha256(file.read_bytes()).hexdigest() for file in files}


@contextmanager
def tree_of(named: str) -> Iterator[Path]:
    """A folder as it is, or a commit in a worktree that goes again."""
    if Path(named).is_dir():
        yield Path(named).resolve()
        return
    with TemporaryDirectory() as place:
        tree, git = Path(place) / "tree", ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), named], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def measure(sides: dict[str, Path], turns: int, place: Path) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Figures of each side, `whole` and `parts`, a list of each."""
    figures: dict[str, Any] = {name: {"whole": {}, "parts": {}} for name in sides}
    written = {}
    for name, tree in sides.items():
        carry_out(tree, [str(demo_of(tree))], place / f"{name}-first")
        written[name] = bytes_of(place / f"{name}-first")
    if len({json.dumps(each, sort_keys=True) for each in written.values()}) != 1:
        names = sorted({name for each in written.values() for name in each})
        differ = [name for name in names if len({each.get(name) for each in written.values()}) > 1]
        raise SystemExit(f"both sides have to write the same bytes, and differ in {', '.join(differ)}")
    for turn in range(turns):
        for step, name in enumerate([*sides, *reversed(sides)]):
            taken = carry_out(sides[name], [str(demo_of(sides[name]))], place / f"{name}-{turn}-{step}")
            add(figures[name]["whole"], taken)
        for name, tree in sides.items():
            add(figures[name]["parts"], parts_of(tree, place / f"{name}-{turn}-parts"))
        say(turn + 1, figures)
    return figures


def add(lists: dict[str, list[float]], figures: dict[str, float]) -> None:
    for name, figure in figures.items():
        lists.setdefault(name, []).append(round(figure, 3))


def say(turn: int, figures: dict[str, Any]) -> None:
    told = {name: round(median(each["whole"]["processor"]), 2) for name, each in figures.items()}
    print(f"turn {turn}: seconds of the processor {told}", flush=True)


def medians(lists: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(median(each), 3) for name, each in lists.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--against", help="a commit, or a folder with another checkout")
    side.add_argument("--alone", action="store_true", help="this tree alone")
    parser.add_argument("--turns", type=int, default=3, help="of A B B A")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with TemporaryDirectory() as place, tree_of(given.against or str(ROOT)) as other:
        sides = {"now": ROOT} if given.alone else {"before": other, "now": ROOT}
        figures = measure(sides, given.turns, Path(place))
    import torch
    import transformers

    shown = {name: {kind: medians(each) for kind, each in side.items()} for name, side in figures.items()}
    results: dict[str, Any] = {
        "against": given.against,
        "threads": 1,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "median": shown,
        "figures": figures,
    }
    if not given.alone:
        before, now = (shown[name]["whole"] for name in ("before", "now"))
        results["before / now"] = {name: round(before[name] / now[name], 3) for name in now}
    given.out.write_text(json.dumps(results, indent=2) + "\n")
    print(
        json.dumps({name: results[name] for name in ("median", "before / now") if name in results}, indent=2)
    )


if __name__ == "__main__":
    main()
