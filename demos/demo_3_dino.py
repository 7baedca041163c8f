"""Say how alike pictures are, and of a sweep (demo 2), how much each layer matters and which ones are vital.

    python demos/demo_3_dino.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_3_dino.py --sweep output/skip/skip --by "top 5"
    python demos/demo_3_dino.py --pictures a.png b.png --metrics dino psnr
    python demos/demo_3_dino.py --picture a.png --against folder

Of a sweep it writes the importance plot, a map of prompts and layers, the most and least important layers
side by side, similarity.csv, layers.csv, index.html, and vital_layers.json, which demo 4 takes as its layers.
Of pictures: similarity.csv, sheet.png and index.html. What was found about a picture is kept beside it, so
that another threshold computes nothing.
"""

import sys

from flux.entry import Console


def main(argv: list[str] | tuple[str, ...] = ()) -> int:
    from pathlib import Path

    from flux.studies import similarity
    from flux.studies.study import carry_out

    spec = Path(__file__).resolve().parents[1] / "json" / "dino.json"
    return carry_out(similarity.STUDY, doc=__doc__, default=spec, argv=argv)


if __name__ == "__main__":
    with Console():
        sys.exit(main(sys.argv[1:]))
