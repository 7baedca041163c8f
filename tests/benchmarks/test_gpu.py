"""The command of all GPU figures, on a CPU: what a scaled run writes, what is left when a run goes wrong."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
from gpu_common import clock, turns  # noqa: E402
from gpu_common.record import Record  # noqa: E402
from gpu_common.runner import Part, reason_to_skip, run_part, run_parts  # noqa: E402
from gpu_common.scale import FULL, SMALL, Setup, floor_of, work  # noqa: E402
from gpu_parts import edit, ray_sweep, step, suite  # noqa: E402

CPU = torch.device("cpu")
SETUP = Setup(SMALL, CPU, torch.float32, {})
ABOUT = {
    "machine": {
        "card": "a card",
        "torch": "2.0",
        "driver": "1.2",
        "cuda": "12.0",
        "commit": None,
        "packages": {"diffusers": None},
    },
    "scale": "small",
    "device": "cpu",
    "dtype": "float32",
}
MODULES = {
    "part_that_works": """
def run(setup, record):
    record.put(figure=42, device=str(setup.device))

def table(figures):
    return [f"the figure is {figures['figure']}"]
""",
    "part_that_fails": """
def run(setup, record):
    record.put(figure=1)
    raise ValueError("two\\nlines")

def table(figures):
    return []
""",
    "part_that_dies": """
import os

def run(setup, record):
    os._exit(3)
""",
    "part_that_waits": """
import os, time

def run(setup, record):
    record.put(figure=7, pid=os.getpid())
    time.sleep(600)

def table(figures):
    return ["as far as it came"]
""",
}


def part(name: str, **changes) -> Part:
    return replace(Part(name, f"the part that {name}", f"part_that_{name}", 10), **changes)


@pytest.fixture
def modules(tmp_path, monkeypatch) -> Path:
    """A folder of parts made for these tests, which the processes of parts find."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.syspath_prepend(str(folder))
    return folder


# A scaled run


@pytest.fixture(scope="module")
def scaled(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a scaled run, and what it printed."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--scaled", "--device", "cpu"]
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def load(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def test_a_scaled_run_has_a_record_of_every_part(scaled):
    folder, _ = scaled
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{each.name}.json" for each in gpu.PARTS)
    status = {each.name: load(folder, each.name)["status"] for each in gpu.PARTS}
    measured = {"calibration", "step", "hooks", "loading", "edit"}
    measured |= {"int8"} if find_spec("torchao") else set()
    assert {name for name, said in status.items() if said == "done"} == measured
    assert {said for name, said in status.items() if name not in measured} == {"skipped"}
    for each in gpu.PARTS:
        record = load(folder, each.name)
        assert record["machine"]["torch"] == torch.__version__
        assert (record["machine"]["card"], record["dtype"], record["scale"]) == ("cpu", "float32", "small")
        if each.name in measured:
            assert record["seconds"] > 0
        else:
            assert record["reason"]
            assert not record["figures"]


def test_what_a_scaled_run_measures(scaled):
    folder, _ = scaled
    calibration = load(folder, "calibration")["figures"]
    assert calibration["matmul_tflops"] == max(calibration["matmul"].values()) > 0
    assert calibration["attention"].keys() == {"as torch chooses", "cudnn", "flash", "efficient"}
    assert "unavailable" in calibration["attention"]["cudnn"]

    step = load(folder, "step")["figures"]
    made = {(each["model"], each["case"]): each for each in step["cases"]}
    assert {case for model, case in made if model == "ours"} == {f"eager, batch {n}" for n in (1, 2, 4)}
    first = made["ours", "eager, batch 1"]
    assert first["least_ms"] <= first["p10_ms"] <= first["median_ms"] <= first["p90_ms"]
    assert len(first["turns_ms"]) == 2
    assert first["floor_ms"] == pytest.approx(floor_of(SMALL, 1, calibration))

    hooks = load(folder, "hooks")["figures"]
    assert len(hooks["ratios"]) == 4
    assert [row["case"] for row in hooks["turns"]][:4] == [
        "plain, batch 1",
        "skip one layer, batch 1",
        "skip one layer, batch 1",
        "plain, batch 1",
    ]

    loading = load(folder, "loading")["figures"]
    assert loading["gigabytes"] > 0
    assert len(loading["seconds"]["load_flow_model"]) == len(loading["seconds"]["safetensors alone"]) == 2

    if find_spec("torchao"):
        int8 = load(folder, "int8")["figures"]
        assert (int8["precision"], int8["result"]) == ("int8", "made")
        assert [(row["batch"], row["result"], row["finite"]) for row in int8["steps"]] == [
            (1, "made", True),
            (4, "made", True),
        ]

    edits = load(folder, "edit")["figures"]["edits"]
    assert [(each["offload"], each["rows"], each["result"]) for each in edits] == [
        (False, 4, "made"),
        (True, 4, "made"),
        ("modulation", 4, "made"),
        ("stream", 4, "made"),
    ]
    assert all(each["finite"] for each in edits)
    assert [phase["phase"] for phase in edits[1]["phases"]] == [
        edit.LOADING,
        "encoding",
        "flow model to the device",
        "sampling",
        "flow model from the device",
        "decoding",
    ]


def test_a_scaled_run_prints_its_figures_and_shows_them_again(scaled, capsys):
    folder, printed = scaled
    assert "| ours | eager, batch 4 |" in printed
    assert "skipped: a cap on GPU memory needs a GPU" in printed
    assert gpu.main(["--show", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# cpu, float32, small scale\n")
    assert shown in printed


# Runs that go wrong


def test_a_part_that_fails_is_recorded_and_the_others_go_on(modules, tmp_path):
    parts = [part("fails"), part("dies"), part("works")]
    records = run_parts(parts, tmp_path / "out", ABOUT, minutes=5)
    failed, died, worked = (load(tmp_path / "out", each.name) for each in parts)
    assert (failed["status"], failed["reason"]) == ("failed", "ValueError: two lines")
    assert failed["figures"] == {"figure": 1}
    assert (died["status"], died["reason"]) == ("failed", "its process ended with 3")
    assert worked["status"] == "done"
    assert worked["figures"] == {"figure": 42, "device": "cpu"}
    assert "the figure is 42" in gpu.report(records)


def test_a_run_that_is_ended_keeps_what_it_has(modules, tmp_path):
    """Finished parts, and the figures so far of the one at work, whose process ends with the run."""
    out = tmp_path / "out"
    script = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu
from gpu_common.runner import Part
gpu.PARTS = tuple(Part(name, "", f"part_that_{{name}}", 10) for name in ("works", "waits"))
raise SystemExit(gpu.main(["--scaled", "--device", "cpu", "--out", {str(out)!r}]))
"""
    run = subprocess.Popen([sys.executable, "-c", script])
    try:
        figures = {}
        deadline = time.monotonic() + 240
        while not figures and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            figures = load(out, "waits")["figures"] if (out / "waits.json").is_file() else {}
        run.terminate()
        assert run.wait(timeout=60) == 143
    finally:
        run.kill()
    assert figures["figure"] == 7
    with pytest.raises(ProcessLookupError):
        os.kill(figures["pid"], 0)
    assert load(out, "works")["status"] == "done"
    assert load(out, "waits")["figures"] == figures
    records = [Record.read(out / f"{name}.json") for name in ("works", "waits")]
    shown = gpu.report(records)
    assert "the figure is 42" in shown
    assert "cut off" in shown
    assert "as far as it came" in shown


def test_a_part_that_takes_too_long_is_stopped(modules, tmp_path):
    record = Record.begin(tmp_path / "waits.json", {**ABOUT, "module": "part_that_waits", "options": {}})
    record = run_part(part("waits"), record, limit=0.2)
    assert (record.status, record.data["reason"]) == ("cut off", "stopped after 0 s")
    assert load(tmp_path, "waits")["status"] == "cut off"


def test_why_a_part_is_skipped(tmp_path):
    full, on_gpu = {**ABOUT, "scale": "full", "device": "cuda"}, {**ABOUT, "device": "cuda"}
    slow = part("works", seconds=60)
    assert reason_to_skip(slow, full, 61, 8, False) is None
    assert reason_to_skip(slow, full, 35, 8, False) == "it takes about 60 s, and 35 s of 8 minutes are left"
    assert reason_to_skip(part("works", needs=("no_such_package",)), full, 99, 8, True) == (
        "no_such_package not installed"
    )
    assert reason_to_skip(part("works", needs_gpu="why"), ABOUT, 99, 8, True) == "why"
    assert reason_to_skip(part("works", needs_gpu="why"), on_gpu, 99, 8, True) is None
    assert reason_to_skip(part("works", long_on_cpu="why"), ABOUT, 99, 8, False) == "why"
    assert reason_to_skip(part("works", long_on_cpu="why"), ABOUT, 99, 8, True) is None
    (skipped,) = run_parts([slow], tmp_path, full, minutes=0)
    assert load(tmp_path, "works")["reason"] == skipped.data["reason"]


@pytest.mark.parametrize("argv", [["--parts", "nothing"], ["--device", "cuda"], []])
def test_what_cannot_be_run_is_said_before_anything_is(argv, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as end:
        gpu.main(argv)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


# Out of memory is a result


def out_of_memory(*_):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


def test_models_that_do_not_fit_are_a_result(monkeypatch):
    monkeypatch.setattr(edit, "random_models", out_of_memory)
    (tried,) = edit.tries(SETUP, offload=False)
    assert (tried["result"], tried["ran_out_in"]) == ("out of memory", edit.LOADING)
    assert "**out of memory in loading" in "\n".join(edit.table({"edits": [tried]}))


def test_two_rows_are_tried_where_four_do_not_fit(monkeypatch):
    def runs_out_with_four(models, setup, rows, offload, phases):
        phases.enter("encoding")
        phases.enter("sampling")
        return out_of_memory() if rows == 4 else True

    monkeypatch.setattr(edit, "random_models", lambda setup, offload: None)
    monkeypatch.setattr(edit, "edit", runs_out_with_four)
    four, two = edit.tries(SETUP, offload=True)
    assert (four["rows"], four["ran_out_in"]) == (4, "sampling")
    assert [phase["phase"] for phase in four["phases"]] == [edit.LOADING, "encoding", "sampling"]
    assert (two["rows"], two["result"], two["finite"]) == (2, "made", True)


def test_other_errors_are_none():
    with pytest.raises(RuntimeError, match="shapes"):
        edit.attempt(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3))
    assert clock.is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not clock.is_out_of_memory(ValueError("out of memory"))


def test_a_cap_is_a_share_of_the_card(monkeypatch):
    card, shares = type("Card", (), {"total_memory": 80 * 2**30}), []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append(share)
    )
    edit.cap(24, CPU)
    edit.cap(80, CPU)
    assert shares == [0.3]


# Figures


def row(model: str, case: str, ms: list[float], **others) -> dict:
    return {"model": model, "case": case, "batch": 1, "against": None, "peak_gb": 1.0, "ms": ms, **others}


def test_turns_are_joined_and_ratios_are_of_medians():
    rows = [
        row("ours", "plain", [1.0, 3.0]),
        row("diffusers", "plain", [4.0]),
        row("ours", "plain", [2.0]),
        row("ours", "skip", [1.0], against="plain"),
        {"model": "ours", "case": "large", "batch": 4, "against": None, "error": "out of memory"},
    ]
    cases = turns.summarise(rows, SETUP, {"matmul_tflops": 1.0, "attention_tflops": 2.0})
    assert [each.get("median_ms") for each in cases] == [2.0, 4.0, 1.0, None]
    assert cases[0]["turns_ms"] == [2.0, 2.0]
    assert turns.ratios(cases) == {"ours / diffusers, plain": 0.5, "skip / plain, ours": 0.5}
    assert "| ours | large | out of memory | | | |" in turns.table({"cases": cases})
    turns.require_one(rows)
    with pytest.raises(RuntimeError, match="out of memory"):
        turns.require_one(rows[-1:])


def test_a_step_that_fails_is_a_row():
    failing = torch.nn.Identity()
    made = turns.measure("ours", failing, turns.Case("plain", 1), SETUP)
    assert made["error"].startswith("TypeError")
    assert "ms" not in made


def test_without_diffusers_ours_is_measured_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(step, "missing", lambda packages: list(packages))
    record = Record.begin(tmp_path / "step.json", {})
    step.run(replace(SETUP, scale=replace(SMALL, repeats=1, repeats_of_batches=1)), record)
    assert {each["model"] for each in record.figures["cases"]} == {"ours"}
    assert step.table(record.figures)[0] == "diffusers is not installed: ours alone"


def test_a_gpu_has_its_number():
    """`set_per_process_memory_fraction` takes no other."""
    about = {"scale": "full", "device": "cuda", "dtype": "bfloat16", "options": {"cap_gib": 24}}
    assert Setup.of(about) == Setup(FULL, torch.device("cuda", 0), torch.bfloat16, {"cap_gib": 24})


def test_the_work_of_a_full_step():
    """The figures of the design: 59.5 TFLOP of linear layers, 14.9 of attention."""
    assert work(FULL, 1)["linear"] == pytest.approx(59.5, abs=0.1)
    assert work(FULL, 1)["attention"] == pytest.approx(14.9, abs=0.1)
    assert floor_of(FULL, 1, {}) is None


def test_tests_are_counted():
    report = """<testsuites><testsuite>
        <testcase classname="tests.a" name="one"/>
        <testcase classname="tests.a" name="two"><failure message="no"/></testcase>
        <testcase classname="tests.b" name="three"><skipped/></testcase>
    </testsuite></testsuites>"""
    assert suite.counts(report) == {"passed": 1, "failed": 1, "skipped": 1, "failures": ["tests.a.two"]}


def test_cells_of_two_engines_are_compared(tmp_path):
    from PIL import Image

    cells = {f"pictures/{number}.png": str(number) for number in range(ray_sweep.CELLS)}
    for engine, value in (("local", 10), ("ray", 13)):
        for file in cells:
            path = tmp_path / engine / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2), (value, 10, 10)).save(path)
    other = {**cells, "pictures/0.png": "another"}
    assert ray_sweep.compared(cells, other, tmp_path) == {"same_bytes": 7, "largest_difference": 3}
    with pytest.raises(RuntimeError, match="ray 0"):
        ray_sweep.compared(cells, {}, tmp_path)
