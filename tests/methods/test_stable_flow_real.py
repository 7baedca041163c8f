"""Stable Flow on a picture's latent, written out for one source and edit at a time."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.hooks import Hooks, LookAtSource
from flux.methods import defaults
from flux.methods.stable_flow_real import stable_flow_real

VITAL = (1, 6)


def look(of, count, mask):
    return Hooks(inject=dict.fromkeys(VITAL, LookAtSource((*range(count), *of))))


def beside(task, z_source, z_edit, t, pair, guidances):
    """The edit's velocity, its image tokens' keys and values those of its source, run just before."""
    seen = {}

    def keep(q, k, v, site):
        seen[site.layer] = k, v
        return q, k, v

    def put(q, k, v, site):
        text = slice(0, site.txt_len)
        mixed = (
            torch.cat((own[:, :, text], source[:, :, site.img]), 2)
            for own, source in zip((k, v), seen[site.layer], strict=True)
        )
        return q, *mixed

    v_source = velocity_of(
        task, z_source, t, "source", pair, guidances[0], Hooks(inject=dict.fromkeys(VITAL, keep))
    )
    return v_source, velocity_of(
        task, z_edit, t, "edit", pair, guidances[1], Hooks(inject=dict.fromkeys(VITAL, put))
    )


def plainly(task, pair: int, settings) -> torch.Tensor:
    """arXiv 2411.14430, 3.4: nudge, invert along the flow reversed, edit beside the pinned source, undo."""
    source, times = task.field.of[pair], task.times
    z = settings["nudge"] * task.clean[source].double()
    path = {times[-1]: z}
    for t, t_next in zip(times[::-1], times[-2::-1], strict=False):
        v = velocity_of(task, z, t, "source", pair, settings["source_guidance"])
        if settings["integrator"] == "midpoint":
            halfway = z + (t_next - t) / 2 * v
            v = velocity_of(task, halfway, (t + t_next) / 2, "source", pair, settings["source_guidance"])
        z = z + (t_next - t) * v
        path[t_next] = z
    guidances = settings["source_guidance"], settings["guidance"]
    for t, t_next in zip(times, times[1:], strict=False):
        v_source, v = beside(task, path[t], z, t, pair, guidances)
        if settings["integrator"] == "midpoint":
            dt = (t_next - t) / 2
            _, v = beside(task, path[t] + dt * v_source, z + dt * v, (t + t_next) / 2, pair, guidances)
        z = z + (t_next - t) * v
    return z / settings["nudge"]


@pytest.mark.parametrize(
    "changes", [{}, {"integrator": "midpoint", "nudge": 1.0}, {"source_guidance": 2.0, "nudge": 1.3}]
)
def test_it_is_the_papers_method(changes):
    task, settings = small_task(steps=3, look=look), defaults("stable-flow") | changes
    *_, last = stable_flow_real(task, **settings)
    for pair in (0, 2):
        expected = plainly(task, pair, settings)
        torch.testing.assert_close(last.edit[pair].double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name, evaluations", [("euler", 6), ("midpoint", 12), ("fireflow", 9)])
def test_evaluations_are_three_times_the_integrators(name, evaluations):
    task = small_task(steps=2)
    list(stable_flow_real(task, **defaults("stable-flow") | {"integrator": name}))
    assert task.field.counts == [evaluations] * 3
