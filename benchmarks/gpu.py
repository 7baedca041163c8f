"""Everything that only a GPU can show, in under eight minutes on one H100 or H200, without a network.

    python benchmarks/gpu.py                      FLUX.1-dev's shape, 1024 x 1024, bfloat16, random weights
    python benchmarks/gpu.py --parts step hooks   some parts; --parts help lists them
    python benchmarks/gpu.py --scaled             small models: on a CPU the parts that it can run, in about
                                                  a minute; on a GPU all of them, to see that they work
    python benchmarks/gpu.py --show FOLDER        the figures of an earlier run, or of one that was cut off

Each part writes <part>.json into benchmarks/results/gpu-<card>/ as it measures, so that a run that is cut off
keeps what it has. `benchmarks/README.md` says how to read the figures; the parts stand in `gpu_parts/`.
"""

import argparse
import importlib
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from gpu_common.machine import machine, missing
from gpu_common.record import DONE, RUNNING, Record
from gpu_common.runner import Part, run_child, run_parts

RESULTS = Path(__file__).resolve().parent / "results"
CAPS_NEED_GPU = "a cap on GPU memory needs a GPU"

PARTS = (
    Part("calibration", "rates of matrix products and attention", "gpu_parts.calibration", 15),
    Part("step", "one step, eager, ours and diffusers, batch 1, 2, 4", "gpu_parts.step", 80),
    Part(
        "compiled",
        "one step, eager and compiled, ours and diffusers, batch 1",
        "gpu_parts.step",
        60,
        long_on_cpu="compiling takes a CPU longer than all else; --parts compiled runs it",
        options={"compiled": True},
    ),
    Part("hooks", "one step with a layer skipped, nine injected, of a kept source", "gpu_parts.hooks", 45),
    Part(
        "compiled-hooks",
        "the same with compiled blocks",
        "gpu_parts.hooks",
        90,
        long_on_cpu="compiling takes a CPU longer than all else; --parts compiled-hooks runs it",
        options={"compiled": True},
    ),
    Part("loading", "one file of weights onto the device", "gpu_parts.loading", 15),
    Part("edit", "a whole edit of four rows, by every way to offload", "gpu_parts.edit", 110),
    Part(
        "edit-24",
        "the same within 24 GiB of GPU memory",
        "gpu_parts.edit",
        100,
        needs_gpu=CAPS_NEED_GPU,
        options={"cap_gib": 24},
    ),
    Part(
        "edit-16",
        "the same within 16 GiB of GPU memory",
        "gpu_parts.edit",
        80,
        needs_gpu=CAPS_NEED_GPU,
        options={"cap_gib": 16},
    ),
    Part(
        "int8",
        "weights in int8: filling, steps of one and four rows",
        "gpu_parts.precision",
        25,
        needs=("torchao",),
        options={"precision": "int8"},
    ),
    *(
        Part(
            f"{name}-{gib}",
            f"the same in {name}, within {gib} GiB of GPU memory",
            "gpu_parts.precision",
            25,
            needs=("torchao",),
            needs_gpu=CAPS_NEED_GPU,
            options={"precision": name, "cap_gib": gib},
        )
        for name, gib in (("fp8", 24), ("int8", 16), ("nf4", 16))
    ),
    Part(
        "tests",
        "pytest -m gpu",
        "gpu_parts.suite",
        30,
        needs=("pytest",),
        needs_gpu="these tests need a GPU",
    ),
    Part(
        "ray",
        "a sweep of flux-tiny by Ray with one GPU, against the local engine",
        "gpu_parts.ray_sweep",
        30,
        needs=("ray",),
        long_on_cpu="it is for a GPU, and a CPU's minute is too short; --parts ray runs it",
    ),
)
WANTED = ("diffusers", "ray", "pytest", "torchao")


def report(records: Sequence[Record]) -> str:
    """The figures of a run as Markdown."""
    first = records[0].data
    about = first["machine"]
    known = {key: about[key] or "-" for key in ("torch", "driver", "cuda", "commit")}
    known["diffusers"] = about["packages"]["diffusers"] or "-"
    lines = [f"# {about['card']}, {first['dtype']}, {first['scale']} scale", ""]
    lines.append(", ".join(f"{name} {value}" for name, value in known.items()) + f", {first['begun']}")
    for record in records:
        status = "cut off" if record.status == RUNNING else record.status
        taken = "" if record.data["seconds"] is None else f", {record.data['seconds']:.0f} s"
        lines += ["", f"## {record.data['part']}: {record.data['what']}", ""]
        if status != DONE:
            reason = record.data["reason"]
            lines.append(f"{status}{f': {reason}' if reason else ''}{taken}")
        if record.figures:
            lines += [""] * (status != DONE)
            lines += importlib.import_module(record.data["module"]).table(record.figures)
    return "\n".join(lines).rstrip() + "\n"


def read(folder: Path) -> list[Record]:
    """The records in a folder, in the order of the parts."""
    found = [folder / f"{part.name}.json" for part in PARTS]
    return [Record.read(path) for path in found if path.is_file()]


def folder_of(card: str, scale: str) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    return RESULTS / (f"gpu-{name}" if scale == "full" else f"gpu-{name}-scaled")


def parse(argv: list[str] | None) -> argparse.Namespace:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", metavar="PART", help=f"some of {', '.join(names)}; else all")
    parser.add_argument("--minutes", type=float, default=8, help="parts that no longer fit are skipped (8)")
    parser.add_argument("--scaled", action="store_true", help="small models, which a CPU can run")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="cuda where there is a GPU")
    parser.add_argument("--out", type=Path, help="the folder to write into")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="print its figures, run nothing")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.parts == ["help"]:
        print("\n".join(f"{part.name:12} {part.what}" for part in PARTS))
        raise SystemExit(0)
    unknown = [name for name in given.parts or () if name not in names]
    if unknown:
        parser.error(f"--parts {unknown[0]}: the parts are {', '.join(names)}")
    given.device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device cuda: torch {torch.__version__} sees no GPU here")
    if given.device == "cpu" and not (given.scaled or given.show or given.child):
        parser.error("there is no GPU here; --scaled runs small models on the CPU")
    return given


def main(argv: list[str] | None = None) -> int:
    """Returns 1 where a part failed or was cut off."""
    given = parse(argv)
    if given.child:
        return run_child(given.child[0], Path(given.child[1]))
    if given.show:
        records = read(given.show)
        if not records:
            raise SystemExit(f"--show {given.show}: there are no figures in it")
        print(report(records), end="")
        return 0
    # An end that is asked for goes the way of Ctrl-C: the part at work is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    about = {
        "machine": machine(torch.device(given.device)),
        "scale": "small" if given.scaled else "full",
        "device": given.device,
        "dtype": "bfloat16" if given.device == "cuda" else "float32",
    }
    absent = missing(WANTED)
    if absent:
        print(f"not installed: {', '.join(absent)}; what needs them is left out")
    folder = given.out or folder_of(about["machine"]["card"], about["scale"])
    chosen = [part for part in PARTS if given.parts is None or part.name in given.parts]
    records = run_parts(chosen, folder, about, minutes=given.minutes, named=given.parts is not None)
    print(f"\n{report(records)}\nwritten to {folder}")
    return int(any(record.status not in (DONE, "skipped") for record in records))


if __name__ == "__main__":
    raise SystemExit(main())
