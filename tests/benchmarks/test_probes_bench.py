"""`benchmarks/probes.py`: its ranks and claims from made-up tables, its edits, and a run in small."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import probes  # noqa: E402
from probes_parts import claims, ranks, sweeps  # noqa: E402
from probes_parts.edits import Edits, EditWay  # noqa: E402

from flux.tiny.edit_pairs import draw_pairs  # noqa: E402


def made_up(prompts=5, pairs=9):
    """Tables in which what moves a layer's pictures is what it keeps, and half of what it loses."""
    rng = np.random.default_rng(0)
    strength = rng.permutation(12) / 12
    moved = strength + rng.normal(0, 1e-3, (prompts, 12))
    edits = np.zeros((pairs, 13, 2))
    edits[:, 1:, 1] = 20 + 5 * strength + rng.normal(0, 1e-3, (pairs, 12))
    edits[:, 1:, 0] = 1 - strength
    return moved, edits


def test_ranks_are_spearmans_over_all_layers_and_single_ones(monkeypatch):
    monkeypatch.setattr(ranks, "RESAMPLED", 30)
    moved, edits = made_up()
    found = ranks.correlations(moved, edits)
    assert [found[f"{what}, all layers"][0] for what in ("kept", "edits lost")] == [1, 1]
    rng = np.random.default_rng(1)
    moved = rng.random((5, 12))
    found = ranks.correlations(moved, edits)
    for words, part in (("all layers", slice(None)), ("single blocks", slice(4, 12))):
        kept = stats.spearmanr(moved.mean(axis=0)[part], edits.mean(axis=0)[1:, 1][part]).statistic
        lost = stats.spearmanr(moved.mean(axis=0)[part], -edits.mean(axis=0)[1:, 0][part]).statistic
        assert found[f"kept, {words}"][0] == pytest.approx(kept, abs=1e-3)
        assert found[f"edits lost, {words}"][0] == pytest.approx(lost, abs=1e-3)
        assert found[f"kept, {words}"][1] <= found[f"kept, {words}"][0] <= found[f"kept, {words}"][2]
    assert ranks.rank(np.ones(4), np.arange(4)) == 0


def test_an_interval_is_that_of_resampled_rows():
    values = np.random.default_rng(2).normal(1, 1, 400)
    mean, low, high = ranks.with_interval(lambda rows: float(rows.mean()), values)
    half = 1.96 * values.std() / 20
    assert mean == pytest.approx(values.mean(), abs=1e-3)
    assert (low, high) == (pytest.approx(mean - half, abs=0.02), pytest.approx(mean + half, abs=0.02))


@pytest.mark.parametrize(
    ("interval", "said"),
    [([1, 0.5, 2], "holds"), ([-1, -2, -0.5], "does not"), ([0.1, -1, 2], "cannot be told")],
)
def test_a_claim_is_judged_by_its_interval(interval, said):
    line = claims.Claim("moons are cheese", "share of cheese", interval).line()
    assert line.startswith(f"moons are cheese: {said} (share of cheese ")


def test_every_claim_is_a_line_and_can_come_out_either_way(monkeypatch):
    monkeypatch.setattr(ranks, "RESAMPLED", 30)
    moved, alone = made_up()
    few = EditWay((1, 11))
    early, always = claims.late_layers(12, 16)
    assert (early, always) == (EditWay((8, 9, 10, 11), (0, 8)), EditWay((8, 9, 10, 11)))
    routed = claims.routed_layers(12, 16)
    assert (routed, claims.routed_layers(60, 50)) == (
        EditWay((6, 7, 8), (0, 8), 0.4),
        EditWay(tuple(range(30, 45)), (0, 25), 0.4),
    )
    for sign in (1, -1):
        tables = {name: {claims.METRIC: moved} for name in ("skip", "text", "position")}
        tables["text"] = {claims.METRIC: moved + sign}
        tables["position"] = {claims.METRIC: -sign * moved}
        together = {claims.METRIC: np.hstack([np.zeros((5, 3)), np.full((5, 3), float(sign))])}
        fresh = {
            way: np.full((6, 2), value * sign, dtype=float)
            for way, value in (
                (few, 0),
                (early, 1),
                (always, 0.5),
                (routed, 0.6),
                (EditWay(tuple(range(12))), 0.7),
            )
        }
        found = list(claims.claims(sweeps.Sweeps(tables, together), alone, fresh, few, 16))
        assert len(found) == 7
        assert all((each.interval[0] > 0) == (sign > 0) for each in found), sign


def test_edits_are_made_once(tmp_path, monkeypatch):
    made, plain = [], Edits._make
    monkeypatch.setattr(
        Edits, "_make", lambda self, pair, ways: (made.append(len(ways)), plain(self, pair, ways))[1]
    )
    pairs = draw_pairs(2, 1)
    ways = [EditWay(), EditWay((1, 8)), EditWay((8,), (0, 1)), EditWay((8,), strength=0.5)]
    assert [way.name for way in ways] == ["none", "1+8", "8@0-1", "8x0.5"]
    first = Edits(tmp_path / "e.json", pairs, 2).of(ways[:2], [0, 1])
    again = Edits(tmp_path / "e.json", pairs, 2).of(ways, [0, 1])
    assert made == [2, 2, 2, 2]
    for way in ways[:2]:
        assert np.array_equal(first[way], again[way])
    # All of them are other pictures.
    assert len({round(float(table[0, 1]), 6) for table in again.values()}) == 4


def test_a_run_in_small(tmp_path, monkeypatch, capsys):
    """Four probes of ten; the same command makes nothing again."""
    monkeypatch.setattr(ranks, "RESAMPLED", 10)
    left = [name for name in sweeps.PROBES if name not in sweeps.CLAIMED]
    monkeypatch.setattr(probes, "TRIED", 3)
    options = ["--out", str(tmp_path), "--prompts", "2", "--pairs", "4", "--steps", "2", "--without", *left]
    options += ["--chosen-on", "1"]
    monkeypatch.setattr(sys, "argv", ["probes.py", *options])
    probes.main()
    out = capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    table = json.loads((folder / "probes.json").read_text())
    assert (table["left out"], table["chosen on"], table["reported on"]) == (left, 1, 2)
    assert len(table["ranks"]) == 4 * len(sweeps.METRICS) and len(table["claims"]) == 7
    assert len(table["sets"]) == 4 + 2 * 4
    assert "| carry, dino-whitened |" in out and "| set default |" in out
    assert (folder / "probes.png").read_bytes()[:4] == b"\x89PNG"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("pictures/*/*.png")}
    monkeypatch.setattr(Edits, "_make", lambda self, pair, ways: pytest.fail("made again"))
    probes.main()
    assert json.loads((folder / "probes.json").read_text()) == table
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("pictures/*/*.png")} == before


@pytest.mark.parametrize(
    "options", [["--prompts", "1"], ["--pairs", "3"], ["--steps", "1"], ["--chosen-on", "-1"]]
)
def test_too_little_is_refused(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["probes.py", "--out", str(tmp_path), *options])
    with pytest.raises(SystemExit) as end:
        probes.main()
    assert end.value.code == 2 and "are the least" in capsys.readouterr().err
