"""Methods by name: those of the table, and one of a user's own, which meets the same contract."""

import sys
from types import ModuleType

import pytest
import torch
from helpers_methods import small_task

from flux.methods import METHODS
from flux.methods.lookup import find_method, load_function
from flux.methods.task import MethodStep
from flux.sampling import Evaluation


def halfway(task, *, guidance=2.0, share=0.5, mix=True):
    """Sample the edit, and give a share of it."""
    z = task.field.of_edits(task.noise(0))
    for index in range(task.steps):
        t, t_next = task.times[index], task.times[index + 1]
        z = z + (t_next - t) * task.field.edit(z, t, Evaluation(index, task.steps), guidance)
        yield MethodStep("edit", index, task.steps, t, t_next, z)
    if mix:
        yield MethodStep("mix", 0, 1, 0.0, 0.0, torch.lerp(task.field.of_edits(task.clean), z, share))


def test_a_method_of_ones_own_is_found_and_runs():
    row = find_method(f"{__name__}:halfway")
    assert row.about == "Sample the edit, and give a share of it."
    assert row.settings["mix"].choices == (True, False)
    settings = {key: setting.default for key, setting in row.settings.items()}
    assert settings == {"guidance": 2.0, "share": 0.5, "mix": True}
    task = small_task()
    *_, last = load_function(row.function)(task, **settings | {"share": 0.0})
    torch.testing.assert_close(last.edit, task.field.of_edits(task.clean))
    assert task.field.counts == [4, 4, 4]


@pytest.mark.parametrize("row", METHODS, ids=[row.name for row in METHODS])
def test_a_method_of_the_table_is_found_and_takes_its_settings(row):
    assert find_method(row.name) == row
    names = load_function(row.function).__kwdefaults__ or {}
    code = load_function(row.function).__code__
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    assert set(row.settings) == set(keywords)
    assert not names, "defaults stand in the table alone"


def wrong(task, guidance=1.0):
    yield


def wordy(task, *, guidance="much"):
    yield


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flowedits", "there is no method 'flowedits': choose from "),
        ("no_such_module:edit", "cannot be imported (ModuleNotFoundError"),
        (f"{__name__}:missing", "cannot be imported (AttributeError"),
        (":edit", "cannot be imported (ValueError"),
        (f"{__name__}:METHODS", "is no function"),
        (f"{__name__}:wrong", "its 'guidance' is none"),
        (f"{__name__}:wordy", "its 'guidance' is none"),
        ("inversions_broken:nothing", "must take a task"),
    ],
)
def test_what_is_no_method_is_told_in_a_line(name, message, monkeypatch):
    broken = ModuleType("inversions_broken")
    broken.nothing = lambda: None
    monkeypatch.setitem(sys.modules, "inversions_broken", broken)
    with pytest.raises(ValueError, match=".") as told:
        find_method(name)
    assert message in str(told.value)
    assert "\n" not in str(told.value)
