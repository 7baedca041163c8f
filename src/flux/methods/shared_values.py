"""What RF-Solver's and FireFlow's edits have in common: the first steps take the inversion's values."""

from collections.abc import Iterator

from torch import Tensor

from flux.hooks import Hooks, Recall, Recording
from flux.integrators import Evaluation, integrator_record
from flux.methods.inversion import invert
from flux.methods.task import EditTask, MethodStep
from flux.model import layers_of


def edit_with_values(
    task: EditTask, *, integrator: str, inject: float, after: float, guidances: tuple[float, float]
) -> Iterator[MethodStep]:
    """Invert the sources by an integrator, go back by the same one along the edits' velocity.

    inject: the share of steps, from noise, in which the values of all tokens, text included, are those of the
    same interval of the inversion, each evaluation apart. after: the share of single blocks, from the first,
    that keep their own. guidances: of the inversion and of the edit.
    """
    field, steps = task.field, task.steps
    shared = round(inject * steps) or int(inject > 0)  # a share that is not 0 is a step at least
    layers = layers_of(field.flow)
    where = range(layers.depth + round(after * layers.depth_single), len(layers))
    recording = Recording(keys=False, steps=(steps - shared, steps))
    hooks = Hooks(inject=dict.fromkeys(where, recording))
    trajectory = yield from invert(task, integrator=integrator, guidance=guidances[0], hooks=hooks)
    taken = Hooks(inject=dict.fromkeys(where, Recall(recording, field.of)))

    def velocity(z: Tensor, t: float, at: Evaluation) -> Tensor:
        return field.edit(z, t, at, guidances[1], taken)

    start, times = field.of_edits(trajectory.noise), [t for t, _ in trajectory.back]
    for step in integrator_record(integrator).function(velocity, start, times):
        yield MethodStep("edit", step.index, step.steps, step.t, step.t_next, step.after)
