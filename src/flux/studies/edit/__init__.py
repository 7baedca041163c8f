"""Demo 4: sources and their edits."""

from flux.studies.study import Study

STUDY = Study(
    spec="flux.studies.edit.spec:EditSpec",
    make="flux.studies.edit.making:make",
    describe="flux.studies.edit.making:describe",
    check="flux.studies.edit.jobs:check",
)
