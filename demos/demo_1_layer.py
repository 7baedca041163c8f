"""Watch a picture come: the noisy latent and the model's estimate of the end, decoded at every timestep.

    python demos/demo_1_layer.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_1_layer.py --attention '["double.0", "single.3"]'

Writes noisy/ and estimate/ with a picture of each step, for the layers under "attention" a map of each step,
filmstrip.png, animation.webp, run.json and index.html. The same command goes on with a run that was stopped.
"""

import sys

from flux.entry import Console


def main(argv: list[str] | tuple[str, ...] = ()) -> int:
    from pathlib import Path

    from flux.studies import timesteps
    from flux.studies.study import carry_out

    spec = Path(__file__).resolve().parents[1] / "json" / "layer.json"
    return carry_out(timesteps.STUDY, doc=__doc__, default=spec, argv=argv)


if __name__ == "__main__":
    with Console():
        sys.exit(main(sys.argv[1:]))
