"""`benchmarks/similarity.py`: its truth, its single changes, its rows, and that it goes on."""

import json
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import similarity  # noqa: E402

from flux.tiny.scenes import Scene, sample_scene  # noqa: E402


def differences(pair) -> set[str]:
    """What two scenes differ in, looked up plainly."""
    found = {f.name for f in fields(Scene) if getattr(pair.first, f.name) != getattr(pair.second, f.name)}
    found.discard("things")
    for one, other in zip(pair.first.things, pair.things, strict=True):
        if other is None:
            found.add("gone")
        else:
            found |= {f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)}
    return found


@pytest.mark.parametrize("change", similarity.CHANGES)
def test_a_single_change_changes_nothing_else(change):
    (pairs,) = [similarity.singles(np.random.default_rng(1), 4)[change]]
    allowed = {
        "details": {"seed"},
        "place": {"x", "y"},
        "kind": {"kind", "pose", "letter"},
    }.get(change, {change})
    for pair in pairs:
        assert differences(pair) and differences(pair) <= allowed
        assert similarity.truth(pair) < 1
        if change == "place":
            moved = [(a, b) for a, b in zip(pair.first.things, pair.things, strict=True) if a != b]
            assert all((a.x - b.x) ** 2 + (a.y - b.y) ** 2 >= 16**2 for a, b in moved)


def test_the_truth_is_the_mean_of_two_shares():
    rng = np.random.default_rng(2)
    for _ in range(6):
        pair = similarity.draw_pair(rng)
        a, b = (np.asarray(picture).astype(int) for picture in pair.pictures())
        pixels = float((np.abs(a - b).max(axis=-1) <= 8).mean())
        same = [
            getattr(pair.first, name) == getattr(pair.second, name) for name in ("sky", "ground", "weather")
        ]
        same.append(pair.first.seed == pair.second.seed)
        for one, other in zip(pair.first.things, pair.things, strict=True):
            for name in ("kind", "colour", "size", "hat", "pose", "letter"):
                if getattr(one, name) is not None:
                    same.append(other is not None and getattr(one, name) == getattr(other, name))
            same.append(other is not None and (one.x - other.x) ** 2 + (one.y - other.y) ** 2 < 256)
        assert similarity.truth(pair) == pytest.approx((np.mean(same) + pixels) / 2)
    scene = sample_scene(rng)
    assert similarity.truth(similarity.ScenePair(scene, scene, scene.things)) == 1


def test_pairs_reach_from_equal_to_unlike():
    rng = np.random.default_rng(3)
    truths = [similarity.truth(similarity.draw_pair(rng)) for _ in range(60)]
    assert min(truths) < 0.3 and max(truths) > 0.9


def test_a_row_and_a_run_that_goes_on(tmp_path, monkeypatch, capsys):
    made = []
    plain = similarity.row_of
    monkeypatch.setattr(similarity, "row_of", lambda *rest: (made.append(1), plain(*rest))[1])
    monkeypatch.setattr(similarity, "RESAMPLED", 20)
    monkeypatch.setattr(sys, "argv", ["similarity.py", "--count", "6", "--out", str(tmp_path)])
    similarity.main()
    table = json.loads((tmp_path / "similarity.json").read_text())
    assert len(made) == len(table["rows"]) >= 9 and table["pairs"] == 6
    row = next(row for name, row in table["rows"].items() if name.startswith("dino-whitened, block 1"))
    assert set(row["single changes, share of the range"]) == set(similarity.CHANGES)
    low, high = row["interval"]
    assert low <= row["rank correlation"] <= high
    whole = (tmp_path / "similarity.json").read_bytes()
    gone = dict(table["rows"])
    del gone["ssim"]
    (tmp_path / "similarity.json").write_text(json.dumps({**table, "rows": gone}))
    made.clear()
    similarity.main()
    assert len(made) == 1 and json.loads((tmp_path / "similarity.json").read_bytes()) == json.loads(whole)
    assert "| dino-whitened, block 1" in capsys.readouterr().out


def test_the_rank_correlation_is_spearmans(monkeypatch):
    monkeypatch.setattr(similarity, "RESAMPLED", 5)
    rng = np.random.default_rng(4)
    pairs = [similarity.draw_pair(rng) for _ in range(8)]
    pictures, truths = [pair.pictures() for pair in pairs], [similarity.truth(pair) for pair in pairs]
    scores = {id(pair[0]): float(value) for pair, value in zip(pictures, rng.random(8), strict=True)}

    def measure(some):
        return [scores.get(id(a), 0.5) if a is not b else 1.0 for a, b in some]

    found = similarity.row_of(measure, pictures, truths, {"sky": pictures[:2], "unrelated": pictures[4:6]})
    expected = stats.spearmanr(list(scores.values()), truths).statistic
    assert found["rank correlation"] == pytest.approx(expected, abs=1e-3)
    drops = [1 - np.mean(measure(pictures[start : start + 2])) for start in (0, 4)]
    assert found["single changes, share of the range"]["sky"] == pytest.approx(drops[0] / drops[1], abs=1e-2)
