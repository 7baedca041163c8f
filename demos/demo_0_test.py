"""Check an install: make pictures of some prompts and seeds, and say on what, how fast, in how much memory.

    python demos/demo_0_test.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_0_test.py --prompts "a small white cat" "a big red house"

Writes a picture for every prompt and seed, sheet.png, run.json and index.html. The same command goes on with
a run that was stopped.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from flux.studies import carry_out, read_command

if TYPE_CHECKING:
    from flux.studies.text.spec import TestSpec

SPEC = Path(__file__).resolve().parents[1] / "json" / "test.json"


def make(spec: "TestSpec") -> None:
    from flux.studies.text.run import run_pictures

    run_pictures(spec)


def main(argv: list[str] | None = None) -> int:
    command = read_command("flux.studies.text.spec:TestSpec", doc=__doc__, default=SPEC, argv=argv)
    return carry_out(command, make)


if __name__ == "__main__":
    raise SystemExit(main())
