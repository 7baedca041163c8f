"""Demo 3 with a second sweep beside the first."""

import json

import pytest
from helpers_sweeps import draw_sweep, save_dino
from scipy import stats
from test_demos import load_demo
from test_similarity import assert_whole, rows

from flux.studies.pages import plots

MOVES = {"skip": {0: 0.8, 1: 0.1, 2: 0.5, 3: 0.3}, "mean": {0: 0.1, 1: 0.2, 2: 0.9, 3: 0.4}}


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> str:
    return str(save_dino(tmp_path_factory.mktemp("dino")))


@pytest.fixture
def demo(dino, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = load_demo("demo_3_dino")

    def run(*argv: str, output: str = "out") -> int:
        return module.main([*argv, "--model", dino, "--device", "cpu", "--output", output])

    return run


def draw(folder, probe, **more):
    groups = [(layer,) for layer in MOVES[probe]]
    return draw_sweep(
        folder,
        groups=groups,
        prompts=3,
        probe=probe,
        change=lambda cell: MOVES[probe][cell.part.layers[0]] if cell.part else 0.0,
        **more,
    )


@pytest.mark.parametrize(("this", "that"), [("mean", "skip"), ("skip", "mean")])
def test_layers_by_two_sweeps(demo, tmp_path, capsys, this, that):
    draw(tmp_path / "skip", "skip")
    draw(tmp_path / "mean", "mean")
    assert demo("--sweep", this, "--beside", that) == 0
    out = capsys.readouterr().out
    record = assert_whole(tmp_path / "out")
    table = rows(tmp_path / "out" / "beside.csv")
    assert [row["layers"] for row in table] == ["0", "1", "2", "3"]
    figures = {side: [float(row[side]) for row in table] for side in (this, that)}
    # Each sweep by its own similarity: what its page alone would say.
    assert demo("--sweep", that, "--beside", this, output="other") == 0
    for row, again in zip(table, rows(tmp_path / "other" / "beside.csv"), strict=True):
        for side in (this, that):
            assert float(row[side]) == pytest.approx(float(again[side]), abs=1e-5)
    rank = stats.spearmanr(figures[that], figures[this]).statistic
    assert f"the rank correlation of {this} with it is {rank:.2f} over 4 layers" in out
    page = (tmp_path / "out" / "index.html").read_text()
    assert "beside.png" in page and "rank correlation" in page
    assert {name.split(", ")[-1] for name in record["computed"]} == {"dino", "dino-whitened"}


def test_a_change_of_the_second_sweep_makes_the_run_again(demo, tmp_path, capsys):
    draw(tmp_path / "skip", "skip")
    other = draw(tmp_path / "mean", "mean")
    assert demo("--sweep", "skip", "--beside", "mean") == 0
    assert demo("--sweep", "skip", "--beside", "mean") == 0
    assert "made already" in capsys.readouterr().out
    (other / "pictures" / "0001" / "mean-02.png").unlink()
    assert demo("--sweep", "skip", "--beside", "mean") == 0
    out = capsys.readouterr().out
    assert "it is made again" in out and len(rows(tmp_path / "out" / "beside.csv")) == 4


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--sweep", "skip", "--beside", "skip"], "is the sweep itself: name another one"),
        (["--sweep", "skip", "--beside", "none"], "no such file or folder"),
        (["--sweep", "skip", "--beside", "empty"], "empty"),
        (["--sweep", "skip", "--beside", "dev"], "is a sweep of flux-dev, and"),
        (["--sweep", "skip", "--beside", "heads"], "has no layer as a whole that"),
        (["--pictures", "skip", "--beside", "mean"], "beside"),
    ],
)
def test_mistakes_end_in_one_line(demo, tmp_path, capsys, argv, says):
    draw(tmp_path / "skip", "skip")
    draw(tmp_path / "mean", "mean")
    draw(tmp_path / "dev", "mean", model="flux-dev")
    draw_sweep(tmp_path / "heads", prompts=2, probe={"name": "mean", "heads": [0]})
    (tmp_path / "empty").mkdir()
    try:
        code = demo(*argv)
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and says in err and "Traceback" not in err, err


def test_a_spec_without_it_is_the_run_it_was(demo, tmp_path):
    draw(tmp_path / "skip", "skip")
    assert demo("--sweep", "skip") == 0
    recipe = json.loads((tmp_path / "out" / "spec.json").read_text())
    assert "beside" not in recipe and "block" not in recipe


def test_a_long_label_of_an_axis_is_folded_and_a_short_one_stays():
    long = "carry: mean whitened DINO similarity, patch by patch gained to the source"
    assert plots._folded(long).split("\n") == [
        "carry: mean whitened DINO similarity, patch by patch gained",
        "to the source",
    ]
    assert plots._folded("importance: 1 − mean DINO similarity", 40) == "importance: 1 − mean DINO similarity"
