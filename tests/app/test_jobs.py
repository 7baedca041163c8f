"""The queue of jobs: one at a time, watched, stopped, and never brought down."""

import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from flux.app.jobs import JobQueue
from flux.studies.picture_run import Progress


@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.close()


def last(job):
    *_, state = job.states()
    return state


def stepping(steps: int, at: threading.Event | None = None, go: threading.Event | None = None):
    """Work of so many steps. at: is set behind the first one, behind which `go` is waited for."""

    def work(job):
        for step in range(steps):
            job.watch(Progress(step, steps=steps, preview=lambda: [Image.new("RGB", (400, 200))]))
            if step == 0 and at is not None:
                at.set()
                assert go.wait(30)
        return Path("made")

    return work


def test_a_job_is_done(queue):
    state = last(queue.put(stepping(3)))
    assert (state.phase, state.step, state.steps, state.folder) == ("done", 2, 3, Path("made"))
    assert state.seen[0].size == (400, 200)
    assert [thumb.size for thumb in state.thumbs] == [(160, 80)] * 3


def test_what_it_prints_is_heard_and_what_others_print_is_not(queue, capsys):
    def work(job):
        print("an edit did nothing")
        thread = threading.Thread(target=lambda: print("from elsewhere"))
        thread.start()
        thread.join()
        return Path("made")

    assert last(queue.put(work)).lines == ("an edit did nothing",)
    assert capsys.readouterr().out == "from elsewhere\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("steps = 0: must be\nbetween 1 and 1000"), "steps = 0: must be between 1 and 1000"),
        (MemoryError(), "the machine is out of memory: use a smaller width, height or batch"),
        (OSError("no space left"), "no space left"),
    ],
)
def test_it_fails_in_the_command_lines_words_and_the_next_one_runs(queue, error, said):
    def work(job):
        raise error

    state = last(queue.put(work))
    assert (state.phase, state.message, state.lines) == ("failed", said, ())
    assert last(queue.put(stepping(1))).phase == "done"


def test_a_fault_of_ours_is_said_and_shown_on_the_console(queue, capfd):
    state = last(queue.put(lambda job: [][0]))
    assert state.phase == "failed" and state.message.startswith("a fault of the program, IndexError")
    assert last(queue.put(stepping(1))).phase == "done"
    assert "Traceback" in capfd.readouterr().err
    assert type(sys.stdout).__name__ != "HeardStream"


def test_it_stops_within_a_step(queue):
    at, go = threading.Event(), threading.Event()
    job = queue.put(stepping(1000, at, go))
    assert at.wait(30)
    job.cancel()
    go.set()
    state = last(job)
    assert (state.phase, state.step) == ("stopped", 0)


def test_who_waits_is_told_how_many_are_before_and_can_leave(queue):
    at, go = threading.Event(), threading.Event()
    first = queue.put(stepping(2, at, go))
    assert at.wait(30)
    second, third = queue.put(stepping(1)), queue.put(stepping(1))
    assert [job.state.before for job in (second, third)] == [1, 2]
    second.cancel()
    assert last(second).phase == "stopped", "at once, though the first is at work"
    queue.put(stepping(1))
    assert third.state.before == 1
    go.set()
    assert [last(job).phase for job in (first, second, third)] == ["done", "stopped", "done"]


def test_who_looks_away_has_the_job_stopped(queue):
    at, go = threading.Event(), threading.Event()
    job = queue.put(stepping(1000, at, go))
    states = job.states()
    next(states)
    assert at.wait(30)
    states.close()
    assert job.cancelled
    go.set()
    assert last(job).phase == "stopped"


def test_what_comes_first_is_not_waited_for_at_the_end():
    at, go = threading.Event(), threading.Event()
    queue = JobQueue(stepping(2, at, go))
    assert at.wait(30)
    closing = threading.Thread(target=queue.close)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    go.set()
    assert last(queue.loading).phase == "stopped"
