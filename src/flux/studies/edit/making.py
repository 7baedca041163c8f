"""Demo 4, one way or the other: by a method, or side by side from one noise; or as a scan or a chain."""

from flux.studies.edit.spec import EditSpec
from flux.studies.picture_run import COMMAND, Host, PictureRun


def run_of(spec: EditSpec) -> PictureRun:
    if spec.scan is not None:
        from flux.studies.edit.scan import SCAN

        return SCAN
    if spec.chain:
        from flux.studies.edit.chain import CHAIN

        return CHAIN
    if spec.method is None:
        from flux.studies.edit.run import RUN

        return RUN
    from flux.studies.edit.by_method import BY_METHOD

    return BY_METHOD


def make(spec: EditSpec, host: Host = COMMAND) -> None:
    """Make, or finish, the run of a spec."""
    run_of(spec).make(spec, host)


def describe(spec: EditSpec, card: float | None = None) -> str:
    """What `--dry-run` says."""
    return run_of(spec).describe(spec, card)
