"""Watch a picture come: the noisy latent and the model's estimate of the end, decoded at every timestep.

    python demos/demo_1_layer.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_1_layer.py --attention '["double.0", "single.3"]'

Writes noisy/ and estimate/ with a picture of each step, for the layers under "attention" a map of each step,
filmstrip.png, animation.webp, run.json and index.html. The same command goes on with a run that was stopped.
"""

from pathlib import Path

from flux.studies import timesteps
from flux.studies.study import carry_out

SPEC = Path(__file__).resolve().parents[1] / "json" / "layer.json"


def main(argv: list[str] | None = None) -> int:
    return carry_out(timesteps.STUDY, doc=__doc__, default=SPEC, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
