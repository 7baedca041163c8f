"""RF-Solver's and FireFlow's edits, written out for one source and edit at a time."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.hooks import Hooks
from flux.methods import defaults
from flux.methods.fireflow import fireflow
from flux.methods.rf_solver import rf_solver

SINGLE = {"rf-solver": range(4 + 4, 12), "fireflow": range(4, 12)}  # of 4 double and 8 single blocks
METHOD = {"rf-solver": rf_solver, "fireflow": fireflow}


class Values:
    """The values of a method's layers in one evaluation: kept by one call, put in by another."""

    def __init__(self, layers):
        self.layers, self.kept = layers, {}

    def keep(self):
        def inject(q, k, v, site):
            self.kept[site.layer] = v
            return q, k, v

        return Hooks(inject=dict.fromkeys(self.layers, inject))

    def put(self):
        return Hooks(inject=dict.fromkeys(self.layers, lambda q, k, v, site: (q, k, self.kept[site.layer])))


def rf_solver_plainly(task, pair, shared, settings):
    layers, kept, z = SINGLE["rf-solver"], {}, task.clean[task.field.of[pair]].double()
    levels = list(task.times)
    for i in reversed(range(len(levels) - 1)):  # from level i + 1, cleaner, to level i
        dt = levels[i] - levels[i + 1]
        kept[i] = Values(layers), Values(layers)
        g = settings["source_guidance"]
        v = velocity_of(task, z, levels[i + 1], "source", pair, g, kept[i][0].keep())
        middle = (levels[i] + levels[i + 1]) / 2
        z = z + dt * velocity_of(task, z + dt / 2 * v, middle, "source", pair, g, kept[i][1].keep())
    for i in range(len(levels) - 1):
        dt, g = levels[i + 1] - levels[i], settings["guidance"]
        hooks = [values.put() for values in kept[i]] if i < shared else [None, None]
        v = velocity_of(task, z, levels[i], "edit", pair, g, hooks[0])
        z = z + dt * velocity_of(task, z + dt / 2 * v, levels[i] + dt / 2, "edit", pair, g, hooks[1])
    return z


def fireflow_plainly(task, pair, shared, settings):
    layers, kept, z = SINGLE["fireflow"], {}, task.clean[task.field.of[pair]].double()
    levels = list(task.times)
    v = velocity_of(task, z, 0.0, "source", pair, settings["source_guidance"])
    for i in reversed(range(len(levels) - 1)):
        dt, kept[i] = levels[i] - levels[i + 1], Values(layers)
        middle = (levels[i] + levels[i + 1]) / 2
        where = z + dt / 2 * v
        v = velocity_of(task, where, middle, "source", pair, settings["source_guidance"], kept[i].keep())
        z = z + dt * v
    g = settings["guidance"]
    v = velocity_of(task, z, 1.0, "edit", pair, g, kept[0].put() if shared else None)
    for i in range(len(levels) - 1):
        dt, hooks = levels[i + 1] - levels[i], kept[i].put() if i < shared else None
        v = velocity_of(task, z + dt / 2 * v, levels[i] + dt / 2, "edit", pair, g, hooks)
        z = z + dt * v
    return z


PLAINLY = {"rf-solver": rf_solver_plainly, "fireflow": fireflow_plainly}


@pytest.mark.parametrize("inject, shared", [(0, 0), (0.1, 1), (0.67, 2), (1, 3)])
@pytest.mark.parametrize("name", PLAINLY)
def test_it_is_the_papers_method(name, inject, shared):
    """A share that is not 0 is a step at least."""
    task, settings = small_task(steps=3), defaults(name) | {"inject": inject, "guidance": 3.0}
    *_, last = METHOD[name](task, **settings)
    for pair in (1, 2):
        expected = PLAINLY[name](task, pair, shared, settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("after, layers", [(0, range(4, 12)), (20 / 38, range(8, 12)), (1, range(0))])
def test_single_blocks_after_a_share_of_them_take_part(after, layers, monkeypatch):
    monkeypatch.setitem(SINGLE, "rf-solver", layers)
    task, settings = small_task(steps=2), defaults("rf-solver") | {"inject": 1.0, "after": after}
    *_, last = rf_solver(task, **settings)
    expected = rf_solver_plainly(task, 1, 2, settings)
    torch.testing.assert_close(last.edit[1].double(), expected, rtol=1e-3, atol=1e-4)


def test_of_a_full_model_they_are_those_after_the_19th():
    assert 19 + round(defaults("rf-solver")["after"] * 38) == 19 + 20, "single.20 is the first"
