"""Scans of demo 4: each cell is what a run of its own spec makes; tables, plot, resuming, mistakes."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from itertools import product
from pathlib import Path

import pytest
from PIL import Image
from test_demos import assert_whole_run, load_demo, pictures, run_demo

from flux.pictures.metrics import changed_share, psnr
from flux.studies.edit.jobs import way_of
from flux.studies.edit.keeping import held_bytes
from flux.studies.edit.scan import work
from flux.studies.edit.scanning import cells_of
from flux.studies.edit.spec import EditSpec
from flux.studies.pages.plots import Dot, front_of
from flux.studies.reading import SpecError, load_spec

FEW = ["--steps", "2", "--width", "48", "--height", "32", "--checks.dino", "off", "--compare", "false"]
EDITS = [
    "--source",
    "a red hat",
    "--edits",
    json.dumps(["a blue hat", {"prompt": "a boat", "seeds": [0, 3]}]),
]
GRID = {"strength": [0, 1], "layers": [[0], "3,5"]}


@pytest.fixture
def edit(clone, tmp_path, monkeypatch):
    """`edit("a", "--steps", "2")` runs demo 4 into a folder and returns it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.json").write_text("{}")

    def run(name: str, *argv: str) -> Path:
        own = ["--output", name, "--model.weights", str(clone)]
        assert load_demo("demo_4_edit").main(["none.json", *FEW, *argv, *own]) == 0
        return tmp_path / name

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scan.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_each_cell_is_a_run_of_its_own_spec(edit):
    folder = edit("scan", *EDITS, "--scan", json.dumps(GRID))
    record = assert_whole_run(folder)
    assert [cell["title"] for cell in record["cells"]] == [
        "layers 0, strength 0",
        "layers 0, strength 1",
        "layers 3, 5, strength 0",
        "layers 3, 5, strength 1",
    ]
    for number, (layers, strength) in enumerate([([0], 0), ([0], 1), ([3, 5], 0), ([3, 5], 1)], start=1):
        alone = edit(f"{number}", *EDITS, "--layers", json.dumps(layers), "--strength", str(strength))
        own = {name: data for name, data in pictures(alone).items() if "difference" not in name}
        del own["sheet.png"]
        assert pictures(folder / "cells" / f"{number:02}") == own and len(own) == 9

    table = rows(folder)
    assert [(row["cell"], row["edit"], row["seed"]) for row in table[:3]] == [
        ("1", "1", "0"),
        ("1", "2", "0"),
        ("1", "2", "3"),
    ]
    row = table[-1]
    assert (row["layers"], row["strength"], row["prompt"], row["made"]) == ("3, 5", "1", "a boat", "")
    last = folder / "cells" / "04"
    shown = [Image.open(last / name) for name in ("source-seed-3.png", "edit-02-seed-3.png")]
    assert float(row["kept"]) == pytest.approx(psnr(*shown))


def test_guidance_of_a_method_is_its_setting(edit):
    argv = ["--source", "a red hat", "--edits", '["a blue hat"]', "--method", "flowedit"]
    folder = edit("scan", *argv, "--scan.guidance", "[1, 4]", "--mask", "[0, 0, 16, 32]")
    for number, guidance in ((1, "1"), (2, "4")):
        alone = edit(guidance, *argv, "--guidance", guidance, "--mask", "[0, 0, 16, 32]")
        own = {name: data for name, data in pictures(alone).items() if "difference" not in name}
        del own["sheet.png"]
        assert pictures(folder / "cells" / f"{number:02}") == own
    one, two = rows(folder)
    assert one["kept"] != two["kept"] and (one["guidance"], two["guidance"]) == ("1", "4")


MOVED = """
from flux.methods.task import MethodStep


def edit(task, *, size=1.0, share=1.0):
    clean = task.field.of_edits(task.clean)
    change = clean.new_full(clean.shape, size)
    change[:, int(share * clean.shape[1]) :] = 0
    yield MethodStep("edit", 0, 1, 1.0, 0.0, clean + change)
"""


def test_what_is_equal_and_what_changed_everywhere_are_told_apart(edit, tmp_path):
    (tmp_path / "moved.py").write_text(MOVED)
    argv = ["--source", "a red hat", "--edits", '["a blue hat"]', "--method", "moved:edit", "--batch", "1"]
    folder = edit("scan", *argv, "--scan.method", '{"size": [0, 9], "share": [1, 0.5]}')
    table, cells = rows(folder), json.loads((folder / "run.json").read_text())["cells"]
    assert [row["outside"] for row in (table[0], table[2])] == ["1", "0"]
    assert [row["kept"] for row in table[:3]] == ["", "", ""] and float(table[3]["kept"]) > 0
    assert [cell["kept"] for cell in cells[:3]] == [60, 60, None]
    page = (folder / "index.html").read_text()
    for cell, words in ((1, "equal, 0% changed"), (3, "changed everywhere, ")):
        assert re.search(rf"{cell}: size \d, share 1;\s+{words}", page)
    # What is looked at is what was pasted, as in a run of the cell's own spec.
    own = ["--method.size", "9", "--method.share", "0.5"]
    (alone,) = json.loads((edit("alone", *argv, *own) / "run.json").read_text())["edits"]
    assert alone["pasted"] and float(table[3]["changed"]) == pytest.approx(alone["changed"])
    shown = [Image.open(folder / "cells/04" / name) for name in ("source.png", "edit-01.png")]
    assert changed_share(*shown, 8) != pytest.approx(alone["changed"])
    assert float(table[3]["kept"]) == pytest.approx(alone["kept_outside"])


def test_settings_of_a_method_are_gone_through(edit):
    argv = ["--source", "a red hat", "--edits", '["a blue hat"]', "--method", "stable-flow"]
    values = {"pinning": ["right", "free"], "guidance": [1, 4]}
    folder = edit("scan", *argv, "--scan.method", json.dumps(values), "--scan.layers", "[[0]]")
    record = assert_whole_run(folder)
    assert record["cells"][3]["title"] == "pinning free, guidance 4, layers 0"
    for number, (pinning, guidance) in enumerate(product(*values.values()), start=1):
        own = [*argv, "--method.pinning", pinning, "--method.guidance", str(guidance), "--layers", "[0]"]
        made = {name: data for name, data in pictures(edit(f"{number}", *own)).items()}
        own = {name: data for name, data in made.items() if "difference" not in name and name != "sheet.png"}
        assert pictures(folder / "cells" / f"{number:02}") == own
    table = rows(folder)
    assert [(row["method.pinning"], row["method.guidance"], row["layers"]) for row in table] == [
        *(("right", "1", "0"), ("right", "4", "0"), ("free", "1", "0"), ("free", "4", "0"))
    ]
    # What the run leaves makes it again.
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["scan"] == {"layers": [[0]], "method": values}
    again = load_spec(EditSpec, None, spec)
    assert [cell.title for cell in cells_of(again)] == [cell["title"] for cell in record["cells"]]


def test_a_killed_scan_is_finished_by_the_next(edit, clone, tmp_path):
    (tmp_path / "none.json").write_text("{}")
    argv = [*EDITS, "--scan", json.dumps({**GRID, "strength": [0, 0.2, 0.5, 1]})]
    folder = tmp_path / "killed"
    own = ["none.json", *FEW, "--model.weights", str(clone), "--output", str(folder)]
    running = run_demo(
        "edit", *argv, *own, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (folder / "cells" / "02" / "source.png").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (folder / "cells" / "08").exists()
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert load_demo("demo_4_edit").main([*argv, *own]) == 0
    assert_whole_run(folder)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert pictures(folder) == pictures(edit("whole", *argv))


KV = {"method": "kv-edit", "mask": [0, 0, 64, 64]}


def spec_of(**changes) -> EditSpec:
    whole = {"source": "a hat", "edits": ["a boat"], **changes}
    return load_spec(EditSpec, None, whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scan": {}}, "scan = {"),
        ({"scan": {"strength": [0, 0]}}, "scan.strength[1] = 0.0: stands here twice"),
        ({"scan": {"strength": [2]}}, "scan.strength[0] = 2: must be between 0 and 1"),
        ({"scan": {"strength": ["linaer"]}}, 'scan.strength[0] = "linaer": must be a number'),
        ({"scan": {"layers": [[99]]}}, "scan.layers[0][0] = 99: flux-tiny has layers 0 to 11"),
        ({"scan": {"guidance": [1]}, "model": "flux-schnell"}, "flux-schnell takes no guidance"),
        ({"scan": {"strenght": [1]}}, "scan.strenght = [1]: unknown key, did you mean strength?"),
        ({"scan": {"strength": [i / 500 for i in range(500)]}}, "500 cells are more than the 400 of one run"),
        (
            {"scan": {"strength": [1]}, "chain": True},
            "scan: goes through edits by themselves: leave chain out",
        ),
        (
            {"scan": {"strength": [1]}, "edits": [{"prompt": "x", "strength": 0.5}]},
            "scan.strength: the edit 'x' has its own strength, which a scan keeps",
        ),
        (
            {"scan": {"method": {"start": [0, 2]}}, "method": "flowedit"},
            "scan.method.start[1] = 2: must be between 0 and 1",
        ),
        (
            {"scan": {"method": {"stat": [0]}}, "method": "flowedit"},
            "scan.method.stat[0] = 0: no setting of flowedit: did you mean start?",
        ),
        (
            {"scan": {"method": {"pinning": ["right", "left"]}}, "method": "stable-flow"},
            'scan.method.pinning[1] = "left": ',
        ),
        (
            {"scan": {"method": {"start": 0}}, "method": "flowedit"},
            "scan.method.start = 0: must be a list of",
        ),
        (
            {"scan": {"method": {"start": [0, 0]}}, "method": "flowedit"},
            "scan.method.start[1] = 0: stands here twice",
        ),
        (
            {"scan": {"method": {"guidance": [1]}, "guidance": [2]}, "method": "flowedit"},
            "scan.method.guidance: stands in scan.guidance too",
        ),
        ({"scan": {"method": {"start": [0]}}}, "scan.method: is for edits by a method: name one"),
        (
            {"scan": {"layers": [[0]]}, "method": "rf-inversion"},
            "scan.layers: rf-inversion never looks at its source in layers",
        ),
        (
            {"scan": {"strength": [0.5]}, "method": "noise"},
            "scan.strength: noise never looks at its source in layers; its own is scan.method.strength",
        ),
        (
            {
                "scan": {"layers": [[0], [1]]},
                "edits": ["a boat", {"prompt": "x", "roles": [{"layers": [0]}]}],
            },
            "scan.layers: roles say in which layers the edit 'x' looks: leave one of both out",
        ),
        (
            {"scan": {"strength": [0, 1]}, "roles": [{"layers": [0], "strength": 1}]},
            "scan.strength: all roles of the edit 'a boat' have their own: leave it out, or theirs",
        ),
        (
            {"scan": {"guidance": [1, 2]}, "method": {"name": "mine:half", "guidance": 2}},
            "scan.guidance = [1.0, 2.0]: is a setting of methods of the table; of your own it is scan.method",
        ),
        (
            {"scan": {"strength": [1, "linear"]}, "kept_source": "auto"},
            "scan.strength: is for edits beside their source, and one that is kept stands beside none",
        ),
        (
            {
                "scan": {"method": {"background": [1, 2]}},
                **KV,
                "edits": [{"prompt": "x", "regions": [{"prompt": "y", "where": [0, 0, 64, 64]}]}],
            },
            "scan.method.background = [1, 2]: weighs tokens in attention, as regions do: leave one of both",
        ),
        (
            {"scan": {"method": {"background": [1, 2]}}, **KV, "outside": [0]},
            "scan.method.background = [1, 2]: weighs a look whose place layers, outside and roles take",
        ),
        (
            {"scan": {"layers": [[0], [1]]}, **KV, "method": {"name": "kv-edit", "background": 2}},
            "scan.layers: take the place of the look that background weighs: leave one of both out",
        ),
    ],
)
def test_a_wrong_scan_is_said_in_one_line(changes, said):
    with pytest.raises(SpecError) as error:
        spec_of(**changes)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_scan_goes_through_strengths_that_roles_leave_out():
    roles = [{"layers": [0], "strength": 1}, {"layers": [1]}]
    cells = cells_of(spec_of(scan={"strength": [0, 0.5]}, roles=roles))
    assert [[role.strength for role in way_of(cell.spec, cell.spec.edits[0]).roles] for cell in cells] == [
        [1, 0],
        [1, 0.5],
    ]


def test_cells_go_through_all_values():
    spec = spec_of(scan={"strength": [0.25, 1], "guidance": [1, 2, 3]})
    assert [(cell.spec.guidance, cell.spec.strength) for cell in cells_of(spec)] == [
        (guidance, strength) for guidance in (1, 2, 3) for strength in (0.25, 1)
    ]
    assert cells_of(spec)[0].title == "guidance 1, strength 0.25"
    assert all(cell.spec.scan is None for cell in cells_of(spec))
    every = cells_of(spec_of(scan={"layers": ["all", [0, 2, 3, 4, 7, 8]]}))
    assert [cell.title for cell in every] == ["layers 0-11", "layers 0, 2-4, 7, 8"]


def test_a_dry_run_says_what_varies():
    scan = {"method": {"start": [0, 0.5], "last": [0, 0.25]}, "guidance": [1, 2]}
    notes = "\n".join(work(spec_of(method="flowedit", steps=8, scan=scan)).notes)
    assert "  start varies, last varies, draws 1, source_guidance 1.5, guidance varies\n" in notes
    assert "  evaluations of one row an edit: 6 to 16, by cell" in notes
    scan = {"method": {"integrator": ["euler", "midpoint"]}}
    notes = "\n".join(work(spec_of(method="stable-flow", steps=8, scan=scan)).notes)
    assert "evaluations of one row an edit: 24 to 48, by cell" in notes
    assert "before editing, 16 to 32, by cell a source" in notes
    same = work(spec_of(method="flowedit", steps=8, layers="all", scan={"strength": [0, 1]})).notes
    assert "  evaluations of one row an edit: 2 T (1 - start) = 14, T being 8 steps" in same


def test_what_cells_keep_of_their_source_is_held_for_all():
    scan = {"layers": [[0], [1]]}
    one, other = (held_bytes(spec_of(kept_source="device", layers=layers)) for layers in scan["layers"])
    assert work(spec_of(kept_source="device", scan=scan)).held == one + other > one > 0


def test_a_spec_without_a_scan_is_the_same_run_as_before():
    assert not {"scan", "chain", "watch"} & spec_of().recipe().keys()
    assert "after" not in spec_of().recipe()["edits"][0]


def test_the_front_of_a_plot():
    dots = [Dot(*place, str(i), "") for i, place in enumerate([(1, 1), (2, 0.5), (1, 0.5), (2, 0.4), (1, 1)])]
    assert [dot.label for dot in front_of(dots)] == ["0", "1", "4"]
