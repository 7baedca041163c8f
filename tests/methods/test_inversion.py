"""Trajectories, nudging and pinned replays, against inversions and replays written out one row at a time."""

import pytest
import torch
from helpers_methods import small_task, velocity_of

from flux.hooks import Hooks, LookAtSource
from flux.integrators import INTEGRATORS
from flux.methods import PINNINGS
from flux.methods.inversion import invert, reconstruct, replay
from flux.methods.operators import velo_edit


def outcome(run):
    """The steps of a run, and what it returned."""
    steps = []
    while True:
        try:
            steps.append(next(run))
        except StopIteration as stop:
            return steps, stop.value


def inverted(task, **settings):
    return outcome(invert(task, **settings))[1]


def prompts_of_the_sources(**parts):
    """Two sources, each edited to itself: such an edit is what became of the source."""
    return small_task(edits=("a dog", "a fish"), of=(0, 1), **parts)


def test_a_trajectory_holds_both_ends():
    task = small_task()
    steps, trajectory = outcome(invert(task, nudge=1.15))
    assert [t for t, _ in trajectory.points] == list(task.times)[::-1]
    assert torch.equal(trajectory.points[0][1], task.clean * 1.15)
    assert torch.equal(trajectory.noise, steps[-1].source) and trajectory.points[-1][0] == 1.0
    assert [(step.phase, step.index, step.steps) for step in steps] == [("invert", i, 4) for i in range(4)]
    assert trajectory.back == trajectory.points[::-1]


def test_an_inversion_written_out():
    task = small_task(steps=3)
    times = task.times[::-1]
    for name in ("euler", "euler-released"):
        trajectory = inverted(task, integrator=name, guidance=1.5, nudge=1.15)
        for pair, source in ((0, 0), (2, 1)):
            z = 1.15 * task.clean[source].double()
            for i in range(3):
                asked = times[i + 1] if name == "euler-released" else times[i]
                z = z + (times[i + 1] - times[i]) * velocity_of(task, z, asked, "source", pair, 1.5)
                torch.testing.assert_close(
                    trajectory.points[i + 1][1][source].double(), z, rtol=1e-4, atol=1e-4
                )


def test_steps_at_the_noisy_end_can_be_left_out():
    task = small_task()
    whole, part = inverted(task), inverted(task, first=1)
    assert [t for t, _ in part.points] == [t for t, _ in whole.points[:-1]]
    assert torch.equal(part.noise, whole.points[-2][1])


@pytest.mark.parametrize("name", [record.name for record in INTEGRATORS])
def test_a_pinned_source_ends_at_the_picture_itself(name):
    task = small_task(steps=2)
    for nudge, undo in ((1.0, False), (1.15, True)):
        trajectory = inverted(task, integrator=name, nudge=nudge)
        steps = list(replay(task, trajectory, guidances=(1, 3), undo_nudge=undo))
        for step, (t, latent) in zip(steps, trajectory.back[1:], strict=True):
            assert step.t_next == t, "pinned at its own noise level"
            assert torch.equal(step.source, latent / (nudge if undo else 1))
        if nudge == 1.0:
            assert torch.equal(steps[-1].source, task.clean)
        else:
            torch.testing.assert_close(steps[-1].source, task.clean, rtol=1e-6, atol=1e-6)


def test_a_nudge_that_is_not_undone_stays():
    task = small_task()
    trajectory = inverted(task, nudge=1.15)
    undone, kept = (
        list(replay(task, trajectory, guidances=(1, 3), undo_nudge=undo))[-1] for undo in (True, False)
    )
    torch.testing.assert_close(kept.edit, 1.15 * undone.edit)
    torch.testing.assert_close(kept.source, 1.15 * task.clean)


def test_the_released_pinning_lags():
    task = small_task(steps=5)
    trajectory = inverted(task)
    latents = [latent for _, latent in trajectory.points]
    steps = list(replay(task, trajectory, guidances=(1, 3), pinning="released"))
    for step, level in zip(steps, (1, 5, 4, 3, 2), strict=True):
        assert torch.equal(step.source, latents[level])


def look(of, count, mask):
    return Hooks(inject={3: LookAtSource((*range(count), *of))})


@pytest.mark.parametrize("pinning", PINNINGS)
def test_a_replay_written_out(pinning):
    """One source and edit at a time, looked at in a layer; what the source is at each step is by hand."""
    task = small_task(steps=3, look=look)
    trajectory = inverted(task, nudge=1.15)
    steps = list(replay(task, trajectory, guidances=(1, 3), pinning=pinning))
    latents, times, n = [latent.double() for _, latent in trajectory.points], task.times, 3
    for pair, source in ((0, 0), (2, 1)):
        z = z_source = latents[n][source]
        for i in range(n):
            t, ahead = times[i], 0
            if pinning == "exact":
                t, ahead = times[i + 1], latents[n - 1 - i][source] - latents[n - i][source]
            v_source, v = together(task, z_source + ahead, z + ahead, t, pair)
            z, z_source = z + (times[i + 1] - times[i]) * v, z_source + (times[i + 1] - times[i]) * v_source
            if pinning == "released":
                z_source = latents[1 if i == 0 else n + 1 - i][source]
            elif pinning != "free":
                z_source = latents[n - 1 - i][source]
        torch.testing.assert_close(steps[-1].edit[pair].double(), z / 1.15, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(steps[-1].source[source].double(), z_source / 1.15, rtol=1e-3, atol=1e-4)


def together(task, z_source, z_edit, t, pair):
    """Velocities of a source at guidance 1 and of its edit at 3, which looks at it in layer 3."""
    taken = {}

    def keep(q, k, v, site):
        taken["k"], taken["v"] = k, v
        return q, k, v

    def put(q, k, v, site):
        k, v = k.clone(), v.clone()
        k[:, :, site.img], v[:, :, site.img] = taken["k"][:, :, site.img], taken["v"][:, :, site.img]
        return q, k, v

    first = velocity_of(task, z_source, t, "source", pair, 1, Hooks(inject={3: keep}))
    return first, velocity_of(task, z_edit, t, "edit", pair, 3, Hooks(inject={3: put}))


@pytest.mark.parametrize(
    "pinning, name",
    [*((pinning, "euler") for pinning in PINNINGS), ("exact", "euler-released"), ("right", "midpoint")],
)
def test_the_way_straight_back_leads_to_the_picture(pinning, name):
    """VeloEdit's reference alone, at whatever nudge, from wherever the model is asked."""
    task = small_task(steps=3, operators=(velo_edit(0.0),))
    for nudge in (1.0, 1.15):
        trajectory = inverted(task, integrator=name, nudge=nudge)
        *_, last = replay(task, trajectory, guidances=(1, 3), pinning=pinning)
        torch.testing.assert_close(last.edit, task.field.of_edits(task.clean), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pinning", ["right", "exact"])
def test_velo_edit_in_a_replay_written_out(pinning):
    task = small_task(steps=3, operators=(velo_edit(0.5),))
    trajectory, times = inverted(task, nudge=1.15), task.times
    *_, last = replay(task, trajectory, guidances=(1, 3), pinning=pinning)
    way = [latent.double() for _, latent in trajectory.back]
    for pair, source in ((0, 0), (2, 1)):
        z, taken = way[0][source], []
        for i in range(3):
            t, ahead = (times[i + 1], way[i + 1] - way[i]) if pinning == "exact" else (times[i], 0 * way[i])
            v = velocity_of(task, z + ahead[source], t, "edit", pair, 3)
            back = (z - 1.15 * task.clean[source].double()) / times[i]
            taken.append(back.abs() >= 0.5 * (back.abs() + (v - back).abs()))
            z = z + (times[i + 1] - times[i]) * torch.where(taken[-1], back, v)
        assert 0.02 < torch.stack(taken).double().mean() < 0.98
        torch.testing.assert_close(last.edit[pair].double(), z / 1.15, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["euler", "euler-released"])
def test_exact_replays_give_the_picture_back_step_by_step(name):
    """An edit that asks for what the source asked for, at its guidance, is the picture; freely it is not."""
    task = prompts_of_the_sources(steps=3)
    trajectory = inverted(task, integrator=name, nudge=1.15)
    exact = list(replay(task, trajectory, guidances=(1, 1), pinning="exact"))
    for step, (_, latent) in zip(exact, trajectory.back[1:], strict=True):
        torch.testing.assert_close(step.edit, latent / 1.15, rtol=0, atol=1e-4)
    *_, free = replay(task, trajectory, guidances=(1, 1), pinning="free")
    assert (free.edit - task.clean).abs().max() > 1e-2
    assert torch.equal(free.edit, free.source)


def test_exact_replays_take_no_more_evaluations():
    counts = {}
    for pinning in ("right", "exact"):
        task = small_task()
        list(replay(task, inverted(task), guidances=(1, 3), pinning=pinning))
        counts[pinning] = task.field.counts
    assert counts["exact"] == counts["right"] == [12, 12, 12]


def test_exact_replays_are_of_eulers_inversions():
    task = small_task()
    with pytest.raises(ValueError, match='pinning "exact" takes integrator euler or euler-released; got mid'):
        next(replay(task, inverted(task, integrator="midpoint"), guidances=(1, 3), pinning="exact"))


def test_a_free_replay_is_a_reconstruction():
    task, again = small_task(steps=2), prompts_of_the_sources(steps=2)
    for settings in ({"nudge": 1.15}, {"integrator": "fireflow"}, {"nudge": 1.15, "undo_nudge": False}):
        steps = list(reconstruct(task, **settings))
        assert [step.phase for step in steps] == ["invert"] * 2 + ["reconstruct"] * 2
        undo = settings.pop("undo_nudge", True)
        *_, free = replay(
            again, inverted(again, **settings), guidances=(1, 1), pinning="free", undo_nudge=undo
        )
        torch.testing.assert_close(steps[-1].source, free.edit, rtol=1e-4, atol=1e-4)


def test_reconstructions_improve_with_a_better_rule():
    task = small_task(steps=5)
    errors = {}
    for choice in ("euler", "midpoint", "uni-inv", {"name": "fixed-point", "iterations": 8}):
        *_, last = reconstruct(task, integrator=choice)
        name = choice if isinstance(choice, str) else choice["name"]
        errors[name] = (last.source - task.clean).square().mean().sqrt().item()
    assert errors["fixed-point"] < 1e-4 < errors["midpoint"] < errors["euler"]
    assert errors["uni-inv"] < errors["euler"]
