"""What a method that inverts makes of its sources when nothing is asked for: told before they are edited."""

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from flux.integrators import integrator_record
from flux.methods import MethodRecord
from flux.methods.counting import count_evaluations
from flux.methods.inversion import reconstruct
from flux.methods.task import EditTask, MethodStep

WAYS: Mapping[str, str] = MappingProxyType(
    {
        "free": "to noise as the method goes, and back by the source's own velocity, unpinned",
        "unchanged": "by the method itself, with the source's prompt in the place of the edit's",
        "left out": "not measured: what is masked is made anew, and all else stays whatever comes from noise",
    }
)
"""How sources go to noise and back.

free: a method that pins sources beside their edits gives them back whatever its inversion is worth.
unchanged: other methods' inversions come back only by what they themselves do on the way.
left out: a method that edits inside a mask alone has another one for each edit.
"""


@dataclass(frozen=True)
class Replay:
    """How a method with these settings, all of them, gives its sources back. way: one of `WAYS`."""

    row: MethodRecord
    settings: Mapping[str, Any]
    way: str

    @property
    def about(self) -> str:
        return WAYS[self.way]

    def evaluations(self, steps: int) -> int:
        """How many evaluations of one row a source takes, over so many steps."""
        if self.way == "left out":
            return 0
        if self.way == "unchanged":
            return count_evaluations(self.row, steps, self.settings)
        there = integrator_record(self.settings["integrator"])
        return there.evaluations_in(steps) + integrator_record(there.replay).evaluations_in(steps)

    def steps(self, task: EditTask) -> Iterator[MethodStep]:
        """The steps of it. task: of one edit for each source, with its source's prompt."""
        settings = self.settings
        if self.way == "unchanged":
            return pkgutil.resolve_name(self.row.function)(task, **settings)
        way = {name: settings[name] for name in ("integrator", "nudge", "undo_nudge")}
        return reconstruct(task, guidance=settings["source_guidance"], **way)

    def back(self, last: MethodStep) -> Tensor:
        """What the last step brings back of the sources' latents, (S, L, 64)."""
        return last.edit if self.way == "unchanged" else last.source

    @property
    def remedies(self) -> tuple[str, ...]:
        """What to try where sources come back badly, in words."""
        has = self.settings
        # What is pulled back to the picture comes no nearer by more steps: 23 dB by 16 and by 28.
        every = {
            "a nudge": "nudge" in has,
            "a larger stop": "stop" in has,
            "more steps": "stop" not in has,
            "an integrator of second order": "integrator" in has,
        }
        return tuple(words for words, helps in every.items() if helps)


def replay_of(row: MethodRecord, given: Mapping[str, Any]) -> Replay | None:
    """How a method with the settings that are given is replayed; None for one that does not invert."""
    if not row.inverts:
        return None
    settings = row.defaults | dict(given)
    if row.needs_mask:
        return Replay(row, settings, "left out")
    return Replay(row, settings, "free" if "pinning" in settings else "unchanged")
