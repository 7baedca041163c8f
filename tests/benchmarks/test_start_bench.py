"""What the benchmark of the start counts, without starting anything."""

import re
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import start  # noqa: E402


def test_each_part_that_is_timed_is_there():
    watched = re.findall(r'watch\("[^"]+", "([^"]+)", "([^"]+)"\)', start.PARTS)
    assert len(watched) == 8
    for module, name in watched:
        assert callable(resolve_name(f"{module}:{name}"))


def test_what_a_run_writes_is_compared_without_its_times(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.png").write_bytes(b"a")
        (tmp_path / name / "run.json").write_text(name)
    one, other = (start.bytes_of(tmp_path / name) for name in ("one", "other"))
    assert one == other and one.keys() == {str(Path("deep", "a.png"))}
    (tmp_path / "other" / "deep" / "a.png").write_bytes(b"b")
    assert start.bytes_of(tmp_path / "other") != one


def test_a_run_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(SystemExit, match="failed, exit code 3"):
        start.carry_out(tmp_path, ["-c", "raise SystemExit(3)"], tmp_path / "run")


def test_a_folder_is_taken_as_it_is(tmp_path):
    with start.tree_of(str(tmp_path)) as tree:
        assert tree == tmp_path.resolve()
    assert tmp_path.is_dir()


def test_medians():
    lists: dict[str, list[float]] = {}
    for figure in (1.0, 5.0, 2.00049):
        start.add(lists, {"clock": figure})
    assert lists == {"clock": [1.0, 5.0, 2.0]} and start.medians(lists) == {"clock": 2.0}
