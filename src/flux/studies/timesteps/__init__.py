"""Demo 1: one picture at every timestep."""

from flux.studies.study import Study

STUDY = Study(
    spec="flux.studies.timesteps.spec:LayerSpec",
    make="flux.studies.timesteps.run:RUN.make",
    describe="flux.studies.timesteps.run:RUN.describe",
)
