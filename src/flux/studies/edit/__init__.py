"""Demo 4: a source and its edits."""

from flux.studies.spec import EditSpec
from flux.studies.study import Study

STUDY = Study(
    EditSpec,
    make="flux.studies.edit.run:RUN.make",
    describe="flux.studies.edit.run:RUN.describe",
)
