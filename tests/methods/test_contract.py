"""What every method owes, whoever wrote it: rows by themselves, evaluations as its row says, and its page."""

import re
from dataclasses import replace

import pytest
import torch
from helpers_methods import small_task

from flux.methods import METHODS, MethodRecord, defaults
from flux.methods.lookup import load_function
from flux.methods.task import EditTask

every_method = pytest.mark.parametrize("row", METHODS, ids=[row.name for row in METHODS])


def task_for(row: MethodRecord, **arguments) -> EditTask:
    """A small task; for a method that needs a mask, with one that differs by edit, half of its tokens."""
    task = small_task(**arguments)
    if row.needs_mask:
        mask = torch.zeros(3, 6, 64)
        mask[0, :3], mask[1, 3:], mask[2, ::2] = 1, 1, 1
        task = task.with_mask(mask)
    return task


def last_of(row: MethodRecord, task: EditTask) -> torch.Tensor:
    *_, last = load_function(row.function)(task, **defaults(row.name))
    return last.edit


@every_method
def test_an_edit_does_not_depend_on_those_beside_it(row):
    together = last_of(row, task_for(row))
    alone = last_of(row, task_for(row).rows([2, 0]))
    assert together.dtype == torch.float32
    torch.testing.assert_close(alone, together[[2, 0]], rtol=1e-4, atol=1e-4)


@every_method
def test_an_edit_finds_its_source_among_as_many_sources_in_another_order(row):
    arguments = dict(edits=("a cat", "a bird"), of=(1, 0))
    task = small_task(**arguments)
    straight = small_task(edits=("a bird", "a cat"), of=(0, 1))
    if row.needs_mask:
        mask = torch.zeros(2, 6, 64)
        mask[:, :3] = 1
        task, straight = task.with_mask(mask), straight.with_mask(mask)
    torch.testing.assert_close(last_of(row, task), last_of(row, straight).flip(0), rtol=1e-4, atol=1e-4)


@every_method
def test_the_same_task_gives_the_same_edit(row):
    assert torch.equal(last_of(row, task_for(row)), last_of(row, task_for(row)))


@every_method
def test_evaluations_are_those_that_the_table_states(row):
    task = task_for(row, steps=row.steps)
    last_of(row, task)
    expected = evaluated(row.evaluations, T=row.steps, **defaults(row.name))
    assert task.field.counts == [round(expected)] * 3


@every_method
@pytest.mark.parametrize("steps", [1, 4])
def test_few_steps_are_enough(row, steps):
    task = task_for(row, steps=steps)
    assert torch.isfinite(last_of(row, task)).all()


@every_method
def test_progress_counts_through_each_phase(row):
    task = task_for(row, steps=8)
    phases: dict[str, list] = {}
    for step in load_function(row.function)(task, **defaults(row.name)):
        phases.setdefault(step.phase, []).append(step)
        assert (step.t_next < step.t) == (step.phase != "invert")
    for steps in phases.values():
        assert [step.index for step in steps] == list(range(steps[0].steps))
    assert ("invert" in phases) == row.inverts


@every_method
def test_nothing_is_written_into_what_a_method_was_given(row):
    task = task_for(row)
    before = replace(task, field=replace(task.field, clean=task.clean.clone())).clean
    last_of(row, task)
    assert torch.equal(task.clean, before)


def evaluated(formula: str, **values: float) -> float:
    """A formula such as "2 T (1 - start)", in which what stands side by side is multiplied."""
    return eval(re.sub(r"(?<=[\w)])\s+(?=[\w(])", " * ", formula), {"__builtins__": {}}, values)  # noqa: S307
