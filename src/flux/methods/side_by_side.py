"""What masks, operators and guidance schedules make of edits that are sampled in one batch with their source.

Methods ask a field for the velocities of source and edit (`field.py`). Stable Flow's edits of generated
pictures are rows of the sampler's own batch; here is the same for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from flux.integrators import Evaluation, Velocity
from flux.methods.field import Beside, Operator, Schedule

Predict = Callable[[float | Sequence[float]], Velocity]
"""Takes guidance, one value or one per row, and returns the velocity under it."""


@dataclass(frozen=True, eq=False)
class BesideSource:
    """What becomes of velocities in a batch of a source, row 0, and edits of it, in the rows behind.

    operators: in turn. source_schedule, edit_schedule: what becomes of the guidance, see `Schedule`.
    mask: where edits may change their source, packed, (N, L, 64) in [0, 1]; None without one.
    """

    operators: tuple[Operator, ...] = ()
    source_schedule: Schedule | None = None
    edit_schedule: Schedule | None = None
    mask: Tensor | None = None

    def around(self, predict: Predict, guidance: float) -> Velocity:
        """The velocity that is followed, over the one that the model predicts.

        Of the source's latent, which is not known before the end, operators are told what its velocity
        foresees: z_source - t v_source.
        """
        plain, alike = predict(guidance), []

        def evaluate(x: Tensor, t: float, at: Evaluation) -> Tensor:
            predicted = plain
            if self.source_schedule is not None or self.edit_schedule is not None:
                predicted = predict(self._guidances(guidance, t, alike or [1.0] * (len(x) - 1)))
            v = predicted(x, t, at)
            z, wide = x.float(), v.float()
            v_source, v_edit = wide[:1].expand(len(x) - 1, -1, -1), wide[1:]
            if self.edit_schedule is not None:
                alike[:] = cosine_similarity(v_edit.flatten(1), v_source.flatten(1)).tolist()
            z_source = z[:1].expand_as(v_source)
            mask = None if self.mask is None else self.mask.to(wide)
            beside = Beside(z_source, z[1:], v_source, t, at, z_source - t * v_source, mask)
            for operator in self.operators:
                v_edit = operator(v_edit, beside)
            return torch.cat((wide[:1], v_edit)).to(v)

        return evaluate

    def _guidances(self, guidance: float, t: float, alike: Sequence[float]) -> list[float]:
        """The guidance of the source and of each edit."""
        source, edit = (each or _as_asked for each in (self.source_schedule, self.edit_schedule))
        return [source(guidance, t, 1.0), *(edit(guidance, t, cosine) for cosine in alike)]


def _as_asked(guidance: float, t: float, alike: float) -> float:
    return guidance
