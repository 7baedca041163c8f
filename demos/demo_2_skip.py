"""Skip layers one by one, for many prompts, to see what each does: the sweep behind the vital layers.

    python demos/demo_2_skip.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_2_skip.py --prompts my-prompts.json --layers '["0-3", [17, 18]]'
    python demos/demo_2_skip.py my.json --shard 1/8     on one of eight machines; then, once: --merge

Writes a reference of every prompt, a picture of it with each layer skipped, cells.csv, contact sheets,
run.json and index.html. The same command goes on with a run that was stopped and tries again what failed.
demo_3_dino.py measures what came out. Exits with 1 where cells could not be made.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from flux.extras import need
from flux.studies import carry_out, read_command

if TYPE_CHECKING:
    from flux.studies.sweep.spec import SkipSpec

SPEC = Path(__file__).resolve().parents[1] / "json" / "skip.json"


def check(spec: "SkipSpec") -> None:
    if spec.engine.name == "ray" and not spec.merge:
        need("ray", "ray", 'engine "ray"')
    if spec.until is not None:
        need("scipy.stats", "similarity", "stopping when it is decided")


def make(spec: "SkipSpec") -> int:
    if spec.merge:
        from flux.studies.sweep.merge import merge_sweep

        return merge_sweep(spec)
    from flux.studies.sweep.run import run_sweep

    return run_sweep(spec)


def describe(spec: "SkipSpec") -> str:
    if spec.merge:
        from flux.studies.sweep.merge import describe_merge

        return describe_merge(spec)
    from flux.studies.sweep.cost import describe

    return describe(spec)


def main(argv: list[str] | None = None) -> int:
    command = read_command("flux.studies.sweep.spec:SkipSpec", doc=__doc__, default=SPEC, argv=argv)
    return carry_out(command, make, check=check, describe=describe)


if __name__ == "__main__":
    raise SystemExit(main())
