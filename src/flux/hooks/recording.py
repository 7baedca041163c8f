"""Keys and values of one run, kept for another one that goes the same way back."""

from dataclasses import dataclass, field

from torch import Tensor

from flux.hooks.plan import Site

Place = tuple[int, int, int]
"""Step, substep and layer of an evaluation."""


@dataclass(frozen=True, eq=False)
class Recording:
    """An injection that changes nothing and keeps keys and values of all tokens, text included, on the CPU.

    They are those before RoPE, (B, H, L, D). keys, values: what is kept. steps: window (start, stop) of the
    steps in which it is, start included, stop not; None for all. kept: by place.
    """

    keys: bool = True
    values: bool = True
    steps: tuple[int, int] | None = None
    kept: dict[Place, tuple[Tensor | None, Tensor | None]] = field(default_factory=dict)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        if self.steps is None or self.steps[0] <= site.step < self.steps[1]:
            self.kept[site.step, site.substep, site.layer] = (
                k.cpu() if self.keys else None,
                v.cpu() if self.values else None,
            )
        return q, k, v


@dataclass(frozen=True, eq=False)
class Recall:
    """An injection of what a run in the other direction kept: step i of n takes that of step n - 1 - i there.

    of: for every row of the batch the row of the recording. A step that was not kept is left as it is; of one
    of which other substeps were, the middle is taken (FireFlow's edit asks once more at noise than its
    inversion did).
    """

    recording: Recording
    of: tuple[int, ...]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        step, kept = (site.steps or 1) - 1 - site.step, self.recording.kept
        places = [(step, substep, site.layer) for substep in (site.substep, 1)]
        found = next((kept[place] for place in places if place in kept), None)
        if found is None:
            return q, k, v
        keys, values = (
            own if theirs is None else theirs[list(self.of)].to(own)
            for own, theirs in zip((k, v), found, strict=True)
        )
        return q, keys, values
