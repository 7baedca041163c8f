"""RF-Solver-Edit (arXiv 2411.04746): inversion and edit by midpoint steps, early ones sharing values."""

from collections.abc import Iterator

from flux.methods.shared_values import edit_with_values
from flux.methods.task import EditTask, MethodStep


def rf_solver(
    task: EditTask, *, inject: float, after: float, source_guidance: float, guidance: float
) -> Iterator[MethodStep]:
    """Invert with the source's prompt, edit with the target's; early steps take the inversion's values.

    inject: the share of steps that do. after: the share of single blocks, from the first, that never do.
    """
    guidances = (source_guidance, guidance)
    yield from edit_with_values(task, integrator="midpoint", inject=inject, after=after, guidances=guidances)
