"""Check an install: make pictures of some prompts and seeds, and say on what, how fast, in how much memory.

    python demos/demo_0_test.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_0_test.py --prompts "a small white cat" "a big red house"

Writes a picture for every prompt and seed, sheet.png, run.json and index.html. The same command goes on with
a run that was stopped.
"""

import sys

from flux.entry import Console


def main(argv: list[str] | tuple[str, ...] = ()) -> int:
    from pathlib import Path

    from flux.studies import text
    from flux.studies.study import carry_out

    spec = Path(__file__).resolve().parents[1] / "json" / "test.json"
    return carry_out(text.STUDY, doc=__doc__, default=spec, argv=argv)


if __name__ == "__main__":
    with Console():
        sys.exit(main(sys.argv[1:]))
