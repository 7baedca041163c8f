"""Rounds of a sweep that stops when it is decided: which tasks come next, and what was decided when.

Nothing is remembered: a run that goes on finds the same pictures, measures the same similarities and decides
the same. Similarities are demo 3's, and their features are kept in the sweep's folder for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flux.studies.folder import RunFolder
from flux.studies.run import dino_source
from flux.studies.similarity.measuring import Store, load_extractor, measure
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.cells import Cell, CellPart, Plan, Task, order_of
from flux.studies.sweep.folder import done_cells
from flux.studies.sweep.rounds import Decision, Rounds, plan_rounds
from flux.studies.sweep.spec import SkipSpec
from flux.weights.identity import pretrained_id


@dataclass
class Until:
    """The state of the rounds. decisions: of the layers that are decided, and at the end of all others too.

    A group none of whose pictures could be made has none.
    """

    spec: SkipSpec
    run: RunFolder
    asked: Plan
    rounds: Rounds
    decisions: dict[CellPart, Decision]

    @staticmethod
    def of(spec: SkipSpec, run: RunFolder, asked: Plan) -> "Until":
        """The start. Raises ImportError where scipy is missing, and ValueError where DINO is."""
        until, ends = spec.until, _ends(asked)
        counts = sorted({next((end for end in ends if end >= count), ends[-1]) for count in until.rounds})
        rounds = plan_rounds(until.threshold, until.confidence, counts, ends[-1])
        said = [look.prompts for look in rounds.looks]
        if any(count not in said for count in until.rounds if count < ends[-1]):
            print(f"rounds end with whole batches of {spec.batch}: after {_list(said)} prompts")
        state = Until(spec, run, asked, rounds, {})
        if pretrained_id(state._dino()) is None:
            load_extractor(state._measuring(), "dino", state._dino())
        return state

    def tasks(self) -> Iterator[Sequence[Task]]:
        """The tasks of each round. The next round is asked for when the last one is made."""
        order, start = order_of(self.asked), 0
        for index, look in enumerate(self.rounds.looks):
            new = set(order[start : look.prompts])
            yield [
                task
                for task in self.asked.tasks
                if new.issuperset(task.prompts) and task.part not in self.decisions
            ]
            self._decide(index, order[: look.prompts])
            start = look.prompts
            if self._open() == []:
                return

    def _open(self) -> list[CellPart]:
        return [part for part in self.asked.parts if part not in self.decisions]

    def _decide(self, look: int, prompts: Sequence[int]) -> None:
        done = done_cells(self.run.path, self.asked)
        values = self._similarities(self._open(), prompts, done)
        for part, similarities in values.items():
            decision = self.rounds.decide(similarities, look) if similarities else None
            if decision is not None:
                self.decisions[part] = decision
        decided = sum(decision.decided for decision in self.decisions.values())
        print(f"after {len(prompts)} prompts {decided} of {len(self.asked.parts)} groups are decided")

    def _similarities(
        self, parts: Sequence[CellPart], prompts: Sequence[int], done: set[Cell]
    ) -> dict[CellPart, list[float]]:
        """Of the pictures that are there, by group."""
        pairs = {
            part: [
                (self.run.path / Cell(prompt).file, self.run.path / Cell(prompt, part).file)
                for prompt in prompts
                if {Cell(prompt), Cell(prompt, part)} <= done
            ]
            for part in parts
        }
        every = [pair for each in pairs.values() for pair in each]
        if not every:
            return {}
        found = measure(self._measuring(), every, self._dino(), Store(self.run.path))
        for line in found.problems:
            print(line)
        return {part: [found.figures[pair]["dino"] for pair in each] for part, each in pairs.items()}

    def _dino(self) -> str:
        return dino_source(self.spec, self.spec.until.dino)

    def _measuring(self) -> DinoSpec:
        return DinoSpec(sweep=self.run.path, device=self.spec.model.device)

    def record(self, taken: Plan) -> dict[str, Any]:
        """For `run.json`. taken: what was asked for in the end."""
        decisions = [{"layers": part.label, **each.as_json()} for part, each in self.decisions.items()]
        return {
            "rounds": [look.prompts for look in self.rounds.looks],
            "decisions": decisions,
            "saved": 1 - len(taken.cells) / len(self.asked.cells),
        }

    def words(self, taken: Plan) -> str:
        """How it ended, in one line."""
        decided = sum(decision.decided for decision in self.decisions.values())
        spared = len(self.asked.cells) - len(taken.cells)
        return (
            f"{decided} of {len(self.asked.parts)} groups of layers are decided at similarity "
            f"{self.rounds.threshold:g}, which spared {spared} of {len(self.asked.cells)} cells"
        )

    def lines(self) -> Iterator[tuple[CellPart, str, Decision | None]]:
        """Each group with its verdict in words, in the order of the spec."""
        for part in self.asked.parts:
            decision = self.decisions.get(part)
            if decision is None:
                yield part, "not known: no picture could be made", None
            elif decision.decided:
                yield part, f"{decision.verdict}, decided after {decision.prompts} prompts", decision
            else:
                yield part, f"{decision.verdict} by the mean of all, undecided", decision


def _ends(asked: Plan) -> list[int]:
    """How many prompts are in after each batch."""
    ends, total = [], 0
    for task in asked.tasks:
        if not (task.part or task.repeat or task.source):
            total += len(task.prompts)
            ends.append(total)
    return ends


def _list(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
