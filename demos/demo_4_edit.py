"""Edit a picture: a source and its edits, side by side from the same noise.

    python demos/demo_4_edit.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_4_edit.py --prompts "source" "edit 1" "edit 2"

Writes source, edits, the same prompts without injection, difference maps, sheet.png, run.json and index.html,
and says when an edit did nothing or lost the source. The same command goes on with a run that was stopped.
"""

import sys

from flux.entry import Console


def main(argv: list[str] | tuple[str, ...] = ()) -> int:
    from pathlib import Path

    from flux.studies import edit
    from flux.studies.study import carry_out

    spec = Path(__file__).resolve().parents[1] / "json" / "edit.json"
    return carry_out(edit.STUDY, doc=__doc__, default=spec, argv=argv)


if __name__ == "__main__":
    with Console():
        sys.exit(main(sys.argv[1:]))
