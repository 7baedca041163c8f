"""Is every function of upstream's interface called by a test that a stub would fail? Each is tried.

    python benchmarks/stubs.py                       # two minutes on a CPU core
    python benchmarks/stubs.py flux.math.rope        # some of them
    python benchmarks/stubs.py --find                # looks for tests anew, some minutes more

Each function in turn does nothing and returns None, and its test of the table in `results/stubs.json` has to
fail, which passes otherwise. Where there is none yet, or it does not fail, the light test files run once, it
is noted which test calls which function, and those that call it run, the quickest first, until one fails.
`tests/benchmarks/test_stubs.py` reads the table.
"""

import argparse
import importlib
import inspect
import io
import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
INTERFACE = ROOT / "tests" / "data" / "upstream_interface.json"
RESULTS = Path(__file__).parent / "results" / "stubs.json"

LIGHT = (
    "tests/test_numerics.py",
    "tests/test_sampling.py",
    "tests/test_interface.py",
    "tests/test_util.py",
    "tests/test_content_filters.py",
    "tests/test_cli.py",
    "tests/test_cli_references.py",
    "tests/test_references.py",
    "tests/modules",
    "tests/pictures/test_files.py",
    "tests/pictures/test_watermark.py",
    "tests/weights/test_find.py",
    "tests/weights/test_convert.py",
)
"""Test files that call all of it, and take some minutes together."""

TRIES, LONGEST = 12, 120
"""Tests that are tried for a function, and seconds for each."""


def subjects() -> dict[str, FunctionType]:
    """The functions and methods of upstream's interface by dotted name, as ours have them.

    Without constructors, and without classes that hold fields alone.
    """
    found = {}
    for module, names in json.loads(INTERFACE.read_text(encoding="utf-8")).items():
        for name, what in names.items():
            if what["kind"] == "constant":
                continue
            owner = getattr(importlib.import_module(module), name)
            if what["kind"] == "function":
                found[f"{module}.{name}"] = inspect.unwrap(owner)
                continue
            for method in what.get("methods", ()):
                if method != "__init__":
                    found[f"{module}.{name}.{method}"] = inspect.unwrap(getattr(owner, method))
    return found


@contextmanager
def stub(function: FunctionType) -> Iterator[None]:
    """A function that does nothing and returns None, wherever it was imported to, until the block ends."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    before = function.__code__
    function.__code__ = nothing.__code__.replace(co_freevars=before.co_freevars)
    try:
        yield
    finally:
        function.__code__ = before


class Calls:
    """A plugin of pytest: which test calls which code, and how long each test took."""

    def __init__(self, codes: Mapping[CodeType, str]):
        self.codes, self.seconds = codes, {}
        self.by_name: dict[str, set[str]] = defaultdict(set)
        self.failed: list[str] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        codes, by_name, test = self.codes, self.by_name, item.nodeid

        def note(frame: Any, event: str, arg: Any) -> None:
            if (name := codes.get(frame.f_code)) is not None:
                by_name[name].add(test)

        start = time.perf_counter()
        sys.settrace(note)
        try:
            yield
        finally:
            sys.settrace(None)
            self.seconds[test] = time.perf_counter() - start

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def run(tests: Sequence[str], *plugins: object) -> int:
    """Run tests in this process, up to the first that fails, without a word; returns pytest's exit code."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={ROOT}"]
        return pytest.main([*options, *(f"{ROOT}/{test}" for test in tests)], plugins=list(plugins))


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in what takes longer, where the system has alarms."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def first_that_fails(
    function: FunctionType, tests: Sequence[str], run: Callable[[Sequence[str]], int] = run
) -> str | None:
    """The first of some tests that fails while a function is a stub; None where all pass."""
    for test in tests[:TRIES]:
        with stub(function), at_most(LONGEST):
            if run([test]) == pytest.ExitCode.TESTS_FAILED:
                return test
    return None


def callers(functions: Mapping[str, FunctionType], tests: Sequence[str]) -> dict[str, list[str]]:
    """By function the tests that call it, the quickest first. Raises ValueError where one fails anyway."""
    calls = Calls({function.__code__: name for name, function in functions.items()})
    run(tests, calls)
    if calls.failed:
        raise ValueError(f"{calls.failed[0]} fails without any stub")
    same = {name: calls.codes[function.__code__] for name, function in functions.items()}
    return {name: sorted(calls.by_name[same[name]], key=calls.seconds.__getitem__) for name in functions}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="functions, by dotted name; all where none is named")
    parser.add_argument("--find", action="store_true", help="look for tests anew")
    parser.add_argument(
        "--tests", nargs="+", default=LIGHT, help="the test files in which they are looked for"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    functions = subjects()
    if unknown := [name for name in options.names if name not in functions]:
        parser.error(f"{unknown[0]} is no function of the interface")
    known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    found: dict[str, str | None] = {} if options.find else dict(known.get("functions", {}))
    asked = options.names or list(functions)
    if (named := {found[name] for name in asked if found.get(name)}) and run(sorted(named)):
        print("a test of the table fails without any stub: run them by pytest")
        return 1
    for name in asked:
        found[name] = first_that_fails(functions[name], [found[name]] if found.get(name) else [])
        print(f"{name:<58} {found[name] or 'none yet'}", flush=True)
    if lacking := [name for name in asked if found[name] is None]:
        tests = callers(functions, options.tests)
        for name in lacking:
            found[name] = first_that_fails(functions[name], tests[name])
            print(f"{name:<58} {found[name] or f'NONE of {len(tests[name])}'}", flush=True)
    found = {name: found[name] for name in functions if name in found}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"functions": found}, indent=2) + "\n", encoding="utf-8")
    return int(None in found.values())


if __name__ == "__main__":
    sys.exit(main())
