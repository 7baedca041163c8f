"""Demo 3: how alike pictures are, and which layers are vital."""

from flux.studies.study import Study

STUDY = Study(
    spec="flux.studies.similarity.spec:DinoSpec",
    check="flux.studies.similarity.inputs:check",
    make="flux.studies.similarity.run:make",
    describe="flux.studies.similarity.run:describe",
)
