"""Demo 2: layers skipped one by one (arXiv 2411.14430, section 3.1)."""

from typing import Any

from flux.extras import need
from flux.studies.study import Study

STUDY = Study(
    spec="flux.studies.sweep.spec:SkipSpec",
    check="flux.studies.sweep:check",
    make="flux.studies.sweep.run:make",
    describe="flux.studies.sweep.run:describe",
)


def check(spec: Any) -> None:
    """Raises ImportError, one line, for an extra that a `SkipSpec` needs and that is not there."""
    if spec.engine.name == "ray" and not spec.merge:
        need("ray", "ray", 'engine "ray"')
    if spec.until is not None:
        need("scipy.stats", "similarity", "stopping when it is decided")
