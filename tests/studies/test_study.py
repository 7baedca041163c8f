"""The studies as records, and the way from a command to an exit code."""

import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

from flux.studies import edit, similarity, sweep, text, timesteps
from flux.studies.study import Study, carry_out

SPEC = Path(__file__).resolve().parents[2] / "json" / "test.json"


STUDIES = (text, timesteps, sweep, similarity, edit)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.__name__)
def test_the_names_of_a_study_are_functions(study):
    names = [study.STUDY.spec, study.STUDY.make, study.STUDY.describe, *filter(None, [study.STUDY.check])]
    assert all(callable(resolve_name(name)) for name in names)


def study_of(**names: str) -> Study:
    here = {name: f"{__name__}:{function}" for name, function in names.items()}
    return Study(
        "flux.studies.text.spec:TestSpec",
        **{"make": f"{__name__}:fails", "describe": f"{__name__}:fails", **here},
    )


def fails(spec):
    raise ValueError("odd\nand more")


def is_stopped(spec):
    raise KeyboardInterrupt


def is_short_of_cells(spec):
    return 1


def is_described(spec):
    return "would do it"


@pytest.mark.parametrize(
    "names, argv, code, said",
    [
        ({}, [], 2, "odd and more\n"),
        ({"check": "fails", "make": "is_stopped"}, [], 2, "odd and more\n"),
        ({"make": "is_stopped"}, [], 130, "stopped; the same command goes on from here\n"),
        ({"make": "is_short_of_cells"}, [], 1, ""),
        ({"describe": "is_described"}, ["--dry-run"], 0, ""),
        ({"make": "is_described_nowhere"}, ["--steps", "no"], 2, "--steps"),
    ],
)
def test_how_a_command_ends(names, argv, code, said, capsys):
    try:
        ended = carry_out(study_of(**names), doc="What it does.", default=SPEC, argv=argv)
    except SystemExit as end:
        ended = end.code
    out, err = capsys.readouterr()
    assert ended == code and err.startswith(said) and bool(err) == bool(said)
    assert out == ("would do it\n" if argv == ["--dry-run"] else "")


def test_a_page_that_could_not_be_written_is_told_of_before_the_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert carry_out(study_of(make="is_stopped"), doc="", default=SPEC, argv=[]) == 2
    assert capsys.readouterr().err == 'pages need Jinja2: pip install "jinja2>=3.1"\n'
