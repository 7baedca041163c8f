"""Demo 4: a source and its edits."""

from flux.studies.study import Study

STUDY = Study(
    spec="flux.studies.edit.spec:EditSpec",
    make="flux.studies.edit.run:RUN.make",
    describe="flux.studies.edit.run:RUN.describe",
)
