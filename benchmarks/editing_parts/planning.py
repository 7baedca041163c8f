"""What a table will take, before it is made."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from editing_parts.making import run_over
from editing_parts.remembering import Remembering
from editing_parts.rows import Row, Run, grouped
from editing_parts.running import SHOWN, Bench
from editing_parts.tasks import BATCH, KINDS, SPLITS, decoded
from flux.model import Flux
from flux.sampling import Evaluation
from flux.tiny.edit_pairs import EditPair, draw_pairs


def pairs_of(split: str, count: int) -> list[EditPair]:
    """The pairs of a split, without what is prepared for them."""
    return draw_pairs(count, SPLITS[split], KINDS)


def plan(bench: Bench, rows: Sequence[Row], steps: int) -> str:
    """The rows with their evaluations and minutes; those of one run share their time.

    Evaluations that an earlier row asks for too are not counted again.
    """
    each, finishing = _seconds(bench)
    counter = Counter(bench)
    lines, total = [], 0.0
    for group in grouped(rows):
        pairs, run = max(row.pairs for row in group), group[0].run
        evaluations = 0 if run is None else counter.of(run, steps)
        seconds = evaluations * (pairs + SHOWN * bench.rebuild) * each + finishing * sum(
            row.pairs for row in group
        )
        total += seconds
        lines.append(f"{seconds / 60:6.1f} min  {pairs:3} pairs x {evaluations:3} evaluations  ")
        lines[-1] += "; ".join(row.name for row in group)
    lines.append(f"{total / 60:6.1f} min  in all, at {each * 1000:.0f} ms for an evaluation of a row and ")
    lines[-1] += (
        f"{finishing * 1000:.0f} ms to decode and measure an edit, on {torch.get_num_threads()} threads"
    )
    return "\n".join(lines)


def _seconds(bench: Bench) -> tuple[float, float]:
    """Of an evaluation of one row, and of finishing one edit, in batches as the table has them."""
    tasks = bench.tasks.first(BATCH)
    task = tasks.open(bench.models, slice(None), 16)
    field, clean = task.field, task.clean
    begun = time.perf_counter()
    for index in range(2):
        field.pair(clean, field.of_edits(clean), 0.5 + index / 8, Evaluation(index, 2), (1.0, 1.0))
    middle = time.perf_counter()
    bench.yardstick  # noqa: B018  (made once, not counted)
    before = time.perf_counter()
    bench.yardstick.measure(decoded(bench.models, tasks.clean, tasks.size))
    return (middle - begun) / 4 / len(tasks), (time.perf_counter() - before) / len(tasks)


class Counter:
    """Counts evaluations on a narrow model with as many layers: what is asked does not depend on answers."""

    def __init__(self, bench: Bench):
        params = bench.models.flow.params
        narrow = replace(params, hidden_size=sum(params.axes_dim), num_heads=1)
        torch.manual_seed(0)
        flow = Flux(narrow).eval().requires_grad_(False)
        flow.register_forward_hook(self._count)
        self.tasks, self.models = bench.tasks.first(1), replace(bench.models, flow=Remembering(flow))
        self._asked = 0

    def _count(self, _: object, __: object, answer: torch.Tensor) -> None:
        self._asked += len(answer)

    def of(self, run: Run, steps: int) -> int:
        """Those of one pair that no run before has asked for."""
        self._asked = 0
        run_over(self.models, self.tasks, run, steps)
        return self._asked
