"""Whether two checkouts make the same pictures, byte by byte, on this machine.

    python benchmarks/same_pictures.py BEFORE AFTER             all jobs, with the shipped sweep of 840 cells
    python benchmarks/same_pictures.py BEFORE AFTER --quick     that sweep with 4 prompts instead of 64
    python benchmarks/same_pictures.py BEFORE AFTER --resume    also: AFTER finishes what BEFORE began

Each job is a command line: a demo with a spec of flux-tiny, or `python -m flux t2i`. Both checkouts run it
side by side, each on one core with PYTHONPATH=<checkout>/src, and write to folders of their own. Then every
picture is compared byte by byte, and every table (without `seconds`) and vital_layers.json (without keys that
speak of versions or times) by what it says. A line per job says how many files are equal, or which ones
differ, pictures with their PSNR. Shipped specs are BEFORE's: what works before must work after.

--resume stops a run of BEFORE after its first pictures (SIGTERM for demo 0, SIGKILL for a sweep and for
edits), lets AFTER finish it in the same folder, and compares it with the run that BEFORE made in one go. What
was there must not be made again.

The jobs of a checkout share third-party packages alone: these are imported once, and each job runs in a fork
of that process. Needs a system that forks, and the extra `similarity`. Exits with 1 where anything differs.
"""

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

# Jobs


@dataclass(frozen=True)
class Job:
    """A command line and the folder that it fills.

    demo: its number; None for `python -m flux`. spec: of the demo, or None for the shipped one.
    folder: relative to the checkout's working folder; "" for `output/<name>`, which `--output` then names.
    """

    name: str
    demo: int | None
    spec: dict[str, Any] | None = None
    flags: tuple[str, ...] = ()
    folder: str = ""

    @property
    def place(self) -> str:
        return self.folder or f"output/{self.name}"


DEMOS = ("test", "layer", "skip", "dino", "edit")

DOG = "a big red house and a small white cat on the grass under a blue day sky"
BOAT = "a big blue boat with a hat on the water under a sunset sky"
CAR = "a small yellow car in the snow under a night sky"
TREE = "a big green tree on the sand under a blue day sky in the rain"

SNOW = "a big red house and a small white cat in the snow under a blue day sky"
PURPLE = "a big red house and a small purple cat on the grass under a blue day sky"
NIGHT = "a big red house and a small white cat on the grass under a night sky"
HAT = "a big red house with a hat and a small white cat on the grass under a blue day sky"
RAIN = "a big red house and a small white cat on the grass under a blue day sky in the rain"

OWN = [
    {"prompt": SNOW, "layers": [0, "double.3", "single.7"], "strength": 0.7},
    {"prompt": PURPLE, "layers": "all", "strategy": {"name": "ratio", "ratio": 0.5}},
    {"prompt": NIGHT, "layers": "single.*", "strategy": {"name": "copy", "values": False}, "window": [1, 3]},
    {"prompt": HAT, "seeds": [3, 4]},
]
SETS = {
    "steps": 4,
    "seed": 3,
    "prompts": [DOG, BOAT, {"prompt": CAR, "seed": 11}],
    "layers": ["0-2", "single.1-2", [11, "double.0"], "single.6+single.7", ["double.*"]],
    "batch": 2,
    "noise_floor": 2,
}
SWEEP = {
    "steps": 4,
    "prompts": [DOG, BOAT, CAR, TREE],
    "layers": [0, 4, "single.7"],
    "batch": 2,
    "noise_floor": 2,
}
MANY = {"steps": 8, "prompts": [DOG, BOAT, CAR, TREE], "seeds": [0, 7]}


def edits(*prompts: Any, **spec: Any) -> dict[str, Any]:
    """A small spec of demo 4. What DINO says of edits is on the page, not in a picture: it is left out."""
    asked = list(prompts or (SNOW, PURPLE))
    return {"steps": 4, "source": DOG, "edits": asked, "checks": {"dino": "off"}, **spec}


def shipped(demo: int) -> Job:
    name = DEMOS[demo]
    return Job(f"json/{name}.json", demo, folder=f"output/{name}/{name}")


def jobs() -> list[Job]:
    """In an order in which each finds what it reads."""
    size = {"width": 96, "height": 160, "guidance": 2.0}
    noisy, estimates = "../output/attention-size/noisy", "../output/attention-size/estimate"
    dino = {"model": "../dino"}
    return [
        *map(shipped, range(5)),
        Job("many-1", 0, MANY | {"batch": 1}),
        Job("many-4", 0, MANY | {"batch": 4, **size}),
        Job("attention", 1, {"steps": 5, "prompt": BOAT, "seed": 5, "attention": "all", "frame_ms": 90}),
        Job("attention-size", 1, {"steps": 4, "prompt": CAR, "attention": ["double.0", 9], **size}),
        Job("edit-copy", 4, edits()),
        Job("edit-keys", 4, edits(strategy={"name": "copy", "values": False})),
        Job("edit-values", 4, edits(strategy={"name": "copy", "keys": False}, layers=[0, 3, 9])),
        Job("edit-ratio", 4, edits(strategy={"name": "ratio", "ratio": 0.3}, layers="all")),
        Job("edit-threshold", 4, edits(strategy={"name": "threshold", "threshold": 1.2}, layers="double.*")),
        Job("edit-window", 4, edits(window=[1, 3], layers="vital")),
        Job("edit-strength", 4, edits(strength=0.5, **size)),
        Job("edit-seeds", 4, edits({"prompt": SNOW, "seeds": [0, 1, 5]}, {"prompt": NIGHT, "seeds": [5]})),
        Job("edit-own", 4, edits(*OWN, batch=2, seed=2)),
        Job("edit-batch-1", 4, edits(SNOW, PURPLE, NIGHT, batch=1, steps=8)),
        Job("edit-batch-4", 4, edits(SNOW, PURPLE, NIGHT, HAT, RAIN, batch=4)),
        Job("edit-alone", 4, edits(SNOW, compare=False, layers=[0], guidance=5.0)),
        Job("edit-vital", 4, edits(layers="../output/dino/dino/vital_layers.json")),
        Job("sets", 2, SETS),
        Job("sweep", 2, SWEEP),
        Job("workers", 2, SWEEP, ("--engine.workers", "2")),
        Job("shard-1", 2, SWEEP, _shard("1/2"), "output/parts.shards/1-of-2"),
        Job("shard-2", 2, SWEEP, _shard("2/2"), "output/parts.shards/2-of-2"),
        Job("merge", 2, SWEEP, ("--merge", "--output", "output/parts"), "output/parts"),
        Job("until", 2, SWEEP | {"layers": "all", "until": {"threshold": 0.9, "rounds": [2, 4]}}),
        Job("dino-sets", 3, {"sweep": "../output/sets", "metrics": ["dino", "psnr", "ssim"], "by": "top 2"}),
        Job("dino-sweep", 3, {"sweep": "../output/sweep", "by": "vitality 0.05", "token": "patches"}),
        Job("matrix", 3, dino | {"pictures": [noisy, estimates], "metrics": ["dino", "psnr"]}),
        Job("ranking", 3, dino | {"picture": f"{noisy}/step-03.png", "against": [estimates]}),
        Job("t2i", None, None, _t2i("--prompt", f"{DOG} | {BOAT}", "--seed", "3"), "output/t2i"),
        Job("t2i-plain", None, None, _t2i("--seed", "4", "--add_sampling_metadata", "False"), "output/t2i"),
    ]


def _shard(part: str) -> tuple[str, ...]:
    return ("--shard", part, "--output", "output/parts")


def _t2i(*flags: str) -> tuple[str, ...]:
    return ("t2i", "--name", "flux-tiny", "--num_steps", "4", "--output_dir", "output/t2i", *flags)


RESUMED = {"many-1": signal.SIGTERM, "sets": signal.SIGKILL, "edit-batch-1": signal.SIGKILL}
"""Jobs that are stopped half-way and finished by the other checkout, and how they are stopped."""


# Running them

RUNNER = """
import contextlib, importlib, json, os, runpy, sys
for name in ("numpy", "torch", "PIL.Image", "matplotlib.pyplot", "scipy.stats", "safetensors.torch",
             "transformers.models.t5.modeling_t5", "transformers.models.clip.modeling_clip",
             "transformers.models.dinov2.modeling_dinov2"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for line in sys.stdin:
    words, log = json.loads(line)
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, os.path.dirname(words[0])
            runpy.run_path(words[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs a command line per line of its input, each in a fork, and prints its exit code."""


@dataclass
class Side:
    """A checkout at work in a folder of its own, which holds json/, dino/, output/ and logs/."""

    checkout: Path
    folder: Path
    runner: subprocess.Popen | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        for name in ("json", "logs"):
            (self.folder / name).mkdir(parents=True)
        used = subprocess.run(
            [sys.executable, "-c", "import flux; print(flux.__file__)"],
            **self.surroundings(),
            stdout=subprocess.PIPE,
            check=True,
        ).stdout.strip()
        if not Path(used).resolve().is_relative_to(self.checkout / "src"):
            raise SystemExit(f"{self.checkout}: flux is imported from {used} instead")

    def surroundings(self) -> dict[str, Any]:
        paths = {"PYTHONPATH": str(self.checkout / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return {"cwd": self.folder, "env": os.environ | paths, "text": True}

    def words(self, job: Job, output: str | None = None) -> list[str]:
        """The command line without the interpreter; writes the job's spec."""
        if job.demo is None:
            return ["-m", "flux", *job.flags]
        (demo,) = self.checkout.glob(f"demos/demo_{job.demo}_*.py")
        spec = self.folder / (job.name if job.spec is None else f"json/{job.name}.json")
        if job.spec is not None:
            model = {} if job.demo == 3 else {"model": "flux-tiny"}
            spec.write_text(json.dumps(model | job.spec), encoding="utf-8")
        place = output or (f"output/{job.name}" if not job.folder else None)
        return [str(demo), str(spec), *job.flags, *(("--output", place) if place else ())]

    def run(self, job: Job) -> int:
        """Do a job; returns the exit code."""
        if self.runner is None:
            self.runner = subprocess.Popen(
                [sys.executable, "-c", RUNNER],
                **self.surroundings(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        self.runner.stdin.write(json.dumps([self.words(job), str(self.log(job))]) + "\n")
        self.runner.stdin.flush()
        return int(self.runner.stdout.readline() or -1)

    def log(self, job: Job) -> Path:
        return self.folder / "logs" / f"{Path(job.name).stem}.log"

    def stop(self) -> None:
        if self.runner is not None:
            self.runner.stdin.close()
            self.runner.wait()


def furnish(folder: Path, before: Path, *, quick: bool) -> None:
    """Put BEFORE's shipped specs and DINO where a side finds them. quick: with 4 of the sweep's prompts."""
    shutil.copytree(before / "src/flux/tiny/weights/dino", folder / "dino")
    for file in (before / "json").glob("*.json"):
        shutil.copy(file, folder / "json")
    if quick:
        file = folder / "json" / json.loads((folder / "json/skip.json").read_text("utf-8"))["prompts"]
        prompts = json.loads(file.read_text("utf-8"))
        listed = prompts["prompts"] if isinstance(prompts, dict) else prompts
        file.write_text(json.dumps(listed[:4]), encoding="utf-8")


# Comparing

PICTURES = (".png", ".webp", ".jpg")
PASSING = re.compile("version|time|seconds|created", re.IGNORECASE)
"""Keys of vital_layers.json that may differ."""


def results(folder: Path) -> dict[str, Path]:
    """The files that are compared, by their place in a job's folder."""
    files = sorted(folder.rglob("*")) if folder.is_dir() else []
    return {
        str(file.relative_to(folder)): file
        for file in files
        if file.suffix in (*PICTURES, ".csv") or file.name == "vital_layers.json"
    }


def differences(before: Path, after: Path, roots: Sequence[Path]) -> Iterator[str]:
    """The files of two folders that are not the same. roots: the sides' folders, which tables may name."""
    ours, theirs = results(before), results(after)
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            yield f"{name} only {'before' if name in ours else 'after'}"
        elif ours[name].suffix in PICTURES:
            if ours[name].read_bytes() != theirs[name].read_bytes():
                yield f"{name} ({nearness(ours[name], theirs[name])})"
        elif content(ours[name], roots) != content(theirs[name], roots):
            yield name


def content(file: Path, roots: Sequence[Path]) -> Any:
    """What a table or a vital set says, without what may differ."""
    text = file.read_text(encoding="utf-8")
    for root in roots:
        text = text.replace(str(root), "")
    if file.suffix == ".json":
        return lasting(json.loads(text))
    header, *rows = csv.reader(text.splitlines())
    kept = [i for i, column in enumerate(header) if column != "seconds"]
    lines = [[row[i] for i in kept] for row in (header, *rows)]
    # Cells are listed as they are done, by several workers in any order.
    return sorted(lines) if file.name == "cells.csv" else lines


def lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: lasting(each) for name, each in value.items() if not PASSING.search(name)}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def nearness(before: Path, after: Path) -> str:
    """The PSNR of two pictures, of animations that of the frame that differs most."""
    ours, theirs = frames(before), frames(after)
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        return "another size"
    error = max(float(np.mean((a - b) ** 2)) for a, b in zip(ours, theirs, strict=True))
    return f"{10 * np.log10(255**2 / error):.1f} dB" if error else "the same pixels"


def frames(file: Path) -> list[np.ndarray]:
    with Image.open(file) as image:
        return [np.asarray(each.convert("RGB"), dtype=np.float64) for each in ImageSequence.Iterator(image)]


def last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines() if file.exists() else []
    return lines[-1] if lines else "no output"


# Half a run, finished by the other checkout


def moved(before: Path, after: Path, folder: Path) -> Path:
    """A copy of AFTER as an update in place would leave it: weights that are the same keep BEFORE's times.

    Runs know weights by size and time, and files that git does not change keep theirs.
    """
    for name in ("src", "demos"):
        shutil.copytree(after / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (before / "src").rglob("*.safetensors"):
        new = folder / file.relative_to(before)
        if new.is_file() and new.read_bytes() == file.read_bytes():
            shutil.copystat(file, new)
    return folder


def resumed(job: Job, how: signal.Signals, before: Side, after: Side) -> tuple[int, list[str]]:
    """Files that were there when BEFORE was stopped, and what is wrong with the run that AFTER finished."""
    name = f"output/resumed-{job.name}"
    folder = before.folder / name
    log = before.folder / "logs" / f"resumed-{job.name}.log"
    with open(log, "w", encoding="utf-8") as stream:
        command = [sys.executable, *before.words(job, name)]
        process = subprocess.Popen(command, **before.surroundings(), stdout=stream, stderr=stream)
        while process.poll() is None and len(list(folder.rglob("*.png"))) < 2:
            time.sleep(0.01)
        process.send_signal(how)
        process.wait()
        made = {file: file.stat().st_mtime_ns for file in _whole(folder)}
        command = [sys.executable, *after.words(job, str(folder))]
        code = subprocess.run(command, **after.surroundings(), stdout=stream, stderr=stream).returncode
    wrong = list(differences(before.folder / job.place, folder, [before.folder]))
    if len(made) >= len(_pictures_of(before.folder / job.place)):
        wrong.append("it was done before it could be stopped")
    if code:
        wrong.append(f"exit code {code}: {last_line(log)}")
    wrong += [f"{file.name} made again" for file, when in made.items() if file.stat().st_mtime_ns != when]
    return len(made), wrong


def _pictures_of(folder: Path) -> list[Path]:
    return [file for file in results(folder).values() if file.suffix in PICTURES]


def _whole(folder: Path) -> list[Path]:
    """The pictures that can be read; one that was being written may be there in part."""
    whole = []
    for file in _pictures_of(folder):
        try:
            frames(file)
            whole.append(file)
        except (OSError, SyntaxError):
            continue
    return whole


# All of it


def compare(job: Job, before: Side, after: Side, pool: ThreadPoolExecutor) -> tuple[int, list[str]]:
    """Do a job on both sides; how many files there are to compare, and what is wrong."""
    codes = list(pool.map(lambda side: side.run(job), (before, after)))
    places = [side.folder / job.place for side in (before, after)]
    wrong = list(differences(*places, [before.folder, after.folder]))
    if any(codes):
        wrong += [
            f"{side.checkout} exits with {code}: {last_line(side.log(job))}"
            for side, code in zip((before, after), codes, strict=True)
        ]
    count = len(results(places[0]))
    return count, wrong or ([] if count else ["there is nothing to compare"])


def told(name: str, equal: str, wrong: Sequence[str], seconds: float) -> None:
    text = equal if not wrong else f"{len(wrong)} differ: " + "; ".join(wrong[:8])
    more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
    print(f"{name:<24}{seconds:6.1f} s  {text}{more}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--quick", action="store_true", help="the shipped sweep with 4 prompts only")
    parser.add_argument("--resume", action="store_true", help="also finish runs of BEFORE by AFTER")
    parser.add_argument("--only", metavar="PATTERN", default="", help="jobs whose names match, and no others")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in that is left as it is")
    options = parser.parse_args()

    start = time.perf_counter()
    files = failed = 0
    with TemporaryDirectory() as temporary, ThreadPoolExecutor(2) as pool:
        root = (options.keep or Path(temporary)).resolve()
        before, after = (
            Side(checkout.resolve(), root / name)
            for checkout, name in ((options.before, "before"), (options.after, "after"))
        )
        try:
            for side in (before, after):
                furnish(side.folder, before.checkout, quick=options.quick)
            asked = [job for job in jobs() if re.search(options.only, job.name)]
            for job in asked:
                began = time.perf_counter()
                count, wrong = compare(job, before, after, pool)
                told(job.name, f"equal, {count} files", wrong, time.perf_counter() - began)
                files, failed = files + count, failed + bool(wrong)
            if options.resume:
                later = Side(moved(before.checkout, after.checkout, root / "checkout"), root / "later")
                for job in asked:
                    if job.name in RESUMED:
                        began = time.perf_counter()
                        count, wrong = resumed(job, RESUMED[job.name], before, later)
                        equal = f"equal, {count} pictures from before the {RESUMED[job.name].name}"
                        told(f"resumed {job.name}", equal, wrong, time.perf_counter() - began)
                        failed += bool(wrong)
        finally:
            before.stop()
            after.stop()
    verdict = f"{failed} jobs differ" if failed else "all the same"
    print(f"{verdict}: {len(asked)} jobs, {files} files, {time.perf_counter() - start:.0f} s")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
