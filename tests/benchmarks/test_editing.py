"""The benchmark of edits: what it measures, what rows share, and that a kill loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_demos import small_models

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import editing  # noqa: E402
from editing_parts import making, planning, table, tuning  # noqa: E402
from editing_parts.beside import beside  # noqa: E402
from editing_parts.catalogue import catalogue  # noqa: E402
from editing_parts.measuring import MEASURES, TINY, Yardstick, patch_similarity, psnr_at, ssim_at  # noqa: E402
from editing_parts.remembering import Remembering  # noqa: E402
from editing_parts.rows import STEPS, Row, Run, grouped  # noqa: E402
from editing_parts.running import Bench, Folder  # noqa: E402
from editing_parts.table import Result  # noqa: E402
from editing_parts.tasks import KINDS, draw  # noqa: E402

from flux.hooks import Hooks  # noqa: E402
from flux.methods import defaults, method_record  # noqa: E402
from flux.methods.masks import own_mask  # noqa: E402
from flux.tiny.judge import load_judge  # noqa: E402
from flux.util import TINY_WEIGHTS, configs  # noqa: E402

FLOW = "flowedit"


@pytest.fixture(scope="module")
def photos():
    """One pair of each kind, as photographs, on a model with random weights."""
    return draw(small_models(), "photos", "tuning", len(KINDS), 2)


@pytest.fixture(scope="module")
def yardstick(photos):
    judge = load_judge(TINY_WEIGHTS / "judge.safetensors")
    return Yardstick.of(photos, judge, patch_similarity(TINY_WEIGHTS / "dino"))


def test_the_right_answer_is_right_in_every_column(photos, yardstick):
    figures = yardstick.measure(photos.targets)
    assert np.mean(figures["made"]) >= 0.9 and np.mean(figures["others"]) >= 0.98
    for name, best in (("equal", 60), ("ssim", 1), ("truth", 60), ("inside", 60)):
        known = np.array(figures[name])[~np.isnan(figures[name])]
        assert len(known) >= 6 and known == pytest.approx(best, abs=1e-5), name
    assert np.nanmin(figures["dino"]) > 0.8  # a patch of DINO sees a little of the others


def test_the_photo_itself_keeps_all_and_makes_nothing(photos, yardstick):
    figures = yardstick.measure(photos.photos)
    assert sum(figures["made"]) <= 1 and np.nanmin(figures["kept"]) == 60
    assert np.nanmin(figures["dino"]) > 0.99999
    assert np.nanmax(figures["inside"]) < 20 and all(np.less(figures["inside"], figures["truth"]))


def test_what_an_edit_changes_elsewhere_counts_outside_and_not_inside(photos, yardstick):
    spoilt = photos.targets.copy()
    spoilt[~photos.differs] = 255 - spoilt[~photos.differs]
    figures, right = yardstick.measure(spoilt), yardstick.measure(photos.targets)
    assert figures["inside"] == right["inside"]
    assert np.nanmax(figures["equal"]) < 20 and np.nanmax(figures["ssim"]) < 0.5
    assert max(figures["kept"]) < 20
    assert figures["below"] == pytest.approx(yardstick.ceiling - figures["kept"], nan_ok=True)


def test_below_is_held_against_the_autoencoder_alone(photos, yardstick):
    figures = yardstick.measure(photos.rebuilt)
    assert figures["below"] == [0] * len(photos) and figures["kept"] == pytest.approx(yardstick.ceiling)
    assert np.nanmean(figures["truth"]) < 20 and sum(figures["made"]) < len(photos)


def test_psnr_and_ssim_look_only_where_they_are_told():
    a = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    b, left = a.copy(), np.zeros((32, 32), dtype=bool)
    b[:, 16:] = 0
    left[:, :16] = True
    assert psnr_at(a, b, left) == 60 and ssim_at(a, b, left) == pytest.approx(1)
    error = np.square(a[:, 16:].astype(float)).mean() / 255**2
    assert psnr_at(a, b, ~left) == pytest.approx(-10 * np.log10(error))
    assert np.isnan(psnr_at(a, b, np.zeros_like(left)))


def result(name, **figures):
    return Result(name, "", "", {key: np.array(values, dtype=float) for key, values in figures.items()}, {})


def test_intervals_are_of_pairs_and_differences_are_paired():
    rng = np.random.default_rng(1)
    hard = rng.normal(20, 5, 99)  # pairs differ far more than rows do
    one, other = result("one", truth=hard), result("other", truth=hard + 0.2 + rng.normal(0, 0.1, 99))
    mean, low, high = table.interval(one.figures["truth"])
    assert mean == pytest.approx(hard.mean()) and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * hard.std() / 99**0.5, rel=0.1)
    mean, low, high = table.against(other, one, TINY.columns)["truth"]
    assert mean == pytest.approx(0.2, abs=0.03) and low > 0 and high - low < 0.06
    assert table.interval(np.array([np.nan])) is None
    fewer = result("fewer", truth=hard[:44] + 1)
    assert table.against(fewer, one, TINY.columns)["truth"] == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("made", "inside", "winner"),
    [
        ((0.1, 0.05, 0.15), (0.1, -0.2, 0.4), ["made"]),
        ((0.1, 0.05, 0.15), (-0.5, -0.9, -0.1), []),
        ((0.01, -0.02, 0.04), (0.1, -0.2, 0.4), []),
        ((-0.01, -0.03, 0.01), (0.5, 0.1, 0.9), ["inside"]),
    ],
)
def test_a_row_beats_the_default_only_beyond_the_interval(made, inside, winner):
    assert table.beats({"made": made, "inside": inside}, TINY.decisive) == winner


def test_of_generated_pictures_what_is_kept_decides():
    default = result("default", made=[0.5] * 9, kept=[40.0] * 9)
    rows = [
        default,
        result("loses", made=[1.0] * 9, kept=[30.0] * 9),
        result("keeps", made=[0.5] * 9, kept=[50.0] * 9),
    ]
    records = table.summary(rows, "default", [], MEASURES["generated"])
    assert [record.get("beats default in") for record in records] == [None, [], ["kept"]]


def test_a_row_that_knows_the_answer_beats_nobody():
    default = result("default", made=[0.0] * 9, inside=[10.0] * 9)
    better = result("better", made=[1.0] * 9, inside=[10.0] * 9)
    records = table.summary([default, better, replace(better, name="told", bound=True)], "default", [], TINY)
    assert [record.get("beats default in") for record in records] == [None, ["made"], []]


def test_figures_of_kinds_are_those_of_their_pairs():
    row = result("row", made=[1, 0, 1, 1], kept=[10, np.nan, 20, np.nan])
    found = table.by_kind(row, ["sky", "pose", "sky", "pose", "unseen"], TINY.by_kind)
    assert found == {"sky": {"made": 1, "kept": 15}, "pose": {"made": 0.5}, "unseen": {}}


def test_generated_sources_come_from_their_noise_and_are_held_against_themselves(yardstick):
    models = small_models()
    tasks = draw(models, "generated", "tuning", 2, 3)
    *_, last = beside(tasks.open(models, slice(None), 3))
    torch.testing.assert_close(last.source, tasks.clean, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(last.edit, last.source, atol=1e-2)
    figures = Yardstick.of(tasks, yardstick.judge, yardstick.alike).measure(tasks.photos)
    assert figures["kept"] == [60, 60] and "truth" not in figures and "below" not in figures


def test_rows_of_one_run_share_its_velocities(photos, tmp_path):
    calls, models = [], small_models()
    models.flow.register_forward_hook(lambda *_: calls.append(1))
    run = Run(FLOW, {"start": 0.5})
    rows = [
        Row("plain", run, pairs=2),
        Row("blended", run, blend=0.2, pairs=2),
        Row("pasted", run, paste=True, pairs=1),
    ]
    assert [len(group) for group in grouped([*rows, Row("other", Run(FLOW), pairs=1)])] == [3, 1]
    bench = Bench(models, lambda: photos, lambda _: Still(), rebuild=False)
    bench.make(Folder(tmp_path), rows, 2, say=lambda _: None)
    assert len(calls) == 1  # one step, source and edit in one batch
    assert all(Folder(tmp_path).done(row) for row in rows)
    assert not Folder(tmp_path).done(replace(rows[0], threshold=0.3))
    assert Folder(tmp_path).done(replace(rows[0], about="other words"))
    bench.make(Folder(tmp_path), [replace(rows[0], blend=0.1), *rows[1:]], 2, say=lambda _: None)
    assert len(calls) == 1  # latents are kept


class Still:
    """Measures nothing."""

    def measure(self, pictures):
        return {"made": [1.0] * len(pictures)}


def test_a_run_behind_its_own_mask_is_another_one_when_that_is_found_otherwise(monkeypatch):
    behind, plain = Run("flowedit", mask="own"), Run("flowedit")
    before = behind.key, plain.key
    monkeypatch.setitem(own_mask.__kwdefaults__, "whole", 0.5)
    assert behind.key != before[0] and plain.key == before[1]


def test_what_was_asked_before_is_remembered_unless_hooks_take_part():
    models, calls = small_models(), []
    models.flow.register_forward_hook(lambda *_: calls.append(1))
    flow = Remembering(models.flow)
    given = {
        "img": torch.randn(1, 6, 64),
        "img_ids": torch.zeros(1, 6, 3),
        "txt": torch.randn(1, 4, 48),
        "txt_ids": torch.zeros(1, 4, 3),
        "y": torch.randn(1, 40),
        "timesteps": torch.ones(1),
        "guidance": torch.ones(1),
    }
    first, again = flow(**given), flow(**given)
    assert torch.equal(first, again) and len(calls) == 1 and flow.saved > 0
    other = flow(**given | {"guidance": torch.full((1,), 3.0)})
    assert not torch.equal(first, other) and len(calls) == 2
    flow(hooks=Hooks(skip="double.0"), **given)
    flow(hooks=Hooks(skip="double.0"), **given)
    assert len(calls) == 4
    small = Remembering(models.flow, room=first.nbytes)
    for guidance in (1.0, 2.0, 1.0):
        small(**given | {"guidance": torch.full((1,), guidance)})
    assert len(calls) == 7  # there was room for one


def test_every_row_of_the_table_runs(photos):
    models = small_models()
    for group in grouped(catalogue(configs["flux-tiny"])):
        if group[0].run is None:
            continue
        outcome = making.run_over(models, photos.first(1), group[0].run, 4)
        for row in group:
            pictures, share = making.finish(models, photos.first(1), outcome, row)
            assert pictures.shape == (1, 128, 128, 3) and 0 <= share[0] <= 1, row.name
        assert outcome.evaluations[0] > 0


def test_outside_the_mask_a_pasted_row_is_the_photo(photos):
    models, few = small_models(), photos.first(2)
    run = Run(FLOW, {"start": 0.5}, mask="true", operators=(("masked", {}),))
    outcome = making.run_over(models, few, run, 4)
    pasted, _ = making.finish(models, few, outcome, Row("pasted", run, paste=True))
    plain, _ = making.finish(models, few, outcome, Row("plain", run))
    wide = torch.nn.functional.max_pool2d(torch.tensor(few.differs).float(), 33, 1, 16)
    far = ~wide.bool().numpy()
    assert far.any() and np.array_equal(pasted[far], few.photos[far])
    assert not np.array_equal(plain[far], few.photos[far])


def test_the_plan_knows_evaluations_and_shares_them(photos):
    bench = Bench(small_models(), lambda: photos, lambda _: Still())
    run = Run(FLOW, {"start": 0.25})
    rows = [Row("a", run, pairs=4), Row("b", run, paste=True, pairs=4)]
    rows += [Row("c", replace(run, operators=(("gate", {}),)), pairs=3)]  # whose first step is the same
    text = planning.plan(bench, rows, 8)
    assert "4 pairs x  12 evaluations  a; b" in text and "3 pairs x  10 evaluations  c" in text
    assert text.count(" min ") == 3


def test_tuning_takes_the_nearest_of_those_that_make_edits():
    rows = [
        result("keeps: 1", made=[0, 0, 1, 1], truth=[30] * 4),
        result("makes: 1", made=[1, 1, 1, 1], truth=[20, 22, 20, 22]),
        result("makes: 2", made=[1, 1, 1, 1], truth=[25, 23, 25, 23]),
    ]
    assert tuning.best(rows).name == "makes: 2"


def test_a_grid_is_all_combinations_and_goes_into_rows_of_the_table(tmp_path):
    spec = configs["flux-tiny"]
    axes = {"layers": ("vital", ""), "guidance": (1.0, 2.0, 3.0), "integrator+nudge": (("midpoint", 1.0),)}
    grid = tuning.candidates(spec, "stable-flow", axes, 33)
    assert len({row.name for row in grid}) == 6 and all(row.paste and row.pairs == 33 for row in grid)
    results = {row.name: result(row.name, made=[1], truth=[i]) for i, row in enumerate(grid)}
    chosen = dict(tuning.choices({"stable-flow": grid[:2]}, results))
    (tmp_path / "best.json").write_text(json.dumps({"methods": chosen}))
    tuned = {row.name: row for row in catalogue(spec, tmp_path / "best.json")}["stable-flow, tuned"]
    assert tuned.run.key == grid[1].run.key and tuned.run.look[0]["layers"] == [0, 3]
    assert tuned.run.settings == {"guidance": 2.0, "integrator": "midpoint", "nudge": 1.0}
    assert chosen["stable-flow"]["pairs"] == 33
    # On another model these are nobody's best.
    for model, there in (("flux-tiny", True), ("flux-dev", False)):
        (tmp_path / "best.json").write_text(json.dumps({"model": model, "methods": chosen}))
        names = [row.name for row in catalogue(spec, tmp_path / "best.json")]
        assert ("stable-flow, tuned" in names) == there


def test_ours_is_tuned_in_its_own_number_of_steps():
    (row,) = tuning.candidates(configs["flux-tiny"], "gentle", {"limit": (0.8,)}, 9)
    assert row.run.steps == method_record("gentle").steps != STEPS


def test_every_grid_is_of_settings_that_its_method_has():
    for method, axes in tuning.GRIDS.items():
        names = {name for names in axes for name in names.split("+")} - {"layers"}
        assert names <= set(defaults(method)), method


def test_a_row_that_is_not_there_is_said_in_one_line(capsys):
    assert editing.main(["--rows", "flowedit", "no such row"]) == 2
    assert capsys.readouterr().err.startswith("editing.py: --rows 'no such row': there is no such row")


SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch
torch.set_num_threads(1)
import editing
from helpers_demos import small_models
editing.load_models = lambda *_, **__: small_models()
raise SystemExit(editing.main(sys.argv[3:]))
"""
ROWS = ("the photo", "flowedit", "1 / 1", "gated, blended at 0.2", "gated, pasted at 0.2")


def start(folder: Path) -> subprocess.Popen:
    options = ["--pairs", "2", "--steps", "3", "--out", str(folder), "--device", "cpu", "--rows", *ROWS]
    command = [sys.executable, "-c", SCRIPT, str(BENCHMARKS), str(BENCHMARKS.parent / "tests"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that hold seconds."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.parent.name != "costs"]
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in files if f.name not in ("table.md", "page.html")
    }


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_table_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    whole = start(tmp_path / "whole")
    assert whole.communicate()[0] and whole.returncode == 0
    run = start(tmp_path / "killed")
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed/rows/flowedit.json").exists():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    done = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "killed/rows").iterdir()}
    assert len(done) < len(ROWS) and not (tmp_path / "killed/table.json").exists()
    again = start(tmp_path / "killed")
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    kept = {name: (tmp_path / "killed/rows" / name).stat().st_mtime_ns for name in done}
    assert kept == done
    records = json.loads((tmp_path / "whole/table.json").read_text())["rows"]
    assert [record["name"] for record in records] == list(ROWS)
    page = (tmp_path / "whole/page.html").read_text()
    assert all(name in page for name in ROWS) and "<svg" in page


def test_a_folder_of_another_table_is_refused(tmp_path):
    Folder(tmp_path).begin({"split": "test"})
    Folder(tmp_path).begin({"split": "test"})
    with pytest.raises(ValueError, match="holds a table with split 'test', not 'tuning'"):
        Folder(tmp_path).begin({"split": "tuning"})
