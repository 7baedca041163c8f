"""Edit a picture: a generated one side by side with its edits, or a photo by one of many methods.

    python demos/demo_4_edit.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_4_edit.py --prompts "source" "edit 1" "edit 2"
    python demos/demo_4_edit.py --source.image photo.jpg --prompts "what it shows" "edit 1" --method flowedit

Writes source, edits, the same prompts without injection (of a photo: its reconstruction, the edit at its
own size, masks), difference maps, sheet.png, run.json and index.html, and says when an edit did nothing or
lost the source. The same command goes on with a run that was stopped.
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
