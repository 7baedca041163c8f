"""Mutants of every key and option end in 0, or in 2 and one line; tests/studies/fuzz.py makes thousands."""

import fuzz
import pytest


def test_every_key_and_option_is_a_target():
    for name, (_, kind) in fuzz.STUDIES.items():
        for key in kind.model_fields:
            for typed in (False, True):
                assert any(
                    (t.command, t.key.split(".")[0], t.typed) == (name, key, typed) for t in fuzz.TARGETS
                )
    assert {t.key for t in fuzz.TARGETS if t.command == "flux"} >= set(fuzz.cli.PARAMETERS)
    assert {t.command for t in fuzz.TARGETS} == set(fuzz.RUN)


def test_a_mutant_is_the_same_each_time():
    assert fuzz.mutant(7) == fuzz.mutant(7) != fuzz.mutant(7 + len(fuzz.TARGETS))
    assert fuzz.mutant(7) != fuzz.mutant(7, seed=1)


@pytest.mark.parametrize("turn", range(5))
def test_no_mutant_ends_in_a_traceback_or_in_two_lines(turn):
    """Each target once a turn."""
    first = turn * len(fuzz.TARGETS)
    assert list(fuzz.failures(range(first, first + len(fuzz.TARGETS)))) == []


def test_what_is_wrong_is_seen(tmp_path, monkeypatch):
    """A traceback, a wrong exit code, a second line, a hang."""
    each = fuzz.Mutant("flux", [])

    def interrupted(words):
        raise RuntimeError("no")

    def two_lines(words):
        print("one\ntwo", file=fuzz.sys.stderr)
        return 2

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    for run, says in (
        (interrupted, "traceback"),
        (lambda words: 1, "ends with 1"),
        (two_lines, "says 2 lines"),
        (lambda words: next(i for i in iter(int, 1) if i), "hangs"),
    ):
        monkeypatch.setitem(fuzz.RUN, "flux", run)
        assert fuzz.failure(each).startswith(says)
    monkeypatch.setitem(fuzz.RUN, "flux", lambda words: 0)
    assert fuzz.failure(each) is None
