"""The table of the functions of the interface and of the test that fails where one is a stub."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import stubs  # noqa: E402


def test_every_function_has_a_test_that_a_stub_fails():
    """As `benchmarks/stubs.py` found them; the tests are still there."""
    table = json.loads(stubs.RESULTS.read_text(encoding="utf-8"))["functions"]
    assert table.keys() == stubs.subjects().keys()
    for name, test in table.items():
        assert test is not None, name
        file, function = test.partition("[")[0].split("::")
        assert re.search(rf"^def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), test


def test_a_stub_does_nothing_wherever_it_was_imported_to():
    from flux.math import rope
    from flux.modules.autoencoder import AutoEncoder
    from flux.sampling import unpack

    for function in (unpack, rope, AutoEncoder.forward):
        before = function.__code__
        with stubs.stub(stubs.inspect.unwrap(function)):
            assert function(1, other=2) is None
        assert function.__code__ is before
    with pytest.raises(KeyError), stubs.stub(unpack):
        raise KeyError
    with pytest.raises(TypeError):  # it asks for its arguments again
        unpack()


def test_the_first_test_that_fails_is_named():
    def subject():
        return 1

    seen = []

    def run(tests):
        seen.extend(tests)
        return 1 if tests == ["b"] and subject() is None else 0

    assert stubs.first_that_fails(subject, ["a", "b", "c"], run) == "b" and seen == ["a", "b"]
    assert stubs.first_that_fails(subject, ["a", "c"], run) is None
