"""Skip layers one by one, for many prompts, to see what each does: the sweep behind the vital layers.

    python demos/demo_2_skip.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_2_skip.py --prompts my-prompts.json --layers '["0-3", [17, 18]]'
    python demos/demo_2_skip.py my.json --shard 1/8     on one of eight machines; then, once: --merge

Writes a reference of every prompt, a picture of it with each layer skipped, cells.csv, contact sheets,
run.json and index.html. The same command goes on with a run that was stopped and tries again what failed.
demo_3_dino.py measures what came out. Exits with 1 where cells could not be made.
"""

import sys

from flux.entry import Console


def main(argv: list[str] | tuple[str, ...] = ()) -> int:
    from pathlib import Path

    from flux.studies import sweep
    from flux.studies.study import carry_out

    spec = Path(__file__).resolve().parents[1] / "json" / "skip.json"
    return carry_out(sweep.STUDY, doc=__doc__, default=spec, argv=argv)


if __name__ == "__main__":
    with Console():
        sys.exit(main(sys.argv[1:]))
