"""Files that are written beside the work: in order, bounded, and no error is lost."""

from functools import partial
from threading import Event

import pytest
from helpers_demos import small_models

from flux.studies import picture_run
from flux.studies.folder import RunFolder
from flux.studies.reading import load_spec
from flux.studies.text import run as text_run
from flux.studies.text.spec import TestSpec
from flux.studies.writer import Writer

PATIENCE = 30  # seconds after which a test that waits has failed


def test_jobs_are_done_in_order_and_each_result_comes_once():
    done, results = [], []
    with Writer(most=3) as writer:
        for number in range(20):
            results += writer.put(partial(lambda number: done.append(number) or number, number))
        results += writer.rest()
        assert writer.rest() == []
    assert done == results == list(range(20))


def test_the_work_goes_on_while_a_job_is_done():
    go_on, done = Event(), Event()

    def job():
        assert go_on.wait(PATIENCE), "nobody went on"
        done.set()

    with Writer() as writer:
        assert writer.put(job) == [] and not done.is_set()
        go_on.set()
    assert done.is_set()


def test_no_more_wait_than_are_allowed():
    go_on, begun = Event(), []

    def job(number):
        begun.append(number)
        assert go_on.wait(PATIENCE)
        return number

    with Writer(most=2) as writer:
        assert writer.put(partial(job, 0)) == writer.put(partial(job, 1)) == []
        go_on.set()
        assert writer.put(partial(job, 2))[0] == 0, "the first had to be done before a third may wait"
        assert begun[0] == 0


def test_with_one_the_last_job_is_done_before_the_next_is_taken():
    with Writer(most=1) as writer:
        found = [writer.put(partial(str, number)) for number in range(4)]
        assert found == [[], ["0"], ["1"], ["2"]] and writer.rest() == ["3"]


def full():
    raise OSError(28, "No space left on device")


def test_an_error_comes_back_at_the_next_job():
    done = []
    with pytest.raises(OSError, match="No space"), Writer(most=1) as writer:
        writer.put(full)
        writer.put(partial(done.append, 1))
    assert not done


def test_an_error_of_the_last_job_is_not_lost():
    with pytest.raises(OSError, match="No space"), Writer() as writer:
        writer.put(full)


def test_what_was_put_is_done_though_the_work_fails():
    done, go_on = [], Event()
    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        writer.put(partial(go_on.wait, PATIENCE))
        writer.put(partial(done.append, 1))
        go_on.set()
        raise KeyboardInterrupt
    assert done == [1]


def test_an_error_of_the_work_is_not_hidden_by_the_writers():
    with pytest.raises(ValueError, match="theirs"), Writer() as writer:
        writer.put(full)
        raise ValueError("theirs")


# --- In a run of pictures -------------------------------------------------------------------------


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Demo 0, three pictures one by one, of a small model."""
    models = small_models()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picture_run, "load", lambda spec, prompts, rows: models)
    values = {"prompts": ["a hat", "a boat", "a house"], "batch": 1, "steps": 1, "width": 32, "height": 32}
    return load_spec(TestSpec, None, values)


def made(folder):
    return sorted(path.name for path in folder.glob("picture-*.png"))


def test_pictures_are_written_while_the_next_ones_are_made(spec, monkeypatch):
    begun, sound = [Event() for _ in range(4)], RunFolder.write_files
    sample, waited = text_run.sample_steps, []

    def sample_steps(*args, **options):
        next(event for event in begun if not event.is_set()).set()
        return sample(*args, **options)

    def write_files(run, files):
        if any(name.startswith("picture") for name in files):
            waited.append(begun[min(len(waited) + 1, 2)].wait(PATIENCE))
        sound(run, files)

    monkeypatch.setattr(text_run, "sample_steps", sample_steps)
    monkeypatch.setattr(RunFolder, "write_files", write_files)
    text_run.RUN.make(spec)
    assert waited == [True, True, True] and len(made(spec.output)) == 3


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, RuntimeError("CUDA error: device-side assert triggered")]
)
def test_a_run_that_is_stopped_keeps_what_it_has_made(spec, monkeypatch, stop):
    sample, calls = text_run.sample_steps, []

    def sample_steps(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise stop
        return sample(*args, **options)

    monkeypatch.setattr(text_run, "sample_steps", sample_steps)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        text_run.RUN.make(spec)
    assert len(made(spec.output)) == 2 and not list(spec.output.glob("*.partial"))
    before = {name: (spec.output / name).read_bytes() for name in made(spec.output)}
    monkeypatch.setattr(text_run, "sample_steps", sample)
    text_run.RUN.make(spec)
    after = {name: (spec.output / name).read_bytes() for name in made(spec.output)}
    assert len(after) == 3 and before.items() <= after.items()


def test_a_picture_that_cannot_be_written_ends_the_run(spec, monkeypatch):
    sound = RunFolder.write_files

    def write_files(run, files):
        if "picture-02-seed-0.png" in files:
            full()
        sound(run, files)

    monkeypatch.setattr(RunFolder, "write_files", write_files)
    with pytest.raises(OSError, match="No space"):
        text_run.RUN.make(spec)
    assert made(spec.output) == ["picture-01-seed-0.png"] and not (spec.output / "index.html").exists()
