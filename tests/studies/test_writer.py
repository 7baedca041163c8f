"""Files that are written beside the work: in order, bounded, and no error is lost."""

from functools import partial
from threading import Event

import pytest

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
