"""What every method owes, whoever wrote it: rows by themselves, and evaluations as its row says."""

import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from helpers_methods import small_task

from flux.methods import METHODS, MethodRecord, defaults, method_record
from flux.methods.lookup import load_function
from flux.methods.task import EditTask, MethodStep

every_method = pytest.mark.parametrize("row", METHODS, ids=[row.name for row in METHODS])


def task_for(row: MethodRecord, **arguments) -> EditTask:
    """A small task; for a method that needs a mask, with one that differs by edit."""
    task = small_task(**arguments)
    if row.needs_mask:
        mask = torch.zeros(3, 6, 64)
        mask[0, :3], mask[1, 3:], mask[2, ::2] = 1, 1, 1
        task = task.with_mask(mask[: len(task.field.of)])
    return task


def run(row: MethodRecord, task: EditTask) -> list[MethodStep]:
    return list(load_function(row.function)(task, **defaults(row.name)))


@cache
def together(name: str) -> tuple[EditTask, list[MethodStep]]:
    """The small task of three edits, and its steps: run once for all tests."""
    task = task_for(method_record(name))
    return task, run(method_record(name), task)


@every_method
def test_an_edit_does_not_depend_on_those_beside_it(row):
    _, steps = together(row.name)
    alone = run(row, task_for(row).rows([2, 0]))[-1].edit
    assert alone.dtype == torch.float32
    torch.testing.assert_close(alone, steps[-1].edit[[2, 0]], rtol=1e-4, atol=1e-4)


@every_method
def test_an_edit_finds_its_source_among_as_many_sources_in_another_order(row):
    _, steps = together(row.name)
    task = task_for(row).rows([2, 0])  # of the second source, and of the first
    crossed = task_for(row, edits=("a boat", "a cat"), of=(1, 0))
    crossed = crossed.with_mask(task.field.mask)
    torch.testing.assert_close(run(row, crossed)[-1].edit, steps[-1].edit[[2, 0]], rtol=1e-4, atol=1e-4)


@every_method
def test_evaluations_are_those_that_the_table_states(row):
    def stated(steps: int) -> float:
        return evaluated(row.evaluations, T=steps, **defaults(row.name))

    # So many steps that no share of them is rounded: half of what they take is whole too.
    halves = {n: (stated(n) - stated(0)) / 2 for n in range(5, row.steps + 1)}
    steps = next(n for n, half in halves.items() if abs(half - round(half)) < 1e-9)
    task = task_for(row, steps=steps)
    run(row, task)
    more = round(evaluated(row.again or "0", T=steps, **defaults(row.name)))
    assert {count - round(stated(steps)) for count in task.field.counts} <= {0, more}


@every_method
def test_another_seed_is_another_edit_where_the_row_says_so(row):
    task, steps = together(row.name)
    other = replace(task_for(row), seeds=tuple(seed + 100 for seed in task.seeds))
    drawn = row.draws and defaults(row.name).get("origin") != "inverted"
    assert torch.equal(run(row, other)[-1].edit, steps[-1].edit) != drawn


@every_method
def test_one_step_is_enough(row):
    assert torch.isfinite(run(row, task_for(row, steps=1))[-1].edit).all()


@every_method
def test_progress_counts_through_each_phase(row):
    phases: dict[str, list[MethodStep]] = {}
    for step in together(row.name)[1]:
        phases.setdefault(step.phase, []).append(step)
        assert (step.t_next < step.t) == (step.phase != "invert")
    for steps in phases.values():
        assert [step.index for step in steps] == list(range(steps[0].steps))
    assert ("invert" in phases) == row.inverts


@every_method
def test_nothing_is_written_into_what_a_method_was_given(row):
    assert torch.equal(together(row.name)[0].clean, small_task().clean)


def evaluated(formula: str, **values: float) -> float:
    """A formula such as "2 T (1 - start)", in which what stands side by side is multiplied."""
    return eval(re.sub(r"(?<=[\w)])\s+(?=[\w(])", " * ", formula), {"__builtins__": {}}, values)  # noqa: S307
