"""Demo 0: pictures from text, and the check of an install."""

from flux.studies.study import Study

STUDY = Study(
    spec="flux.studies.text.spec:TestSpec",
    make="flux.studies.text.run:RUN.make",
    describe="flux.studies.text.run:RUN.describe",
    check="flux.studies.text.spec:check",
)
