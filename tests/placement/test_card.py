"""`--dry-run --card`: a line for each way to offload, of a card that need not be here."""

import re

import pytest

from flux.studies.edit import STUDY as EDIT
from flux.studies.similarity.run import describe as describe_comparison
from flux.studies.study import carry_out
from flux.studies.sweep import STUDY as SWEEP

SPEC = (
    '{"source": "a hat", "edits": [{"prompt": "a red hat", "layers": [3]}], "model": "flux-dev", "steps": 2}'
)
LINE = re.compile(
    r"  offload (none|encoders|modulation|stream(?::[0-9]+)?) +([0-9.]+) GB, in (\w+): (fits|does not fit)"
)


def test_an_edit_says_what_fits(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flux.studies.cost.speed", lambda device, dtype: 1e12)
    (tmp_path / "my.json").write_text(SPEC)
    assert (
        carry_out(EDIT, doc="", default=tmp_path / "my.json", argv=["my.json", "--dry-run", "--card", "24"])
        == 0
    )
    out = capsys.readouterr().out
    assert "of a card of 24 GB, in bfloat16, predicted for 2 rows of 1024 x 1024:" in out
    found = {way: (float(size), where, fits) for way, size, where, fits in LINE.findall(out)}
    assert list(found) == ["none", "encoders", "modulation", "stream"]
    assert found["none"][1:] == ("decoding", "does not fit") and found["modulation"][1:] == (
        "sampling",
        "fits",
    )


def test_of_streaming_it_says_how_many_blocks_may_stay(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flux.studies.cost.speed", lambda device, dtype: 1e12)
    (tmp_path / "my.json").write_text(SPEC)
    for gib in ("16", "3"):
        carry_out(EDIT, doc="", default=tmp_path / "my.json", argv=["my.json", "--dry-run", "--card", gib])
    ways = [(way, fits) for way, _, _, fits in LINE.findall(capsys.readouterr().out)]
    large, small = ways[:5], ways[5:]
    assert [way.partition(":")[0] for way, _ in large] == [
        "none",
        "encoders",
        "modulation",
        "stream",
        "stream",
    ]
    assert 0 < int(large[3][0].removeprefix("stream:")) < 57
    assert [fits for _, fits in large] == ["does not fit"] * 3 + ["fits"] * 2
    assert [way for way, _ in small] == ["none", "encoders", "modulation", "stream"]


def test_a_sweep_counts_the_rows_of_a_task(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flux.studies.cost.speed", lambda device, dtype: 1e12)
    words = [
        "--dry-run",
        "--card",
        "16",
        "--prompts",
        '["a", "b", "c"]',
        "--layers",
        "0",
        "--model.name",
        "flux-tiny",
    ]
    (tmp_path / "my.json").write_text("{}")
    assert carry_out(SWEEP, doc="", default=tmp_path / "my.json", argv=["my.json", *words]) == 0
    out = capsys.readouterr().out
    assert "predicted for 3 rows of 128 x 128:" in out and len(LINE.findall(out)) == 4


@pytest.mark.parametrize(
    "words", [["--card", "24"], ["--dry-run", "--card", "big"], ["--dry-run", "--card", "0"]]
)
def test_what_is_no_card(words, tmp_path, capsys):
    (tmp_path / "my.json").write_text(SPEC)
    with pytest.raises(SystemExit) as end:
        carry_out(EDIT, doc="", default=tmp_path / "my.json", argv=[str(tmp_path / "my.json"), *words])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1
    assert "goes with --dry-run, and is a GPU's memory in GB, such as 24" in said


def test_a_source_that_is_kept_on_the_card_is_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flux.studies.cost.speed", lambda device, dtype: 1e12)
    (tmp_path / "my.json").write_text(SPEC)
    sizes = {}
    for place in ("host", "device"):
        argv = ["my.json", "--dry-run", "--card", "24", "--steps", "20", "--kept_source", place]
        assert carry_out(EDIT, doc="", default=tmp_path / "my.json", argv=argv) == 0
        out = capsys.readouterr().out
        sizes[place] = {way: float(size) for way, size, _, _ in LINE.findall(out)}
        kept = float(re.search(r"are kept on the \w+: (\d+) MB", out)[1]) / 1000
    assert kept > 0.5
    assert all(
        sizes["device"][way] - sizes["host"][way] == pytest.approx(kept, abs=0.11) for way in sizes["host"]
    )


@pytest.mark.parametrize("study, words", [(EDIT, []), (SWEEP, ["--prompts", "a", "--layers", "0"])])
def test_what_the_machine_lacks_is_said_beforehand(study, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flux.studies.cost.speed", lambda device, dtype: 1e12)
    (tmp_path / "my.json").write_text('{"source": "a", "edits": ["b"]}' if study is EDIT else "{}")
    argv = ["my.json", "--dry-run", "--model.device", "cpu", "--model.attention", "cudnn", *words]
    assert carry_out(study, doc="", default=tmp_path / "my.json", argv=argv) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "would be refused here: attention cudnn is for NVIDIA's GPUs, and the model is on cpu"
    )


def test_comparing_needs_no_card():
    with pytest.raises(
        ValueError, match="^--card 24: demo 3 compares pictures; ask the demo that makes them$"
    ):
        describe_comparison(None, 24)
