"""Nothing of a user's is lost: demos killed at random moments, started in pairs, and on disks that fail.

    python benchmarks/endurance.py kills --count 50       # SIGKILL, then the same command: the same bytes
    python benchmarks/endurance.py pairs --count 20       # two at once: each folder is one run's
    python benchmarks/endurance.py faults --count 60      # ENOSPC, EROFS, EACCES at write calls: one line
    python benchmarks/endurance.py all --seed 1

All five demos, on flux-tiny, as small as they get. Each run is a process of its own, forked from this one,
which has imported and loaded everything, so that a kill falls into the work: at a random moment, and every
other time at a random one of the calls that write. Exits with 1 where anything was lost, and says what. Needs
a system that forks, and `pip install ".[plots,similarity]"`.
"""

import argparse
import csv
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

PROMPTS = ["a big red house on the grass", "a small white cat in the snow", "a blue boat on the water"]
SMALL = ["--steps", "2", "--width", "32", "--height", "32"]
DEMOS = {
    "test": (
        "demo_0_test",
        [*SMALL, "--prompts", *PROMPTS, "--seeds", "[0,1]", "--batch", "2"],
        "--guidance=2",
    ),
    "layer": ("demo_1_layer", [*SMALL, "--prompt", PROMPTS[0], "--attention", "[0,5]"], "--seed=3"),
    "skip": (
        "demo_2_skip",
        [*SMALL, "--prompts", *PROMPTS, "--layers", "[0,6,[1,2]]", "--batch", "2", "--noise_floor", "2"],
        "--guidance=2",
    ),
    "dino": ("demo_3_dino", ["--sweep", "the-sweep"], "--by=top 1"),
    "edit": ("demo_4_edit", [*SMALL, "--prompts", *PROMPTS, "--batch", "1"], "--seed=3"),
}
"""By name: the script, its options, and an option that makes another run of it."""

MINE = {"my-notes.png": b"mine", "mine/keep.png": b"mine too", "notes.txt": b"and mine"}
SHOWN = ("sheet", "filmstrip", "attention.png", "animation", "difference", "index.html")
"""What is drawn from pictures, and drawn again whenever a run goes on."""
PASSING = ("seconds", "memory_bytes", "computed", "machine", "device", "versions", "made", "setting")
"""What differs between two runs of one spec, in `run.json`; digests are compared with the files."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, or minus the signal's number; what it said."""

    code: int
    out: str
    err: str
    seconds: float


class Process:
    """A demo, or the command line, in a forked process, in a working directory."""

    def __init__(self, name: str, argv: Sequence[str], cwd: Path, wrap: Callable = nullcontext):
        self.files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self.start = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os._exit(self._work(name, argv, cwd, wrap))

    def _work(self, name: str, argv: Sequence[str], cwd: Path, wrap: Callable) -> int:
        for number, file in enumerate(self.files, start=1):
            os.dup2(file.fileno(), number)
        code = 99
        try:
            os.chdir(cwd)
            with wrap():
                code = main_of(name)([*argv])
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> Outcome:
        _, status = os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self.start
        said = []
        for file in self.files:
            file.seek(0)
            said.append(file.read())
            file.close()
        return Outcome(os.waitstatus_to_exitcode(status), *said, seconds)


def main_of(name: str) -> Callable[[list[str]], int]:
    if name == "flux":
        from flux.cli import app

        return app
    path = ROOT / "demos" / f"{DEMOS[name][0]}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run(name: str, *argv: str, cwd: Path, wrap: Callable = nullcontext) -> Outcome:
    return Process(name, [*DEMOS[name][1], *argv], cwd, wrap).ended()


# What a folder holds, to be compared


def content(folder: Path) -> dict[str, object]:
    """By name, each file of a run without what passes: times, memory, the order of rows, caches."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.name.startswith("features-") or name in MINE:
            continue
        if name == "run.json":
            record = json.loads(path.read_text().replace(str(folder), "<folder>"))
            found[name] = {key: value for key, value in record.items() if key not in PASSING}
        elif name == "cells.csv":
            with open(path, newline="") as stream:
                found[name] = sorted(
                    (row["file"], row["sha256"], row["error"]) for row in csv.DictReader(stream)
                )
        else:
            found[name] = path.read_bytes()
    return found


def difference(expected: object, found: object) -> str:
    """How a file differs, in words."""
    if expected is None or found is None:
        return "missing" if found is None else "too many"
    if isinstance(expected, dict):
        keys = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        return f"other: {[(key, expected.get(key), found.get(key)) for key in keys]}"
    return "other"


def whole_pictures(folder: Path) -> dict[str, int]:
    """By name, when the pictures were written that are made and whole."""
    from flux.files import read_json_object
    from flux.studies.made import MadeFiles
    from flux.studies.sweep.folder import CellTable, file_sha256

    made = MadeFiles(folder, read_json_object(folder / "run.json"))
    names = [name for name in made if made.is_whole(name) and not name.startswith(SHOWN)]
    names += [
        row.cell.file
        for row in CellTable(folder).rows()
        if not row.error and file_sha256(folder / row.cell.file) == row.sha256
    ]
    return {name: (folder / name).stat().st_mtime_ns for name in names}


def leave_mine(folder: Path) -> None:
    """A user's files in a run's folder."""
    for name, data in MINE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def lost(folder: Path) -> list[str]:
    return [
        name
        for name, data in MINE.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != data
    ]


# Trials


class Bench:
    """Where runs are made, always in the same place, since pages name it, and what undisturbed ones leave."""

    def __init__(self, root: Path, demos: Sequence[str], seed: int):
        self.root, self.work, self.demos = root, root / "work", demos
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.sweep = root / "sweep"
        self.fresh()
        if "dino" in demos:
            self._must("skip", "--output", "the-sweep")
            shutil.move(self.work / "the-sweep", self.sweep)
        self._plain: dict[tuple[str, ...], tuple[dict[str, object], float]] = {}

    def fresh(self) -> Path:
        """An empty working directory, with the sweep that demo 3 reads."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        if self.sweep.exists():
            shutil.copytree(self.sweep, self.work / "the-sweep")
        return self.work

    def _must(self, name: str, *argv: str) -> Outcome:
        end = run(name, *argv, cwd=self.work)
        if end.code:
            raise SystemExit(f"{name} {argv} ended with {end.code}: {end.err or end.out}")
        return end

    def plain(self, name: str, *argv: str) -> tuple[dict[str, object], float]:
        """What an undisturbed run leaves, and how long it takes."""
        if (name, *argv) not in self._plain:
            self.fresh()
            end = self._must(name, *argv, "--output", "plain")
            self._plain[(name, *argv)] = content(self.work / "plain"), end.seconds
        return self._plain[(name, *argv)]

    def problem(self, text: str) -> None:
        self.problems.append(text)
        print(f"  LOST: {text}", flush=True)

    def compare(self, title: str, folder: Path, expected: dict[str, object]) -> None:
        found = content(folder)
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                self.problem(f"{title}: {name} is {difference(expected.get(name), found.get(name))}")


_counted: dict[str, int] = {}


def calls_of(bench: Bench, name: str) -> int:
    """How many writing calls a whole run has."""
    from helpers_faults import faults as counting

    if name not in _counted:
        work, file = bench.fresh(), bench.root / "calls"

        class Counting:
            def __enter__(self):
                self.faults = counting(work / "counted")
                self.found = self.faults.__enter__()

            def __exit__(self, *error):
                self.faults.__exit__(*error)
                file.write_text(str(len(self.found.calls)))

        run(name, "--output", "counted", cwd=work, wrap=Counting)
        _counted[name] = int(file.read_text())
    return _counted[name]


@contextmanager
def killing(folder: Path, at: int) -> Iterator[None]:
    """SIGKILL when the writing call with the number `at` is made below a folder."""
    from helpers_faults import faults

    with faults(folder, at=at, fail=lambda error: os.kill(os.getpid(), signal.SIGKILL)):
        yield


def kills(bench: Bench, count: int) -> str:
    """SIGKILL at a random moment, a user's files put in between, and the same command once more."""
    killed, late, resumed_killed = 0, 0, 0
    while killed < count:
        name = bench.demos[killed % len(bench.demos)]
        expected, seconds = bench.plain(name)
        calls = calls_of(bench, name)
        folder = bench.fresh() / "run"
        moment, argv = bench.random.uniform(0, seconds), [*DEMOS[name][1], "--output", "run"]
        if killed // len(bench.demos) % 2:
            at = bench.random.randrange(calls)
            process = Process(name, argv, bench.work, partial(killing, folder, at))
            title = f"{name} killed at its writing call {at}"
        else:
            process = Process(name, argv, bench.work)
            time.sleep(moment)
            process.kill()
            title = f"{name} killed after {moment:.2f} s"
        if process.ended().code != -signal.SIGKILL:
            late += 1
            continue
        killed += 1
        begun = (folder / "run.json").is_file()
        if begun and bench.random.random() < 0.3:  # and once more, on its second way
            again = Process(name, argv, bench.work)
            time.sleep(bench.random.uniform(0, seconds))
            again.kill()
            resumed_killed += again.ended().code == -signal.SIGKILL
        before = whole_pictures(folder) if begun else {}
        # A folder without a run's record is a user's as soon as there is something of theirs in it.
        if begun and len(before) > 0:
            leave_mine(folder)
        end = run(name, "--output", "run", cwd=bench.work)
        if end.code:
            bench.problem(f"{title}: the next run ended with {end.code}: {end.err[-300:]}")
            continue
        bench.compare(title, folder, expected)
        if before:
            for each in lost(folder):
                bench.problem(f"{title}: the user's {each} is gone")
        if name != "dino":  # which draws all again, from what it has measured
            for each, at in before.items():
                if (folder / each).stat().st_mtime_ns != at:
                    bench.problem(f"{title}: {each} was there and was made again")
        print(f"  {title}, {len(before)} pictures kept", flush=True)
    return f"{killed} kills ({late} more came too late, {resumed_killed} hit a run that went on)"


def pairs(bench: Bench, count: int) -> str:
    """Two processes at once: of other specs or the same, into a folder that is named or not."""
    waited = 0
    for index in range(count):
        name = bench.demos[index % len(bench.demos)]
        same, named = index // len(bench.demos) % 2 == 1, index // len(bench.demos) // 2 % 2 == 0
        other = [] if same else [DEMOS[name][2]]
        wanted = [bench.plain(name)[0]] + ([] if same else [bench.plain(name, *other)[0]])
        work = bench.fresh()
        place = ["--output", "run"] if named else []
        argvs = [[*DEMOS[name][1], *place], [*DEMOS[name][1], *other, *place]]
        processes = [Process(name, argv, work) for argv in argvs]
        ends = [process.ended() for process in processes]
        what = "the same spec" if same else "two specs"
        title = f"pair {index + 1}: {name}, {what}, {'named' if named else 'unnamed'}"
        for end in ends:
            busy = name == "skip" and same and end.code == 2 and "is being made by process" in end.err
            waited += busy or "is being made by process" in end.out
            if end.code and not busy:
                bench.problem(f"{title}: ended with {end.code}: {end.err[-300:]}")
        folders = [path.parent for path in work.rglob("run.json") if path.parent != work / "the-sweep"]
        if len(folders) != len(wanted):
            bench.problem(f"{title}: {len(folders)} folders for {len(wanted)} runs")
        left = [content(folder) for folder in folders]
        for expected in wanted:
            if expected in left:
                left.remove(expected)
            else:
                bench.problem(f"{title}: a run has no folder that is all its own")
        print(f"  {title}: {', '.join(sorted(folder.name for folder in folders))}", flush=True)
    pictures = command_line(bench)
    return f"{count} pairs ({waited} waited or were told who is at work) and {pictures} of the command line"


def command_line(bench: Bench, together: int = 3) -> str:
    """Several `python -m flux` into one folder: no picture is lost."""
    work = bench.fresh()
    argv = [
        "--name",
        "flux-tiny",
        "--num_steps",
        "1",
        "--width",
        "64",
        "--height",
        "64",
        "--output_dir",
        "out",
    ]
    processes = [
        Process("flux", [*argv, "--prompt", "a | b", "--seed", str(i)], work) for i in range(together)
    ]
    for process in processes:
        end = process.ended()
        if end.code:
            bench.problem(f"the command line ended with {end.code}: {end.err[-300:]}")
    found = sorted(path.name for path in (work / "out").iterdir())
    if found != [f"img_{number}.jpg" for number in range(2 * together)]:
        bench.problem(f"the command line: {found}")
    return f"{len(found)} pictures by {together} processes"


def faults(bench: Bench, count: int) -> str:
    """Write calls that fail: exit code 2 and one line; then the same command goes on to the same bytes."""
    from helpers_faults import FULL, READ_ONLY, REFUSED
    from helpers_faults import faults as failing

    told = 0
    for index in range(count):
        name = bench.demos[index % len(bench.demos)]
        expected, _ = bench.plain(name)
        number = (FULL, READ_ONLY, REFUSED)[index // len(bench.demos) % 3]
        calls, work = calls_of(bench, name), bench.fresh()
        at = bench.random.randrange(calls)
        end = run(name, "--output", "run", cwd=work, wrap=partial(failing, work / "run", number, at))
        title = f"{name}, {os.strerror(number)} from call {at} of {calls}"
        line = end.err.strip()
        if end.code == 2 and "\n" not in line and "cannot be written (" in line:
            told += 1
        elif end.code:
            bench.problem(f"{title}: ended with {end.code}: {line[-500:]}")
        if (again := run(name, "--output", "run", cwd=work)).code:
            bench.problem(f"{title}: the next run ended with {again.code}: {again.err[-300:]}")
            continue
        bench.compare(title, work / "run", expected)
        print(f"  {title}: exit code {end.code}", flush=True)
    return f"{count} faults ({told} ended the run in one line, {count - told} fell on what only tidies up)"


TRIALS = {"kills": (kills, 50), "pairs": (pairs, 20), "faults": (faults, 60)}


def trials(names: Sequence[str], options: argparse.Namespace, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Do each; yields what was done, and what was lost."""
    load_everything()
    bench = Bench(root, options.demos, options.seed)
    for name in names:
        trial, usual = TRIALS[name]
        print(f"{name}:", flush=True)
        bench.problems = []
        yield trial(bench, options.count or usual), bench.problems


def load_everything() -> None:
    """What takes processes their first seconds: imports and models, which forked ones have at once."""
    import matplotlib.pyplot  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch

    import flux.cli
    import flux.studies.edit.run
    import flux.studies.edit.verdicts as verdicts
    import flux.studies.run as studies
    import flux.studies.similarity.measuring as measuring
    import flux.studies.similarity.run
    import flux.studies.sweep.run
    import flux.studies.text.run
    import flux.studies.timesteps.run  # noqa: F401
    from flux.models import configs
    from flux.pictures.features import Dino

    torch.set_num_threads(1)
    models = studies.load_models("flux-tiny", device="cpu")
    dino = Dino(configs["flux-tiny"].home / "dino")
    studies.load_models = flux.cli.load_models = lambda *args, **options: models
    verdicts.Dino = measuring.Dino = lambda *args, **options: dino


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", choices=[*TRIALS, "all"])
    parser.add_argument("--count", type=int, help="how many; by default 50 kills, 20 pairs, 60 faults")
    parser.add_argument("--demos", nargs="+", choices=DEMOS, default=[*DEMOS], help="some; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    options = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    names = [*TRIALS] if options.trial == "all" else [options.trial]
    failed = False
    with tempfile.TemporaryDirectory() as root:
        for said, problems in trials(names, options, Path(root)):
            print(f"{said}: {len(problems)} problems", flush=True)
            failed |= bool(problems)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
