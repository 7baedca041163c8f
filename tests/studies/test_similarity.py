"""Demo 3 from command to page, on sweeps and pictures that are drawn, not sampled."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from helpers_demos import save_clone
from helpers_sweeps import draw_sweep, drawn, save_clip, save_dino
from PIL import Image
from scipy import stats
from test_demos import files, load_demo
from test_pages import Tags

import flux
from flux.models import configs
from flux.pictures.features import Clip, Dino
from flux.pictures.metrics import ssim
from flux.pictures.patches import Whitening, alike
from flux.studies.edit.requests import edit_of
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec
from flux.studies.similarity.patchwise import HELD, Tokens, in_tiles
from flux.studies.sweep.cells import Cell, CellPart
from flux.studies.sweep.folder import read_sweep
from flux.studies.vital import read_vital_set

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demos" / "demo_3_dino.py"
PICTURES = 5


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, str]:
    return {
        "dino": str(save_dino(tmp_path_factory.mktemp("dino"))),
        "clip": str(save_clip(tmp_path_factory.mktemp("clip"))),
    }


@pytest.fixture
def demo(models, tmp_path, monkeypatch):
    """`demo("--by", "gap")` runs demo 3 in an empty working folder and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    module = load_demo("demo_3_dino")

    def run(*argv: str) -> int:
        model = [] if "--model" in argv else ["--model", models["dino"]]
        return module.main([*argv, *model, "--device", "cpu"])

    return run


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """How many pictures went through a model at a time."""
    counts = []
    for kind in (Dino, Clip):
        embed = kind.embed
        monkeypatch.setattr(
            kind,
            "embed",
            lambda self, images, embed=embed: (counts.append(len(images)), embed(self, images))[1],
        )
    return counts


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def assert_whole(folder: Path) -> dict:
    """The page is well-formed, what it links to is there, and the record is complete."""
    for link in Tags((folder / "index.html").read_text()).links:
        assert (folder / unquote(link)).is_file(), link
    for file in folder.rglob("*.png"):
        with Image.open(file) as image:
            image.load()
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] and record["seconds"]["all"] > 0
    return record


# A sweep


def test_a_sweep(demo, models, tmp_path, capsys):
    groups = [(0,), (1,), (4,), (11,), (2, 3)]
    strength = {(): 0.0, (0,): 0.9, (1,): 0.2, (4,): 0.7, (11,): 0.05, (2, 3): 0.8}
    sweep = draw_sweep(
        tmp_path / "s",
        **{"groups": groups, "prompts": PICTURES, "noise": 2},
        change=lambda cell: 0.02 if cell.repeat else strength[cell.part.layers],
    )
    metrics = ["--metrics", "dino", "clip", "psnr", "ssim", "--clip", models["clip"]]
    assert demo("--sweep", "s", *metrics, "--by", "top 2", "--confidence", "0.9") == 0
    folder = tmp_path / "output" / "dino" / "dino"
    record = assert_whole(folder)
    assert record["problems"] == [] and record["computed"]["dino"] == PICTURES * 6 + 2

    table = rows(folder / "similarity.csv")
    assert [row["layers"] for row in table[:6]] == ["repeat", "0", "1", "4", "11", "2+3"]
    assert len(table) == PICTURES * 5 + 2 and table[1]["text"] == "a 0 & <0> of $5"
    assert [row["seed"] for row in table if row["layers"] == "4"] == ["100", "101", "102", "103", "104"]
    model = Dino(models["dino"])
    for row in table[:4]:
        cell = Cell.labelled(int(row["prompt"]), row["layers"])
        images = [Image.open(sweep / each.file) for each in (Cell(cell.prompt, ()), cell)]
        assert float(row["dino"]) == pytest.approx(model.similarity(*images), abs=1e-5)
        assert float(row["dino_scaled"]) == pytest.approx((float(row["dino"]) + 1) / 2, abs=1e-6)

    layers = {row["layers"]: row for row in rows(folder / "layers.csv")}
    assert list(layers) == ["0", "1", "4", "11", "2+3"]
    assert (layers["4"]["names"], layers["4"]["kind"]) == ("single.0", "single")
    assert (layers["2+3"]["names"], layers["2+3"]["kind"]) == ("double.2 + double.3", "joint")
    for metric in ("dino", "clip", "psnr", "ssim"):
        values = np.array([float(row[metric]) for row in table if row["layers"] == "0"])
        found = layers["0"]
        assert float(found[f"{metric}_mean"]) == pytest.approx(values.mean())
        assert float(found[f"{metric}_sd"]) == pytest.approx(values.std(ddof=1), rel=1e-4)
        expected = stats.t.interval(0.9, PICTURES - 1, values.mean(), stats.sem(values))
        bounds = float(found[f"{metric}_low"]), float(found[f"{metric}_high"])
        assert bounds == pytest.approx(expected, rel=1e-5) and found[f"{metric}_n"] == str(PICTURES)
    assert float(layers["0"]["importance"]) == pytest.approx(1 - float(layers["0"]["dino_mean"]), abs=1e-6)

    vital = json.loads((folder / "vital_layers.json").read_text())
    assert vital["model"] == "flux-tiny" and vital["layers"] == [0, 4] and vital["threshold"] is None
    assert [layer for layer, mean in enumerate(vital["similarity"]) if mean is not None] == [0, 1, 4, 11]
    assert vital["weights"] == {"flux1-tiny.safetensors": [3, 4]}
    evidence = vital["evidence"]
    assert (evidence["rule"], evidence["metric"], evidence["token"]) == ("top 2", "dino", "class")
    assert (evidence["prompts"], evidence["noise_pairs"], evidence["steps"]) == (PICTURES, 2, 2)
    noise = [1 - float(row["dino"]) for row in table if row["layers"] == "repeat"]
    assert evidence["noise_floor"] == pytest.approx(max(noise), abs=1e-6) and max(noise) > 0
    assert str(tmp_path) not in json.dumps(vital)

    page = Tags((folder / "index.html").read_text()).text
    for words in ("Vital layers: 0 (double.0), 4 (single.0)", "The noise floor is", "90 % interval", "2+3"):
        assert words in page
    out = capsys.readouterr().out
    assert "Vital layers: 0 (double.0), 4 (single.0)" in out and "for demo 4: --layers" in out


def test_another_threshold_computes_nothing(demo, passes, tmp_path, capsys):
    draw_sweep(tmp_path / "s")
    assert demo("--sweep", "s", "--by", "similarity 0.99", "--batch", "7") == 0
    # A repeat that equals its reference is not looked at twice.
    assert passes == [7, 7, 2]
    passes.clear()
    assert demo("--sweep", "s", "--by", "vitality 0.5") == demo("--sweep", "s", "--token", "patches") == 0
    assert passes == []
    assert 'by was "similarity 0.99" and is "vitality 0.5"' in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "output" / "dino").iterdir()} == {"dino", "dino-2", "dino-3"}
    assert len(list((tmp_path / "s").glob("features-dino-*.npz"))) == 1


def test_a_finished_run_is_left_alone_until_its_pictures_change(demo, passes, tmp_path, capsys):
    sweep = draw_sweep(tmp_path / "s", made=lambda cell: cell.prompt < 2)
    folder = tmp_path / "output" / "dino" / "dino"
    assert demo("--sweep", "s") == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert "8 of 18 cells are not made yet" in capsys.readouterr().out
    assert demo("--sweep", "s") == 0
    assert "made already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    passes.clear()
    draw_sweep(sweep, made=lambda cell: cell.prompt == 2)
    assert demo("--sweep", "s") == 0
    assert "the pictures or models have changed since" in capsys.readouterr().out
    assert sum(passes) == 4
    assert json.loads((folder / "vital_layers.json").read_text())["evidence"]["prompts"] == 3
    assert demo("--sweep", "s", "--overwrite") == 0 and sum(passes) == 4


def test_vital_among_one_kind_of_block(demo, tmp_path, capsys):
    """Double blocks matter more here; asked for single ones, the rule sees these alone."""
    draw_sweep(tmp_path / "s", groups=[(0,), (1,), (4,), (5,)], change=_doubles_matter)
    assert demo("--sweep", "s", "--by", "top 1", "--among", "single.*") == 0
    vital = json.loads((tmp_path / "output" / "dino" / "dino" / "vital_layers.json").read_text())
    assert vital["layers"] == [5] and vital["evidence"]["among"] == "single.*"
    assert "Vital layers: 5 (single.1)" in (out := capsys.readouterr().out)
    assert "among single stream blocks alone" in out
    assert demo("--sweep", "s", "--by", "top 1") == 0
    assert "Vital layers: 0 (double.0)" in capsys.readouterr().out


def test_a_sweep_that_is_not_whole_is_said_to_be(demo, tmp_path, capsys):
    """Means over unlike prompts are not alike; and an empty set is nothing to edit with."""
    draw_sweep(tmp_path / "s", made=lambda cell: cell.part.layers != (1,) or cell.prompt < 2)
    assert demo("--sweep", "s", "--metrics", "ssim") == 0
    assert "Layers were measured over unlike numbers of prompts, 2 to 4" in capsys.readouterr().out
    vital = json.loads((tmp_path / "output" / "dino" / "dino" / "vital_layers.json").read_text())
    assert vital["evidence"]["fewest_prompts"] == 2
    assert demo("--sweep", "s", "--by", "similarity -1") == 0
    out = capsys.readouterr().out
    assert "Vital layers: none" in out and "for demo 4" not in out


def test_a_picture_of_another_size_has_no_figure(demo, tmp_path, capsys):
    sweep = draw_sweep(tmp_path / "s")
    (sweep / "cells.csv").unlink()
    file = next((sweep / "pictures").rglob("*skip-00.png"))
    drawn(0, 0.5, (32, 32)).save(file)
    assert demo("--sweep", "s", "--metrics", "ssim") == 0
    assert "without layer 0: SSIM not measured" in (tmp_path / "output/dino/dino/index.html").read_text()


def _doubles_matter(cell):
    return {(): 0.0, (0,): 0.9, (1,): 0.8, (4,): 0.2, (5,): 0.5}[cell.part.layers]


def test_no_layer_is_vital_for_the_noise(demo, tmp_path, capsys):
    draw_sweep(
        tmp_path / "s",
        change=lambda cell: (
            0.3 if cell.repeat else 0.1 if cell.part.layers == (1,) else 0.9 * bool(cell.part)
        ),
    )
    assert demo("--sweep", "s", "--by", "top 3") == 0
    vital = json.loads((tmp_path / "output" / "dino" / "dino" / "vital_layers.json").read_text())
    assert vital["layers"] == [0, 2] and vital["evidence"]["in_noise"] == [1]
    assert "Not told from the noise, and so not vital whatever the rule says: 1." in capsys.readouterr().out


def test_without_repeats_the_noise_floor_is_unknown(demo, tmp_path, capsys):
    draw_sweep(tmp_path / "s", noise=0)
    assert demo("--sweep", "s") == 0
    assert "The noise floor was not measured" in capsys.readouterr().out
    vital = json.loads((tmp_path / "output" / "dino" / "dino" / "vital_layers.json").read_text())
    assert vital["evidence"]["noise_floor"] is None and vital["evidence"]["noise_pairs"] == 0


def test_a_sweep_of_joint_sets_alone(demo, tmp_path, capsys):
    draw_sweep(tmp_path / "s", groups=[(0, 1), (2, 3)])
    assert demo("--sweep", "s") == 0
    folder = tmp_path / "output" / "dino" / "dino"
    assert_whole(folder)
    assert not (folder / "vital_layers.json").exists()
    assert "Layers were skipped in sets alone" in capsys.readouterr().out


def test_equal_pictures_and_one_prompt(demo, tmp_path):
    draw_sweep(tmp_path / "s", prompts=1, noise=1, change=lambda cell: 0.0)
    for rule in ("similarity 0.95", "gap", "top 2"):
        assert demo("--sweep", "s", "--by", rule, "--metrics", "dino", "psnr", "--output", rule) == 0
        assert_whole(tmp_path / rule)
        vital = json.loads((tmp_path / rule / "vital_layers.json").read_text())
        assert vital["layers"] == [] and vital["similarity"][:3] == [1, 1, 1]
        (row, *_) = rows(tmp_path / rule / "layers.csv")
        assert (row["dino_n"], row["dino_sd"], row["dino_low"], row["psnr_n"]) == ("1", "", "", "")
        assert rows(tmp_path / rule / "similarity.csv")[0]["psnr"] == "inf"


# What demo 2 leaves when it is stopped, and what others do to it


def test_a_partial_sweep(demo, tmp_path, capsys):
    draw_sweep(
        tmp_path / "s",
        prompts=4,
        made=lambda cell: cell.prompt < (1 if cell.part.layers == (1,) else 3) and cell.part.layers != (2,),
    )
    assert demo("--sweep", "s") == 0
    folder = tmp_path / "output" / "dino" / "dino"
    assert_whole(folder)
    layers = rows(folder / "layers.csv")
    assert [(row["dino_n"], bool(row["dino_low"])) for row in layers] == [
        ("3", True),
        ("1", False),
        ("", False),
    ]
    vital = json.loads((folder / "vital_layers.json").read_text())
    assert vital["similarity"][2] is None and vital["evidence"]["prompts"] == 3
    out = capsys.readouterr().out
    assert "cells are not made yet" in out and "Not measured, as their pictures are missing: 2." in out
    assert read_vital_set(folder / "vital_layers.json").similarity[2] is None


def test_damage_is_named_and_left_out(demo, tmp_path, capsys):
    sweep = draw_sweep(tmp_path / "s", prompts=4)
    (sweep / Cell(0, ()).file).unlink()
    damaged = sweep / Cell(1, (1,)).file
    damaged.write_bytes(damaged.read_bytes()[:100])
    (sweep / "pictures" / "0002" / "holiday.jpg").write_bytes(b"not a picture")
    with open(sweep / "cells.csv", "ab") as stream:
        stream.write(b"3,2,pictures/0003/sk")
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
    assert demo("--sweep", "s") == 0
    out, err = capsys.readouterr()
    for words in (
        "pictures/0000/reference.png is missing",
        "prompt 0 has no reference to compare its pictures with",
        "pictures/0001/skip-01.png cannot be read and is left out",
        "pictures/0002/holiday.jpg is none of the sweep's pictures",
        "the last line of cells.csv is torn off and left out",
    ):
        assert [line for line in out.splitlines() if words in line], words
    assert "Traceback" not in err
    folder = tmp_path / "output" / "dino" / "dino"
    assert len(assert_whole(folder)["problems"]) == 5
    assert "holiday.jpg" in (folder / "index.html").read_text()
    assert {row["prompt"] for row in rows(folder / "similarity.csv")} == {"1", "2", "3"}
    assert [row["dino_n"] for row in rows(folder / "layers.csv")] == ["3", "2", "3"]
    # Nothing of the sweep is touched.
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    "what, says",
    [
        ("nothing", '--sweep = "s": no such file or folder: '),
        ("empty", "neither run.json nor spec.json can be read"),
        ("other", "holds no sweep of layers: its spec.json is another demo's"),
        ("references", "s has no picture beside its reference to compare"),
        ("layers", "layer 12 does not exist: the model has layers 0 to 11"),
        ("model", "made with the model 'flux-2', which is not known here"),
    ],
)
def test_a_sweep_that_is_none(what, says, demo, tmp_path, capsys):
    if what == "empty":
        (tmp_path / "s").mkdir()
    elif what == "other":
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "run.json").write_text('{"spec": {"prompts": ["a"]}, "finished": true}')
    elif what == "references":
        draw_sweep(tmp_path / "s", made=lambda cell: cell.part.layers != ())
    elif what == "layers":
        draw_sweep(tmp_path / "s", groups=[(12,)])
    elif what == "model":
        draw_sweep(tmp_path / "s", model="flux-2")
    try:
        code = demo("--sweep", "s")
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2 and err.count("\n") == 1 and says in err and out == ""
    assert not (tmp_path / "output").exists()


def test_the_sweep_of_a_spec_is_looked_up(demo, tmp_path, monkeypatch, capsys):
    (tmp_path / "my.json").write_text('{"model": "flux-tiny", "prompts": ["a"], "steps": 2, "layers": [0]}')
    (tmp_path / "dino.json").write_text('{"sweep": "my.json"}')
    assert demo("dino.json") == 2
    assert "my.json first" in capsys.readouterr().err
    draw_sweep(tmp_path / "output" / "skip" / "my", groups=[(0,)])
    assert demo("dino.json") == 2
    err = capsys.readouterr().err
    assert "holds a sweep of another spec than" in err and "name the folder, --sweep" in err
    # As demo 2 would have made it, in the next folder.
    from flux.studies.sweep.spec import SkipSpec

    folder = draw_sweep(tmp_path / "output" / "skip" / "my-2", prompts=1, noise=1, groups=[(0,)])
    record = json.loads((folder / "run.json").read_text())
    record["spec"] = json.loads(json.dumps(load_spec(SkipSpec, tmp_path / "my.json").recipe()))
    (folder / "run.json").write_text(json.dumps(record))
    assert demo("dino.json") == 0
    assert json.loads((tmp_path / "output/dino/dino/spec.json").read_text())["sweep"] == str(folder)
    # The same from elsewhere, by what the run left.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert demo(str(tmp_path / "output/dino/dino/spec.json"), "--output", "again") == 0
    first, second = (tmp_path / at / "similarity.csv" for at in ("output/dino/dino", "elsewhere/again"))
    assert first.read_text() == second.read_text()


# The vital set and demo 4


def test_the_vital_set_is_demo_4s(demo, tmp_path):
    draw_sweep(
        tmp_path / "s", groups=[(layer,) for layer in range(12)], change=lambda c: 0.05 * sum(c.part.layers)
    )
    assert demo("--sweep", "s", "--by", "top 3") == 0
    vital = str(tmp_path / "output" / "dino" / "dino" / "vital_layers.json")
    spec = load_spec(EditSpec, ROOT / "json" / "edit.json", {"layers": vital})
    assert edit_of(spec, spec.edits[0]).layers == (9, 10, 11)
    with pytest.raises(SpecError, match="was found on flux-tiny, the model is flux-dev; any_model = true"):
        load_spec(EditSpec, ROOT / "json" / "edit-flux-dev.json", {"layers": vital})
    free = load_spec(EditSpec, ROOT / "json" / "edit-flux-dev.json", {"layers": vital, "any_model": True})
    assert free.recipe()["layers"] == [9, 10, 11]


def test_from_a_spec_to_its_vital_set_to_an_edit(tmp_path, monkeypatch, capsys):
    """With random weights, so that it is the way that is tested and not the destination."""
    monkeypatch.chdir(tmp_path)
    clone = ["--model.weights", str(save_clone(tmp_path / "clone"))]
    skip = {"$schema": "x", "prompts": ["a red hat", "a boat"], "layers": [0, "single.*"], "noise_floor": 1}
    few = {"steps": 2, "width": 32, "height": 48, "model": {"weights": "clone"}}
    (tmp_path / "my.json").write_text(json.dumps({**skip, **few}))
    (tmp_path / "dino.json").write_text('{"sweep": "my.json", "by": "top 2"}')
    assert load_demo("demo_2_skip").main(["my.json"]) == 0
    assert load_demo("demo_3_dino").main(["dino.json"]) == 0
    folder = tmp_path / "output" / "dino" / "dino"
    assert str(tmp_path / "clone" / "dino") in capsys.readouterr().out
    vital = read_vital_set(folder / "vital_layers.json")
    assert len(vital.layers) == 2 and set(vital.layers) <= {0, *range(4, 12)}
    size = ["--steps", "2", "--width", "32", "--height", "48"]
    edit = [*size, "--layers", str(folder / "vital_layers.json"), "--prompts", "a red hat", "a blue hat"]
    assert load_demo("demo_4_edit").main([*edit, *clone]) == 0
    assert "other weights" not in capsys.readouterr().out
    recipe = json.loads((tmp_path / "output" / "edit" / "edit" / "run.json").read_text())["spec"]
    assert recipe["layers"] == list(vital.layers)
    # flux-tiny's own weights are others than those of the clone.
    assert load_demo("demo_4_edit").main(edit) == 0
    assert "was found on other weights of flux-tiny" in capsys.readouterr().out


def test_a_set_found_on_other_weights_is_named(tmp_path):
    from flux.studies.edit.run import found_on_other_weights
    from flux.weights.identity import weights_id
    from flux.weights.parts import FLOW

    def lines(weights: dict | None, model: str = "flux-tiny") -> list[str]:
        file = tmp_path / "vital.json"
        file.write_text(json.dumps({"model": model, "layers": [0], "weights": weights}))
        overrides = {"layers": str(file), "any_model": True}
        return list(found_on_other_weights(load_spec(EditSpec, ROOT / "json" / "edit.json", overrides)))

    own = weights_id(configs["flux-tiny"], configs["flux-tiny"].home)
    assert lines(own) == lines(None) == lines({}) == lines({FLOW.title: "0"}, "flux-dev") == []
    (line,) = lines({**own, FLOW.title: "0123456789abcdef"})
    assert line.endswith("was found on other weights of flux-tiny; these may have other vital layers")


# Pictures


def test_two_pictures(demo, models, tmp_path, capsys):
    drawn(0).save(tmp_path / "a b.png")
    drawn(0, 0.2).save(tmp_path / "c.png")
    assert (
        demo("--pictures", "a b.png", "c.png", "--metrics", "dino", "clip", "psnr", "--clip", models["clip"])
        == 0
    )
    folder = tmp_path / "output" / "dino" / "dino"
    assert_whole(folder)
    (row,) = rows(folder / "similarity.csv")
    assert (row["a"], row["b"]) == (str(tmp_path / "a b.png"), str(tmp_path / "c.png"))
    expected = Dino(models["dino"]).similarity(drawn(0), drawn(0, 0.2))
    assert float(row["dino"]) == pytest.approx(expected, abs=1e-5) and float(row["clip_scaled"]) <= 1
    assert f"DINO similarity {expected:.3f} ({(expected + 1) / 2:.3f})" in capsys.readouterr().out


def test_folders(demo, tmp_path, capsys):
    for name, prompts in (("x", (0, 1)), ("y", (0, 2, 3))):
        (tmp_path / name).mkdir()
        for prompt in prompts:
            drawn(prompt).save(tmp_path / name / f"{prompt}.png")
    (tmp_path / "y" / "notes.txt").write_text("")
    (tmp_path / "y" / "torn.png").write_bytes(b"\x89PNG")
    assert demo("--pictures", "x", "y") == 0
    folder = tmp_path / "output" / "dino" / "dino"
    record = assert_whole(folder)
    table = rows(folder / "similarity.csv")
    assert len(table) == 6 and float(table[0]["dino"]) == 1
    assert len(record["problems"]) == 2
    out = capsys.readouterr().out
    assert "y: left out, as they are no pictures: notes.txt" in out
    assert "torn.png: cannot be read as a picture and is left out" in out
    # One folder: all with all, each pair once, and the page has both halves.
    assert demo("--pictures", "y", "--output", "one") == 0
    assert len(rows(tmp_path / "one" / "similarity.csv")) == 3
    page = Tags((tmp_path / "one" / "index.html").read_text()).text
    assert page.count("1.000 (1.000)") == 3
    assert sorted(path.name for path in (tmp_path / "x").iterdir())[0].startswith(".features-dino-")


def test_files_as_people_have_them(demo, tmp_path, capsys):
    """A turned photograph, floats, other formats, names of all kinds; what is left out has a line each."""
    folder = tmp_path / "mine"
    (folder / "holidays").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn(0).save(folder / "a.png")
    jpeg = {"format": "JPEG", "exif": exif, "quality": 100, "subsampling": 0}
    drawn(0).transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jfif", **jpeg)
    Image.fromarray(np.asarray(drawn(0).convert("L"), np.float32) / 255).save(folder / "float.tif")
    drawn(0).save(folder / ("ü" * 123 + ".png"))
    drawn(0).save(folder / "line\nbreak \u202e.png")
    drawn(1).save(os.fsencode(folder) + b"/\xff.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_text("<!DOCTYPE html>")
    (folder / "notes.txt").write_text("")
    assert demo("--picture", "mine/a.png", "--against", "mine", "--metrics", "psnr", "dino") == 0
    out = capsys.readouterr().out
    for words in (
        f"{folder}: left out, as they are no pictures: notes.txt",
        f"{folder}: left out, sub-folders, to be named themselves: holidays",
        "empty.png: cannot be read as a picture and is left out: it is empty",
        "page.png: cannot be read as a picture and is left out: it is a web page",
    ):
        assert [line for line in out.splitlines() if words in line], words
    assert "line\\nbreak \\u202e.png" in out and "\\udcff.png" in out
    run = tmp_path / "output" / "dino" / "dino"
    table = {Path(row["picture"]).name: row for row in rows(run / "similarity.csv")}
    assert len(table) == 5 and float(table["turned.jfif"]["psnr"]) > 30
    assert (
        float(table["ü" * 123 + ".png"]["psnr"])
        == float("inf")
        == float(table["line\\nbreak \\u202e.png"]["psnr"])
    )
    assert len(assert_whole(run)["problems"]) == 4
    assert sorted(path.name for path in (run / "pictures").iterdir()) == [f"00{i}.png" for i in range(1, 7)]


def test_the_folder_of_a_run_says_what_is_in_it(tmp_path, monkeypatch, capsys):
    """Its record names the model, and its sheet is none of its pictures."""
    monkeypatch.chdir(tmp_path)
    clone = ["--model.weights", str(save_clone(tmp_path / "clone"))]
    few = ["--steps", "1", "--width", "32", "--height", "48", "--seeds", "[0,1]"]
    assert load_demo("demo_0_test").main(["--prompts", "a red hat", *few, *clone]) == 0
    made = "output/test/test"
    shutil.copy(f"{made}/sheet.png", f"{made}/mine.png")
    capsys.readouterr()
    picture = f"{made}/picture-01-seed-0.png"
    dino = load_demo("demo_3_dino").main
    assert dino(["--picture", picture, "--against", made]) == 0
    out = capsys.readouterr().out
    for words in (
        f"{tmp_path / made}: a run with flux-tiny, which drew 2 pictures",
        f"{tmp_path / made}: left out, as the model did not draw them: mine.png, sheet.png",
        f"DINO: {tmp_path}/clone/dino, class token (as they were drawn by flux-tiny)",
    ):
        assert words in out.splitlines()
    assert [Path(row["picture"]).name for row in rows(tmp_path / "output/dino/dino/similarity.csv")] == [
        "picture-01-seed-1.png"
    ]
    # By its file alone; and beside others, for which flux-tiny's model is not made.
    other = f"{made}/picture-01-seed-1.png"
    assert dino(["--pictures", picture, other, "--dry-run"]) == 0
    assert f"{tmp_path}/clone/dino: there" in capsys.readouterr().out
    drawn(0, size=(200, 100)).save(tmp_path / "photo.png")
    for far in ("photo.png", f"{made}/mine.png"):
        assert dino(["--pictures", picture, far, "--dry-run"]) == 0
        assert "facebook/dinov2-base: not here, to be downloaded" in capsys.readouterr().out


def test_one_against_many(demo, tmp_path, capsys):
    (tmp_path / "many").mkdir()
    for number, change in enumerate((0.9, 0.0, 0.1, 0.4)):
        drawn(0, change).save(tmp_path / "many" / f"{number}.png")
    assert demo("--picture", "many/1.png", "--against", "many", "--metrics", "ssim", "dino") == 0
    folder = tmp_path / "output" / "dino" / "dino"
    assert_whole(folder)
    table = rows(folder / "similarity.csv")
    assert [Path(row["picture"]).stem for row in table] == ["2", "3", "0"]
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    assert "1. many/2.png: SSIM" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--pictures", "one.png"], "name two pictures, or a folder"),
        (["--pictures", "none.png", "one.png"], '--pictures[0] = "none.png": no such file or folder: '),
        (["--pictures", "torn.png", "one.png"], "torn.png: cannot be read as a picture and is left out"),
        (["--pictures", "empty", "one.png"], "no picture that can be read in "),
        (["--pictures", "one.png", "one.png"], "one.png: one picture alone; name a second one"),
        (["--picture", "one.png"], "needs one of: sweep; pictures; picture and against together; picture is"),
        (["--picture", "empty", "--against", "one.png"], "must be a picture, not a folder"),
        (["--picture", "one.png", "--against", "one.png"], "one.png: against names nothing but itself"),
        (["--sweep", "one.png"], "must be a folder, or a spec (.json)"),
        (["--sweep", "empty", "--pictures", "one.png", "empty"], "pictures, sweep is given"),
        (["--sweep", "empty", "--metrics", "psnr"], "choose from dino, clip, ssim"),
        (["--sweep", "empty", "--by", "top"], 'must be "similarity 0.95", "vitality 0.05", "top 5" or "gap"'),
        (["--sweep", "empty", "--by", "top 0"], 'must be "similarity 0.95"'),
        (["--sweep", "empty", "--by", "top 12345"], 'must be "similarity 0.95"'),
        (["--sweep", "empty", "--by", "similarity 5"], "the similarity must be between -1 and 1"),
        (["--sweep", "empty", "--confidence", "1"], "must be between 0.5 and 0.9999"),
        (["--sweep", "empty", "--metrics", "dino", "dion"], "did you mean dino?"),
        (["--pictures", "one.png", "two.png", "--model", "empty"], "not loaded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_end_in_one_line(argv, says, models, demo, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    drawn(0).save(tmp_path / "one.png")
    drawn(1).save(tmp_path / "two.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "one.png").read_bytes()[:99])
    try:
        code = demo(*argv)
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and says in err


# The whole program


def run(*argv: str, cwd: Path, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Demo 3 in a process of its own. blocked: packages that are not installed there."""
    code = (
        "import sys, runpy\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {set(blocked)!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    site = str(flux.PACKAGE_ROOT.resolve().parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": site}
    command = [sys.executable, "-c", code, str(DEMO), *argv]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_as_a_program(models, tmp_path):
    draw_sweep(tmp_path / "s", groups=[(layer,) for layer in range(3)])
    done = run("--sweep", "s", "--model", models["dino"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Vital layers:" in done.stdout and "Traceback" not in done.stderr
    assert_whole(tmp_path / "output" / "dino" / "dino")


@pytest.mark.parametrize(
    "blocked, argv, says",
    [
        ("matplotlib", ["--sweep", "s"], 'the importance plot needs matplotlib: pip install "flux[plots]"'),
        ("scipy", ["--sweep", "s"], 'a confidence interval needs scipy: pip install "flux[similarity]"'),
        (
            "skimage",
            ["--pictures", "s/pictures/0000", "--metrics", "ssim"],
            'SSIM needs scikit-image: pip install "flux[similarity]"',
        ),
    ],
)
def test_a_missing_extra_is_named_at_the_door(blocked, argv, says, tmp_path):
    draw_sweep(tmp_path / "s", prompts=1, noise=1)
    done = run(*argv, cwd=tmp_path, blocked=(blocked, "torch"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", says + "\n")
    assert not (tmp_path / "output").exists()


def test_pictures_need_no_extra(models, tmp_path):
    for number in range(2):
        drawn(number).save(tmp_path / f"{number}.png")
    done = run(
        *("--pictures", "0.png", "1.png", "--model", models["dino"]),
        cwd=tmp_path,
        blocked=("matplotlib", "skimage"),
    )
    assert done.returncode == 0, done.stderr


def test_a_dry_run_writes_nothing(demo, tmp_path, capsys):
    sweep = draw_sweep(tmp_path / "s")
    before = {path for path in tmp_path.rglob("*")}
    assert demo("--sweep", "s", "--dry-run", "--metrics", "dino", "clip") == 0
    out = capsys.readouterr().out
    assert "would compare 14 pairs of 18 pictures by dino, clip, in" in out
    assert "openai/clip-vit-large-patch14: not here, to be downloaded" in out
    assert before == {path for path in tmp_path.rglob("*")} and sweep in before


# Other probes


@pytest.fixture(scope="module")
def carried(tmp_path_factory) -> Path:
    """A carry sweep of layers 0, 4 and 11: layer 4 moves a picture half the way to its source."""
    folder = tmp_path_factory.mktemp("carried") / "s"
    return draw_sweep(folder, groups=[(0,), (4,), (11,)], prompts=3, noise=3, probe="carry", change=_towards)


def _towards(cell: Cell) -> float:
    """The source is what all changed blocks of the reference are; see `drawn`."""
    if cell.source:
        return 1.0
    return {(0,): 0.05, (4,): 0.5, (11,): 0.2}.get(cell.part.layers, 0.0)


def test_a_carry_sweep_says_how_far_pictures_move_to_their_source(carried, demo, tmp_path, capsys):
    assert demo("--sweep", str(carried), "--metrics", "ssim", "psnr") == 0
    run = tmp_path / "output" / "dino" / "dino"
    out = capsys.readouterr().out
    assert "Most moved: 4 (" in out and "what the layer carries of the source" in out
    found = json.loads((run / "probe_layers.json").read_text())
    assert [each["layers"] for each in found["order"]] == [[4], [11], [0]]
    assert found["probe"] == {"name": "carry", "keys": True, "values": True}
    assert not (run / "vital_layers.json").exists()
    # The figure, from the pictures themselves.
    sweep = read_sweep(carried)
    gains = []
    for prompt in range(3):
        source, reference, picture = (
            Image.open(sweep.cells[cell])
            for cell in (Cell(prompt, source=True), Cell(prompt), Cell(prompt, CellPart((4,), word="carry")))
        )
        gains.append(ssim(picture, source) - ssim(reference, source))
    assert found["order"][0]["mean"] == pytest.approx(sum(gains) / 3, abs=1e-9)
    with open(run / "moved.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["layers"] == "4"]
    assert [float(row["ssim"]) for row in rows] == pytest.approx(gains, abs=1e-7)
    assert {"layers.png", "layers-narrow.png", "side-by-side.png", "index.html"} <= set(files(run))
    assert "source: a 1" in (run / "index.html").read_text()


def test_heads_and_windows_are_maps(demo, tmp_path):
    draw_sweep(
        tmp_path / "s",
        prompts=2,
        probe={"name": "attention", "heads": [0, 2]},
        windows=[[0, 1], [1, 2]],
        change=lambda cell: 0.1 * sum(cell.part.layers) + 0.1 * (cell.part.head or 0),
    )
    assert demo("--sweep", "s", "--metrics", "ssim") == 0
    run = tmp_path / "output" / "dino" / "dino"
    assert {"layers-by-head.png", "layers-by-steps.png"} <= set(files(run))
    assert not (run / "layers.png").exists()
    first = json.loads((run / "probe_layers.json").read_text())["order"][0]
    assert (first["layers"], first["head"]) == ([2], 2) and first["window"] in ([0, 1], [1, 2])


def test_a_carry_sweep_without_its_sources_is_refused(demo, tmp_path, capsys):
    draw_sweep(tmp_path / "s", probe="carry", prompts=2, made=lambda cell: not cell.source)
    with pytest.raises(SystemExit) as end:
        sys.exit(demo("--sweep", "s", "--metrics", "ssim"))
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1 and "no picture beside its source" in err


# Patch by patch


def test_patches_of_a_sweep_are_measured_as_the_rule_says(demo, models, tmp_path, monkeypatch):
    sweep = draw_sweep(tmp_path / "s", prompts=3)
    given = []
    monkeypatch.setattr(
        Dino,
        "patches",
        lambda self, images, *rest, made=Dino.patches, **more: (
            given.append(len(images)),
            made(self, images, *rest, **more),
        )[1],
    )
    argv = ["--sweep", "s", "--metrics", "dino-whitened", "dino-patches", "dino", "--block", "1"]
    assert demo(*argv) == 0
    folder = tmp_path / "output" / "dino" / "dino"
    model = Dino(models["dino"])
    references = [Image.open(sweep / Cell(prompt).file) for prompt in range(3)]
    whitening = Whitening.of(model.patches(references, 1, scaled=False))
    table = rows(folder / "similarity.csv")
    for row in table:
        cell = Cell.labelled(int(row["prompt"]), row["layers"])
        a, b = (
            model.patches([Image.open(sweep / each.file)], 1, scaled=False)[0]
            for each in (Cell(cell.prompt), cell)
        )
        assert float(row["dino-patches"]) == pytest.approx(alike(a, b[None])[0], abs=1e-5)
        assert float(row["dino-whitened"]) == pytest.approx(alike(a, b[None], whitening)[0], abs=1e-4)
    record = assert_whole(folder)
    assert record["computed"]["dino-whitened"] == record["computed"]["dino-patches"] == len(table)
    # What was kept is read: nothing goes through the model again, and no token is on the disk.
    given.clear()
    assert demo(*argv, "--overwrite", "true") == 0 and not given
    assert assert_whole(folder)["computed"]["dino-whitened"] == 0
    kept = json.loads((sweep / "figures.json").read_text())
    assert sorted(name.split()[0] for name in kept) == ["dino-patches", "dino-whitened"]
    assert len((sweep / "figures.json").read_bytes()) < 200 * 2 * len(table)
    evidence = json.loads((folder / "vital_layers.json").read_text())["evidence"]
    assert (evidence["metric"], evidence["token"]) == ("dino-whitened", "patch by patch, whitened")
    assert "whitened DINO similarity, patch by patch" in (folder / "index.html").read_text()


@pytest.mark.parametrize(
    ("probe", "metric"), [("skip", "dino"), ("carry", "dino-whitened"), ("mean", "dino-whitened")]
)
def test_what_asks_where_is_measured_patch_by_patch(demo, tmp_path, probe, metric):
    draw_sweep(tmp_path / "s", prompts=2, probe=probe)
    assert demo("--sweep", "s") == 0
    recipe = json.loads((tmp_path / "output" / "dino" / "dino" / "spec.json").read_text())
    assert recipe["metrics"] == [metric]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("--pictures s --metrics dino-whitened", "is whitened by a sweep's references; for pictures choose"),
        ("--sweep s --metrics dino --block 1", "block = 1: is for dino-patches and dino-whitened"),
        ("--sweep s --metrics dino-patches --block 9", "has blocks 1 to 1, and 0 is the embedding"),
    ],
)
def test_mistakes_about_patches_end_in_one_line(demo, tmp_path, capsys, argv, says):
    draw_sweep(tmp_path / "s", prompts=2)
    try:
        code = demo(*argv.split())
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and err.strip().splitlines()[-1:] and says in err


def test_few_pictures_are_read_twice_of_many_pairs(tmp_path):
    """All with all of more pictures than are held: each tile reads its own once."""
    pictures = [Path(f"{i}.png") for i in range(600)]
    pairs = [(a, b) for i, a in enumerate(pictures) for b in pictures[i + 1 :]]
    tokens = Tokens(DrawsTokens(), None, 8)
    for first, others in in_tiles(pairs):
        assert len(others) < HELD
        tokens.of([first, *others])
    assert sum(len(others) for _, others in in_tiles(pairs)) == len(pairs)
    assert tokens.computed < 600 * 6


class DrawsTokens:
    """Stands in for a DINO model."""

    def patches(self, images, block, *, scaled):
        import torch

        return torch.zeros(len(images), 1, 1)
