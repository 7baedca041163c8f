"""Makes the rows of a table one after another into a folder, and goes on where it was cut off.

The folder holds, beside what `outcomes.py` keeps of each run:

    run.json            what decides all figures; a folder of another run is refused
    rows/<row>.json     a row's figures of each pair; there once the row is done
    costs/<row>.json    its seconds and memory, which no two runs share
    pictures/<row>.png  its first edits side by side
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from editing_parts.making import Outcome, finish, run_over
from editing_parts.measuring import whole_psnr
from editing_parts.outcomes import keep, kept, outcome_files
from editing_parts.rows import Row, Run, grouped
from editing_parts.table import Result
from editing_parts.tasks import KINDS, TaskSet, decoded
from flux.files import write_atomically
from flux.weights.load import Models

SHOWN = len(KINDS)
"""Edits of a row that are shown, one of each kind; also the pairs its reconstruction is measured on."""

BASELINES: dict[str, Callable[[TaskSet], np.ndarray]] = {
    "the photo": lambda tasks: tasks.photos,
    "the autoencoder alone": lambda tasks: tasks.rebuilt,
    "the right answer": lambda tasks: tasks.targets,
}
"""Pictures that no method made, to read the columns by."""


@dataclass(frozen=True)
class Folder:
    """Where a table is made."""

    path: Path

    def begin(self, about: dict) -> None:
        """Make the folder, or go on in it; ValueError, one line, where it holds another run's rows."""
        file = self.path / "run.json"
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            for key in (*about, *found):
                if found.get(key) != about.get(key):
                    raise ValueError(
                        f"{self.path} holds a table with {key} {found.get(key)!r}, not {about.get(key)!r}: "
                        "name another folder by --out"
                    )
        else:
            write_atomically(file, as_json(about))

    def file(self, kind: str, row: Row | str, ending: str = ".json") -> Path:
        name = row if isinstance(row, str) else row.name
        return self.path / kind / (re.sub(r"[^a-z0-9.+-]+", "-", name.lower()).strip("-") + ending)

    def done(self, row: Row) -> bool:
        """Whether the row stands there as it is defined now."""
        file = self.file("rows", row)
        if not file.is_file():
            return False
        found = json.loads(file.read_text(encoding="utf-8"))
        return found["definition"] == row.definition

    def result(self, row: Row) -> Result:
        found = json.loads(self.file("rows", row).read_text(encoding="utf-8"))
        figures = {
            name: np.array([np.nan if value is None else value for value in values])
            for name, values in found["figures"].items()
        }
        cost = json.loads(self.file("costs", row).read_text(encoding="utf-8"))
        return Result(row.name, row.section, row.about, figures, cost, row.bound)


class Measuring(Protocol):
    """What edits of a task set are held against."""

    def measure(self, pictures: np.ndarray) -> dict[str, list[float]]: ...


class Bench:
    """Models, a task set, and what its edits are held against, prepared when the first row needs them.

    rebuild: whether it is measured how each method gives pictures back, which takes `SHOWN` pairs more.
    """

    def __init__(
        self,
        models: Models,
        draw: Callable[[], TaskSet],
        measure: Callable[[TaskSet], Measuring],
        *,
        rebuild: bool = True,
    ):
        self.models, self._draw, self._measure, self.rebuild = models, draw, measure, rebuild

    @cached_property
    def tasks(self) -> TaskSet:
        return self._draw()

    @cached_property
    def yardstick(self) -> Measuring:
        return self._measure(self.tasks)

    def make(
        self, folder: Folder, rows: Sequence[Row], steps: int, say: Callable[[str], None] = print
    ) -> None:
        """Make all rows that are not in the folder yet."""
        for group in grouped(rows):
            if missing := [row for row in group if not folder.done(row)]:
                self._make_group(folder, group, missing, steps, say)

    def _make_group(
        self,
        folder: Folder,
        group: Sequence[Row],
        missing: Sequence[Row],
        steps: int,
        say: Callable[[str], None],
    ) -> None:
        # As many pairs as the whole group, so that batches are those of a run that nothing cut off.
        tasks, run = self.tasks.first(max(row.pairs for row in group)), group[0].run
        outcome, rebuilt = None, []
        if run is not None:
            files = outcome_files(folder.path, run, len(tasks), steps)
            found = kept(files, self.models.device)
            if found is None:
                outcome = run_over(self.models, tasks, run, steps)
                rebuilt = self._rebuilt(run, steps) if self.rebuild else []
                keep(files, outcome, rebuilt)
            else:
                outcome, rebuilt = found
        for row in missing:
            part = tasks.first(row.pairs)
            pictures, figures = self._finish(part, outcome, row)
            figures |= self.yardstick.measure(pictures)
            if outcome is not None:
                figures["evaluations"] = list(outcome.evaluations[: len(part)])
                figures["rebuilt"] = (rebuilt + [np.nan] * len(part))[: len(part)]
            cost = outcome and {
                "seconds": round(outcome.cost.seconds / len(tasks), 4),
                "memory": outcome.cost.memory,
            }
            self._write(folder, row, pictures, figures, cost or {})
            say(f"{row.name}: {_said(figures)}")

    def _finish(self, tasks: TaskSet, outcome: Outcome | None, row: Row) -> tuple[np.ndarray, dict]:
        if outcome is None:
            return BASELINES[row.name](tasks), {}
        pictures, share = finish(self.models, tasks, outcome.first(len(tasks)), row)
        return pictures, {"share": share.tolist()}

    def _rebuilt(self, run: Run, steps: int) -> list[float]:
        """How a method gives pictures back when the edit's prompt is the source's, dB."""
        few = self.tasks.first(SHOWN)
        outcome = run_over(self.models, few, run, steps, unchanged=True)
        return whole_psnr(few.rebuilt, decoded(self.models, outcome.latents, few.size, few.batch))

    def _write(self, folder: Folder, row: Row, pictures: np.ndarray, figures: dict, cost: dict) -> None:
        strip = Image.fromarray(np.concatenate([*pictures[:SHOWN]], axis=1))
        write_atomically(
            folder.file("pictures", row, ".png"), lambda stream: strip.save(stream, format="PNG")
        )
        write_atomically(folder.file("costs", row), as_json(cost))
        plain = {name: [_number(value) for value in values] for name, values in figures.items()}
        # The last of the three: with it the row is done.
        write_atomically(folder.file("rows", row), as_json({"definition": row.definition, "figures": plain}))


def _said(figures: dict[str, list[float]]) -> str:
    known = {name: values for name, values in figures.items() if not np.isnan(values).all()}
    return ", ".join(f"{name} {np.nanmean(values):.3g}" for name, values in known.items())


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def as_json(data: object) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
