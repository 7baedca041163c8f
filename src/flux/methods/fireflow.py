"""FireFlow (arXiv 2412.07517): RF-Solver's edit by steps of second order that take one evaluation each."""

from collections.abc import Iterator

from flux.methods.shared_values import edit_with_values
from flux.methods.task import EditTask, MethodStep


def fireflow(
    task: EditTask, *, inject: float, source_guidance: float, guidance: float
) -> Iterator[MethodStep]:
    """Invert with the source's prompt, edit with the target's; early steps take the inversion's values.

    inject: the share of steps that do, in all single blocks. The evaluation that the edit takes up front has
    none beside it in the inversion: it takes the values of the middle of the same step.
    """
    guidances = (source_guidance, guidance)
    yield from edit_with_values(task, integrator="fireflow", inject=inject, after=0, guidances=guidances)
