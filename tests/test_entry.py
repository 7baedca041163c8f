"""The outermost frame of every command: consoles of any encoding, Ctrl-C in imports, readers that leave."""

import gc
import importlib.util
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import flux
from flux.entry import INTERRUPTED, NOBODY_READS, SELDOM, UNWRITABLE, Console
from flux.studies import cost

ROOT = Path(__file__).resolve().parents[1]
PAGE = "demo_gr"
DEMOS = {path.stem: path for path in sorted((ROOT / "demos").glob("demo_*.py"))}
MODULES = ("flux", "flux.studies.schema", "flux.tiny.training")
SITE = str(flux.PACKAGE_ROOT.resolve().parent)

OTHER = "кот и 猫 é"


def as_program(name: str) -> list[str]:
    """The words behind `python` that start a demo or a module."""
    return [str(DEMOS[name])] if name in DEMOS else ["-m", name]


@pytest.fixture
def program(tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """`program("demo_0_test", "--help", encoding="ascii")` in this process: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost, "speed", lambda *_: 1e12)

    def run(name: str, *argv: str, encoding: str) -> tuple[int, str, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
        with monkeypatch.context() as patch:
            for stream, place in zip(streams, ("stdout", "stderr"), strict=True):
                patch.setattr(sys, place, stream)
            patch.setattr(sys, "argv", [name, *argv])
            with pytest.raises(SystemExit) as end:
                if name in DEMOS:
                    runpy.run_path(str(DEMOS[name]), run_name="__main__")
                else:
                    runpy.run_module(name, run_name="__main__")
        for stream in streams:
            stream.flush()
        out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
        return end.value.code, out, err

    return run


def escaped(text: str, encoding: str) -> str:
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


COMMANDS = {
    "demo_0_test": ["--prompts", OTHER, "b", "--output", OTHER, "--dry-run"],
    "demo_1_layer": ["--prompt", OTHER, "--output", OTHER, "--dry-run"],
    "demo_2_skip": ["--prompts", OTHER, "b", "--output", OTHER, "--dry-run"],
    "demo_3_dino": ["--pictures", OTHER, "--metrics", "psnr", "--output", "of " + OTHER],
    "demo_4_edit": ["--prompts", OTHER, "b", "--output", OTHER, "--dry-run"],
    "flux.studies.schema": [OTHER],
}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_console_that_lacks_letters_ends_no_command(name, encoding, program, tmp_path):
    if name == "demo_3_dino":
        (tmp_path / OTHER).mkdir()
        for i in range(2):
            Image.new("RGB", (32, 32), (90 * i, 0, 0)).save(tmp_path / OTHER / f"{i} {OTHER}.png")
    code, out, err = program(name, *COMMANDS[name], encoding=encoding)
    assert code == 0, err
    assert escaped(OTHER, encoding) in out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("name", [*DEMOS, *MODULES])
def test_a_mistake_is_said_on_any_console(name, encoding, program, tmp_path):
    argv = {
        "flux": ["t2i", "--name", OTHER],
        "flux.studies.schema": ["--" + OTHER],
        "flux.tiny.training": ["--work", OTHER, "--out", OTHER],
    }.get(name, [OTHER + ".json"])
    (tmp_path / OTHER).mkdir()
    (tmp_path / OTHER / "training.json").write_text(json.dumps({"seed": 9}))
    code, out, err = program(name, *argv, encoding=encoding)
    assert (code, out, err.count("\n")) == (2, "", 1) and escaped(OTHER, encoding) in err


def test_the_command_line_says_prompt_and_place_on_any_console(program, tmp_path, monkeypatch):
    import torch

    from flux import cli

    monkeypatch.setattr(cli, "load_models", lambda *_, **__: SimpleNamespace(loras=()))
    monkeypatch.setattr(cli, "make_picture", lambda *_, **__: torch.zeros(1, 3, 16, 16))
    argv = ["--name", "flux-tiny", "--prompt", OTHER, "--output_dir", OTHER]
    code, out, err = program("flux", *argv, encoding="cp1252")
    assert code == 0, err
    assert out.count(escaped(OTHER, "cp1252")) == 2 and (tmp_path / OTHER / "img_0.jpg").is_file()


def run(name: str, *argv: str, cwd: Path, code: str = "", **options) -> subprocess.Popen:
    """A process of its own. code: is run in it first."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SITE, **options.pop("env", {})}
    words = as_program(name)
    start = [sys.executable, *words, *argv]
    if code:
        how = f"runpy.run_module({words[1]!r}" if words[0] == "-m" else f"runpy.run_path({words[0]!r}"
        code = f"{code}\nimport runpy, sys\nsys.argv[0] = 'x'\n{how}, run_name='__main__')"
        start = [sys.executable, "-c", code, *argv]
    return subprocess.Popen(start, cwd=cwd, env=environment, stderr=subprocess.PIPE, **options)


def test_a_whole_run_on_a_console_of_ascii(tmp_path):
    few = ["--steps", "1", "--width", "16", "--height", "16", "--output", OTHER]
    argv = [*few, "--prompts", OTHER]
    started = run(
        "demo_0_test", *argv, cwd=tmp_path, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"}
    )
    out, err = started.communicate()
    assert started.returncode == 0, err
    assert escaped(OTHER, "ascii").encode() in out and (tmp_path / OTHER / "index.html").is_file()


# A reader that leaves


@pytest.mark.parametrize("name", [*DEMOS, *MODULES])
def test_help_to_a_reader_that_left_ends_without_a_word(name, tmp_path):
    started = run(name, "--help", cwd=tmp_path, stdout=subprocess.PIPE)
    started.stdout.close()
    assert started.stderr.read() == b"" and started.wait() == NOBODY_READS


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize(
    "name, word", [("demo_1_layer", "--help"), ("flux", "--help"), ("flux.studies.schema", "x")]
)
def test_output_that_cannot_be_written_is_said(name, word, buffered, tmp_path):
    setting = {**os.environ, "PYTHONPATH": SITE, "PYTHONUNBUFFERED": buffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *as_program(name), word],
            cwd=tmp_path,
            env=setting,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == UNWRITABLE and done.stderr.count("\n") == 1
    assert "standard output cannot be written: No space left on device" in done.stderr


# Ctrl-C

STOP = """
import sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
"""
IMPORTS = [
    *(
        (name, module)
        for name in DEMOS
        if name != PAGE
        for module in ("flux.studies.study", "pydantic", "torch")
    ),
    *((PAGE, module) for module in ("flux.app.page", "pydantic")),
    *(("flux", module) for module in ("flux.cli", "torch")),
    *(("flux.tiny.training", module) for module in ("flux.files", "torch")),
]


@pytest.mark.parametrize("name, module", IMPORTS, ids=lambda value: str(value))
def test_an_interrupt_during_an_import_is_one_line(name, module, tmp_path):
    argv = ["--dry-run"] if name in DEMOS else ["--seed", "0"]
    if name == "demo_3_dino":
        (tmp_path / "pics").mkdir()
        argv += ["--pictures", "pics"]
    started = run(name, *argv, cwd=tmp_path, code=STOP.format(module=module), stdout=subprocess.PIPE)
    out, err = started.communicate()
    assert (started.returncode, out, err) == (INTERRUPTED, b"", b"stopped\n")


def test_an_interrupt_by_a_signal_is_one_line(tmp_path):
    """At moments of the first seconds. What comes before the import of `flux.entry` is Python's own."""
    for delay in (0.05, 0.1, 0.2, 0.4, 0.8):
        started = run("demo_4_edit", "--dry-run", cwd=tmp_path, stdout=subprocess.PIPE)
        time.sleep(delay)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate()
        if b"Traceback" not in err:
            assert started.returncode in (0, -signal.SIGINT, INTERRUPTED) and err.count(b"\n") <= 1
        else:
            assert b"demo_4_edit.py" not in err or b"from flux.entry import Console" in err, err


# In this process


def test_the_frame_lets_pass_what_is_not_its_own(capsys):
    with Console():
        pass
    with pytest.raises(ZeroDivisionError), Console():
        raise ZeroDivisionError
    with pytest.raises(SystemExit, match="2"), Console():
        sys.exit(2)
    with pytest.raises(SystemExit, match=str(INTERRUPTED)), Console():
        raise KeyboardInterrupt
    assert capsys.readouterr() == ("", "stopped\n")


@pytest.mark.parametrize("name", DEMOS)
def test_main_reads_no_arguments_but_its_own(name, monkeypatch):
    """As called in a notebook, whose process has arguments of its own."""
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    calls = []
    work = "flux.app.page.open_page" if name == PAGE else "flux.studies.study.carry_out"
    monkeypatch.setattr(
        work, lambda first, given=(), **options: calls.append(options.get("argv", given)) or 0
    )
    spec = importlib.util.spec_from_file_location(name, DEMOS[name])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main() == 0 and [tuple(argv) for argv in calls] == [()]


def test_a_command_looks_through_all_objects_seldom_and_leaves_the_thresholds_as_they_were():
    before = gc.get_threshold()
    with Console():
        assert gc.isenabled() and gc.get_threshold() == (*before[:2], SELDOM)
    assert gc.get_threshold() == before


def test_a_command_that_ends_is_not_searched_for_garbage(tmp_path):
    code = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 1000))  # the last that is registered comes first
from flux.entry import Console
with Console():
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SITE}, capture_output=True, text=True
    )
    assert done.stdout == "True\n", done.stderr
