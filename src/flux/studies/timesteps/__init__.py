"""Demo 1: one picture at every timestep."""

from flux.studies.spec import LayerSpec
from flux.studies.study import Study

STUDY = Study(
    LayerSpec,
    make="flux.studies.timesteps.run:RUN.make",
    describe="flux.studies.timesteps.run:RUN.describe",
)
