"""Watch a picture come: the noisy latent and the model's estimate of the end, decoded at every timestep.

    python demos/demo_1_layer.py [spec.json] [--key value ...] [--dry-run]
    python demos/demo_1_layer.py --attention '["double.0", "single.3"]'

Writes noisy/ and estimate/ with a picture of each step, for the layers under "attention" a map of each step,
filmstrip.png, animation.webp, run.json and index.html. The same command goes on with a run that was stopped.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from flux.studies import carry_out, read_command

if TYPE_CHECKING:
    from flux.studies.timesteps.spec import LayerSpec

SPEC = Path(__file__).resolve().parents[1] / "json" / "layer.json"


def make(spec: "LayerSpec") -> None:
    from flux.studies.timesteps.run import run_timesteps

    run_timesteps(spec)


def main(argv: list[str] | None = None) -> int:
    command = read_command("flux.studies.timesteps.spec:LayerSpec", doc=__doc__, default=SPEC, argv=argv)
    return carry_out(command, make)


if __name__ == "__main__":
    raise SystemExit(main())
