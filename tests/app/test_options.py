"""The command line of the page: who may reach it, and what it says to slips."""

import re
import shlex
from pathlib import Path

import pytest

from flux.app.options import ALONE, OPTIONS, SHARED, read_options
from flux.flags import UsageError


def read(line: str):
    return read_options(line.split())[0]


def test_by_default_it_is_local_and_flux_tiny():
    options = read("")
    assert (options.model, options.host, options.is_local) == ({"name": "flux-tiny"}, "127.0.0.1", True)
    assert options.user is None and options.caps == ALONE


def test_upstreams_options_are_taken():
    options, notes = read_options(["--name", "flux-schnell", "--device", "cpu", "--offload", "--track_usage"])
    assert options.model == {"name": "flux-schnell", "device": "cpu", "offload": True}
    assert notes == ["--track_usage: nothing is tracked, and nothing is sent anywhere"]


@pytest.mark.parametrize(
    "line", ["--share", "--host 0.0.0.0", "--host ::", "--host 192.168.0.3", "--host box"]
)
def test_whom_others_reach_asks_for_a_password(line):
    with pytest.raises(UsageError, match="give --user NAME:PASSWORD"):
        read(line)
    options = read(f"{line} --user anna:secret:word")
    assert options.user == ("anna", "secret:word") and not options.is_local
    assert options.caps == SHARED


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_this_machine_is_local(host):
    assert read(f"--host {host}").is_local


def test_caps_can_be_set():
    caps = read("--host 0.0.0.0 --user a:b --most_steps 9 --most-pictures 2").caps
    assert (caps.steps, caps.pictures, caps.pixels) == (9, 2, SHARED.pixels)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--nam flux-tiny", "unknown option --nam, did you mean --name?"),
        ("--name flux-tin", '--name = "flux-tin": did you mean flux-tiny?'),
        ("--user anna", "--user: must be NAME:PASSWORD"),
        ("--port web", '--port = "web": must be a whole number between 0 and 65535'),
        ("--most_steps 0", "between 1 and 1000"),
        ("--name", "--name: needs a value"),
        ("--name flux-tiny --name flux-dev", "--name: given twice"),
        ("--share perhaps", '--share = "perhaps": takes true or false'),
    ],
)
def test_slips_are_answered_in_one_line(line, said):
    with pytest.raises(UsageError) as error:
        read(line)
    assert said in str(error.value) and "\n" not in str(error.value)


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", ["docs/page.md", "README.md", "demos/demo_gr.py"])
def test_the_commands_that_are_shown_are_read(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = re.findall(r"^\s*(python demos/demo_gr\.py.*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        words = shlex.split(line.partition("     ")[0], comments=True)
        read_options(words[2:])


def test_the_help_names_every_option(capsys):
    import runpy

    assert not runpy.run_path(str(ROOT / "demos" / "demo_gr.py"))["main"](["--help"])
    said = capsys.readouterr().out
    assert not [name for name in OPTIONS if f"--{name}" not in said]
