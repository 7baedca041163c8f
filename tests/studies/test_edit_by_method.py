"""Demo 4 with a method: photographs and generated pictures, one and many, made, resumed, mended, refused."""

import csv
import html
import json
import os
import re
import signal
import struct
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_demos import assert_whole_run, files, load_demo, pictures, run_blocked, run_demo

from flux.methods import METHODS
from flux.pictures.metrics import Score, changed_share, difference, psnr, psnr_outside
from flux.studies.edit.by_method import work
from flux.studies.edit.choices import evaluations_of
from flux.studies.edit.jobs import batches_of, check, jobs_of
from flux.studies.edit.method_verdicts import what_went_wrong
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec

FEW = ["--steps", "2", "--width", "48", "--height", "32", "--checks.dino", "off"]
DOG = ["--source.prompt", "a dog", "--edits", '["a red cat"]']


@pytest.fixture
def demo(clone, tmp_path, monkeypatch):
    """`demo("--steps", "2")` runs demo 4 in an empty working folder and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.json").write_text("{}")

    def run(*argv: str) -> int:
        own = [] if argv and argv[0].endswith(".json") else ["none.json"]
        return load_demo("demo_4_edit").main([*own, *argv, "--model.weights", str(clone)])

    return run


def photograph(path: Path, width: int = 96, height: int = 64, seed: int = 0) -> Path:
    levels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def spec_of(tmp_path: Path, **changes) -> EditSpec:
    whole = {"source": {"image": "photo.png", "prompt": "a dog"}, "edits": ["a cat"], **changes}
    (tmp_path / "my.json").write_text(
        json.dumps({key: value for key, value in whole.items() if value != "-"})
    )
    return load_spec(EditSpec, tmp_path / "my.json")


# What is asked


def test_a_photo_without_its_prompts_is_not_edited_by_those_of_the_demos_own_picture(demo, tmp_path, capsys):
    photo = photograph(tmp_path / "photo.png")
    main = load_demo("demo_4_edit").main
    with pytest.raises(SystemExit) as end:
        main(["--source.image", str(photo)])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "also say what it shows" in said and "--prompts" in said and said.count("\n") == 1
    assert not (tmp_path / "output").exists()
    # A spec that is named has prompts of its own.
    (tmp_path / "mine.json").write_text('{"source": "a dog", "edits": ["a cat"]}')
    assert main(["mine.json", "--source.image", str(photo), "--dry-run"]) == 0


# What is made


def test_a_photo_is_edited_and_comes_back_at_its_own_size(demo, tmp_path, capsys):
    photo = photograph(tmp_path / "photo.png")
    mask = ["--mask", "[64, 0, 96, 64]"]
    assert demo("--source.image", str(photo), *DOG, "--method", "flowedit", *mask, *FEW) == 0
    folder = tmp_path / "output" / "edit" / "none"
    record = assert_whole_run(folder)
    assert files(folder) == {
        *("source.png", "reconstruction.png", "edit-01.png", "full-01.png", "mask-01.png"),
        *("difference-01.png", "sheet.png", "index.html", "run.json", "spec.json"),
    }
    with Image.open(folder / "edit-01.png") as edit, Image.open(folder / "full-01.png") as full:
        assert edit.size == (48, 32) and full.size == (96, 64)
        assert edit.text["prompt"] == "a red cat" and edit.text["source prompt"] == "a dog"
        own, after = np.asarray(Image.open(photo)), np.asarray(full)
    assert np.array_equal(own[:, :56], after[:, :56]) and not np.array_equal(own[:, 72:], after[:, 72:])
    (source,), (each,) = record["sources"], record["edits"]
    advice = source["gate"]["advice"][0]
    assert source["gate"]["autoencoder"]["psnr"] > 0
    assert each["evaluations"] == 4 and each["pasted"] and 0.2 < each["mask"] < 0.5
    assert record["spec"]["source"]["sha256"] and record["settings"]["start"] == pytest.approx(4 / 28)
    out = capsys.readouterr().out
    assert f"source: {advice}\n" in out
    page = (folder / "index.html").read_text()
    assert html.escape(advice) in page and "PSNR outside the mask" in page
    assert "mask: white may change" in page and "mask: where it changed" not in page


def test_a_generated_picture_is_edited_by_a_method(demo, tmp_path):
    edits = json.dumps(["a red cat", {"prompt": "a boat", "seeds": [0, 3], "layers": "all"}])
    assert demo("--source", "a dog", "--edits", edits, "--method", "flowedit", *FEW) == 0
    folder = tmp_path / "output" / "edit" / "none"
    record = assert_whole_run(folder)
    names = ("01", "02-seed-0", "02-seed-3")
    assert files(folder) == {
        *(f"{kind}-{name}.png" for kind in ("edit", "full", "mask", "difference") for name in names),
        *("source.png", "source-seed-3.png", "sheet.png", "index.html", "run.json", "spec.json"),
    }
    assert [each["source"] for each in record["edits"]] == ["source.png", "source.png", "source-seed-3.png"]
    page = (folder / "index.html").read_text()
    assert "mask: where it changed" in page and "mask: white may change" not in page


def test_a_folder_of_photos_with_an_instruction_each_is_one_run(demo, tmp_path):
    for i, size in enumerate([(96, 64), (64, 96), (96, 64)]):
        photograph(tmp_path / f"My Photo {i}.png", *size, seed=i)
    table = "image,prompt,edit,seed\n" + "".join(f"My Photo {i}.png,a dog,a cat {i},{i}\n" for i in range(3))
    (tmp_path / "table.csv").write_text(table)
    assert demo("--sources", "table.csv", "--batch", "2", *FEW) == 0
    folder = tmp_path / "output" / "edit" / "none"
    record = assert_whole_run(folder)
    assert [each["seed"] for each in record["edits"]] == [0, 1, 2]
    # Typed, they stand in the place of the source of a spec.
    (tmp_path / "one.json").write_text('{"source": "a fish", "edits": ["a cow"]}')
    assert demo("one.json", "--sources", "table.csv", "--batch", "2", *FEW, "--output", str(folder)) == 0
    assert json.loads((folder / "run.json").read_text()) == record
    for i in range(3):
        own = Image.open(tmp_path / f"My Photo {i}.png").size
        assert Image.open(folder / f"0{i + 1}-my-photo-{i}" / "full-01.png").size == own


def test_a_photos_edits_draw_from_their_own_seeds_whatever_the_batch(demo, tmp_path):
    photo = photograph(tmp_path / "photo.png")
    edits = json.dumps(["a hat", {"prompt": "a red cat", "seeds": [0, 3]}])
    argv = ["--source.image", str(photo), "--source.prompt", "a dog", "--edits", edits, *FEW]
    for batch in ("1", "4"):
        own = ["--method", "noise", "--method.strength", "1", "--batch", batch, "--output", batch]
        assert demo(*argv, *own) == 0
    assert files(tmp_path / "1") == files(tmp_path / "4")
    names = [f"edit-{name}.png" for name in ("01", "02-seed-0", "02-seed-3")]
    one, four = ([np.asarray(Image.open(tmp_path / at / name), int) for name in names] for at in "14")
    assert all(abs(alone - beside).max() <= 1 for alone, beside in zip(one, four, strict=True))
    assert abs(four[1] - four[2]).max() > 8


def test_a_photo_is_in_a_batch_with_one_seed_alone(tmp_path):
    photograph(tmp_path / "photo.png")
    own = [{"prompt": "a hat", "seeds": [0, 3]}, {"prompt": "a boat", "seeds": [3, 5]}]
    batches = batches_of(spec_of(tmp_path, edits=["a cat", *own]))
    assert [[job.title for job in batch.jobs] for batch in batches] == [
        ["01", "02-seed-0"],
        ["02-seed-3", "03-seed-3"],
        ["03-seed-5"],
    ]
    assert [len(batch.first) for batch in batches] == [1, 0, 0]


def test_edits_of_one_size_and_one_way_are_made_together(tmp_path):
    photograph(tmp_path / "photo.png")
    own = {"prompt": "a bird", "layers": [0]}
    spec = spec_of(tmp_path, edits=["a cat", own, "a cow", "a boat"], batch=2)
    assert [[job.number for job in batch.jobs] for batch in batches_of(spec)] == [[1, 3], [4], [2]]
    assert [len(batch.first) for batch in batches_of(spec)] == [1, 0, 0]


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_every_method_edits_a_photo(row, demo, tmp_path, capsys):
    photograph(tmp_path / "photo.png")
    mask = ["--mask", "[0, 0, 32, 64]"] if row.needs_mask else []
    few = ["--steps", "4", "--width", "48", "--height", "32", "--checks.dino", "off"]
    argv = ["--source.image", "photo.png", "--prompts", "a dog", "a cat", "--method", row.name, *mask, *few]
    assert demo(*argv, "--dry-run") == 0
    capsys.readouterr()
    assert demo(*argv) == 0
    record = assert_whole_run(tmp_path / "output/edit/none")
    assert record["edits"][0]["evaluations"] > 0
    # KV-Edit's replay would say nothing: what is masked is made anew, and the rest stays whatever comes back.
    replayed = row.inverts and not row.needs_mask
    assert (record["sources"][0]["gate"]["replay"] is None) != replayed
    assert (record["replay"] is None) != row.inverts
    told = capsys.readouterr().out
    assert ("source: given back from noise" in told) == row.inverts
    assert ("not measured" in told) == (row.inverts and row.needs_mask)
    assert record["settings"].keys() == row.settings.keys()


def test_masks_looks_operators_and_schedules_go_together(demo, tmp_path):
    photograph(tmp_path / "photo.png")
    whole = {
        "source": {"image": "photo.png", "prompt": "a dog"},
        "edits": ["a cat", {"prompt": "a cow", "mask": {"where": [0, 0, 48, 64], "feather": 4}}],
        "method": "flowedit",
        "mask": {"where": "auto", "threshold": 0.1, "feather": 8},
        **{"layers": [0], "outside": "all", "strength": "cosine", "window": [0, 2], "operators": ["gate"]},
        **{"schedules": {"edit": "vags", "source": "exponential"}, "fit": "pad", "paste": True},
    }
    (tmp_path / "my.json").write_text(json.dumps(whole))
    assert demo("my.json", *FEW) == 0
    first, second = assert_whole_run(tmp_path / "output/edit/my")["edits"]
    assert first["pasted"] and second["pasted"] and (first["evaluations"], second["evaluations"]) == (8, 4)
    assert 0.3 < second["mask"] < 0.7


@pytest.mark.parametrize("pasted", ["true", "false"])
def test_the_padding_of_a_photo_does_not_count(pasted, demo, tmp_path):
    photograph(tmp_path / "photo.png", 48, 16)
    argv = [*DOG, *FEW, "--source.image", "photo.png", "--fit", "pad", "--mask", "[0, 0, 48, 8]"]
    argv += ["--method", "flowedit", "--paste", pasted]
    assert demo(*argv, "--output", "padded") == 0
    assert demo(*argv, "--output", "scan", "--scan.layers", "[[]]") == 0
    whole = {name: Image.open(tmp_path / "padded" / f"{name}-01.png") for name in ("edit", "mask", "full")}
    source = Image.open(tmp_path / "padded/source.png").crop((0, 8, 48, 24))  # of the photo's rows alone
    edit, mask = (whole[name].crop((0, 8, 48, 24)) for name in ("edit", "mask"))
    result = whole["full"] if pasted == "true" else edit
    (found,) = json.loads((tmp_path / "padded/run.json").read_text())["edits"]
    assert found["changed"] == changed_share(source, result) > 0
    assert found["psnr"] == pytest.approx(psnr(source, result))
    assert found["kept_outside"] == pytest.approx(psnr_outside(source, edit, mask))
    seen = np.asarray(Image.open(tmp_path / "padded/difference-01.png")).max(axis=-1) > 4  # of black
    assert np.array_equal(seen[8:24], difference(source, result) > 0)
    assert not seen[:8].any() and not seen[24:].any()
    with (tmp_path / "scan/scan.csv").open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    for name, value in {
        "changed": found["changed"],
        "psnr": found["psnr"],
        "kept": found["kept_outside"],
    }.items():
        assert float(row[name]) == pytest.approx(value)
    assert float(row["outside"]) == pytest.approx((np.asarray(mask) < 2.55).mean())


def test_a_method_of_ones_own_stands_in_the_working_directory(demo, tmp_path, capsys):
    photograph(tmp_path / "photo.png")
    (tmp_path / "mine.py").write_text(
        "from flux.methods.task import MethodStep\n"
        "def half(task, *, share=0.5):\n"
        "    edit = share * task.field.of_edits(task.clean)\n"
        "    yield MethodStep('edit', 0, 1, 1.0, 0.0, edit)\n"
    )
    argv = ["--source.image", "photo.png", *DOG, "--method", "mine:half", *FEW]
    assert demo(*argv, "--method.share", "0.25") == 0
    assert json.loads((tmp_path / "output/edit/none/run.json").read_text())["settings"] == {"share": 0.25}
    assert demo(*argv, "--method.shore", "0.25") == 2
    assert "no setting of mine:half: did you mean share?" in capsys.readouterr().err


def test_a_mask_that_no_edit_takes_is_not_looked_at(tmp_path):
    photograph(tmp_path / "photo.png")
    own = {"prompt": "a cat", "mask": [0, 0, 8, 8]}
    assert spec_of(tmp_path, method="kv-edit", mask="auto", edits=[own]).mask.where == "auto"


WAITS = """
from pathlib import Path
from flux.methods.task import MethodStep


def edit(task, *, size=9.0):
    if not Path("go").exists():
        raise ValueError("the edit was begun")
    edit = task.field.of_edits(task.clean).clone()
    edit[:, 0] += size
    yield MethodStep("edit", 0, 1, 1.0, 0.0, edit)
"""


def test_how_well_photos_come_back_is_told_before_they_are_edited(demo, tmp_path, capsys):
    """On the console and in run.json; by a run that goes on, of what is kept, without measuring it again."""
    photograph(tmp_path / "photo.png")
    (tmp_path / "waits.py").write_text(WAITS)
    argv = ["--source.image", "photo.png", *DOG, "--method", "waits:edit", *FEW]
    assert demo(*argv) == 2
    out, err = capsys.readouterr()
    assert "the edit was begun" in err
    record = json.loads((tmp_path / "output/edit/none/run.json").read_text())
    (source,) = record["sources"]
    figures, advice = source["gate"]["autoencoder"], source["gate"]["advice"][0]
    told = (
        f"source: given back by the autoencoder alone: {figures['psnr']:.1f} dB, SSIM {figures['ssim']:.3f}\n"
    )
    assert not record["finished"] and told in out and f"source: {advice}\n" in out

    (tmp_path / "go").touch()
    assert demo(*argv) == 0
    out = capsys.readouterr().out
    assert out.count(told) == out.count(f"source: {advice}\n") == 1
    done = assert_whole_run(tmp_path / "output/edit/none")
    assert done["sources"] == record["sources"] and done["replay"] is None
    page = (tmp_path / "output/edit/none/index.html").read_text()
    assert f"{figures['psnr']:.1f} dB, SSIM" in page


@pytest.mark.parametrize(
    "more, said",
    [
        (["--method.size", "0.0"], None),  # of which a notice says more
        (
            ["--method.size", "0.1", "--checks.did_nothing", "0", "--paste", "false"],
            "the edit changed nothing",
        ),
    ],
)
def test_notes_of_edits_are_said(more, said, demo, tmp_path, capsys):
    photograph(tmp_path / "photo.png")
    (tmp_path / "waits.py").write_text(WAITS)
    (tmp_path / "go").touch()
    assert demo("--source.image", "photo.png", *DOG, "--method", "waits:edit", *more, *FEW) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "output/edit/none"
    (each,) = json.loads((folder / "run.json").read_text())["edits"]
    assert each["note"] == "the edit changed nothing"
    page = (folder / "index.html").read_text()
    assert ("edit-01: did nothing" in out) == (said is None)
    assert (
        (f"edit-01: {each['note']}\n" in out) == ("The edit changed nothing." in page) == (said is not None)
    )


def test_a_whole_scene_says_that_there_is_nothing_to_paste(demo, tmp_path, capsys):
    photograph(tmp_path / "photo.png")
    noise = ["--method", "noise", "--method.strength", "1"]
    assert demo("--source.image", "photo.png", *DOG, *noise, *FEW) == 0
    said = "there is nothing to paste it into"
    assert said in capsys.readouterr().out
    assert f"{said}." in (tmp_path / "output/edit/none/index.html").read_text()


# The same run, and another


def test_a_changed_photo_is_another_run(demo, tmp_path, capsys):
    argv = ["--source.image", "photo.png", *DOG, *FEW]
    photograph(tmp_path / "photo.png")
    assert demo(*argv) == demo(*argv) == 0
    assert "made already" in capsys.readouterr().out
    photograph(tmp_path / "photo.png", seed=1)
    assert demo(*argv) == 0
    assert "a run of another spec (source.sha256 was" in capsys.readouterr().out
    # What a run leaves beside its pictures makes them again, from the photo that it was made from.
    with pytest.raises(SystemExit, match="2"):
        load_demo("demo_4_edit").main(["output/edit/none/spec.json", "--output", "c"])
    assert "is another file than sha256 says" in capsys.readouterr().err
    assert load_demo("demo_4_edit").main(["output/edit/none-2/spec.json", "--output", "c"]) == 0
    assert pictures(tmp_path / "c") == pictures(tmp_path / "output/edit/none-2")


def test_a_recipe_reads_as_the_same_spec(tmp_path):
    photograph(tmp_path / "photo.png")
    photograph(tmp_path / "mask.png")
    item = {"prompt": "a bird", "mask": "mask.png", "strength": [1, 0.5], "outside": "all"}
    spec = spec_of(
        tmp_path,
        method={"name": "flowedit", "start": 0.5},
        steps=2,
        guidance=3,
        operators=["gate"],
        schedules={"edit": "vags"},
        mask={"where": "auto", "feather": 1},
        source="-",
        edits="-",
        sources=[{"image": "photo.png", "prompt": "a dog", "edit": item, "mask": [0, 0, 8, 8]}],
    )
    assert EditSpec.model_validate(spec.recipe()).recipe() == spec.recipe()
    assert spec.settings["guidance"] == 3 == spec.recipe()["method"]["guidance"]


def test_without_a_method_recipes_are_what_they_were(tmp_path):
    """And say whether edits are pasted: runs of before, of which none was, are other runs."""
    spec = spec_of(tmp_path, source="a dog", edits=["a cat"])
    plain = spec_of(tmp_path, source="a dog", edits=["a cat"], paste=False)
    assert plain.recipe() == spec.recipe() | {"paste": {"when": False}}
    recipe = spec.recipe()
    assert recipe.pop("paste") == {"when": "auto"}
    assert recipe == {
        "model": {"name": "flux-tiny", "weights": None, "device": "auto", "dtype": "auto", "offload": False},
        **{"steps": 16, "guidance": 3.5, "width": 128, "height": 128, "source": {"prompt": "a dog"}},
        "edits": [
            {
                **{"prompt": "a cat", "seeds": None, "layers": None, "strategy": None},
                **{"strength": None, "window": None},
            }
        ],
        **{"layers": [1, 11], "any_model": False},
        "strategy": {"name": "copy", "ratio": None, "threshold": None, "keys": True, "values": True},
        **{"strength": 1.0, "window": None, "seed": 0, "batch": 4, "compare": True},
        "checks": {"pixel": 8, "did_nothing": 0.002, "lost_source": 0.2, "dino": "auto"},
    }


def test_steps_and_guidance_are_the_papers_but_no_more_steps_than_the_models_own(tmp_path):
    photograph(tmp_path / "photo.png")
    tiny, dev = (spec_of(tmp_path, model=name, method="flowedit") for name in ("flux-tiny", "flux-dev"))
    assert (tiny.steps, tiny.guidance, dev.steps, dev.guidance) == (16, 5.5, 28, 5.5)
    schnell = spec_of(tmp_path, model="flux-schnell", method="flowedit")
    assert (schnell.steps, schnell.guidance) == (4, None)
    assert spec_of(tmp_path, method={"name": "flowedit", "guidance": 2}, steps=5).steps == 5
    ours = spec_of(tmp_path)
    assert (ours.method.name, ours.steps, ours.guidance) == ("gentle", 12, 1.0)


def test_a_method_that_does_not_exist_is_answered_with_those_that_do(tmp_path):
    photograph(tmp_path / "photo.png")
    for wrong, said in (
        ("flowedti", "did you mean flowedit?"),
        ("mine:", "choose from"),
        ("a b:c", "choose from"),
    ):
        with pytest.raises(SpecError, match=re.escape(said)) as caught:
            spec_of(tmp_path, method=wrong)
        assert all(row.name in str(caught.value) for row in METHODS)
        assert str(caught.value).endswith("or name your own, package.module:function")


NOWHERE = "is how an edit looks at its source, and no layers are named to look in: name layers"


def test_what_a_method_cannot_do_is_said_at_once(tmp_path):
    photograph(tmp_path / "photo.png")
    for changes, said in (
        ({"method": "kv-edit"}, "mask: missing: kv-edit edits inside a mask alone"),
        (
            {"method": "kv-edit", "mask": "auto"},
            'mask = "auto": is the edit\'s own change, which a first run without a mask finds, and kv-edit '
            'edits inside a mask alone: give a picture, a box, "velocity" or "words"',
        ),
        (
            {"method": "inpaint", "mask": "velocity", "edits": ["a", {"prompt": "b", "mask": "auto"}]},
            'edits[1].mask = "auto": is the edit\'s own change',
        ),
        (
            {"method": "noise", "mask": "auto"},
            "noise takes none, as it never sees source and edit side by side",
        ),
        ({"method": "noise", "edits": [{"prompt": "a", "outside": "all"}]}, "edits[0].outside"),
        ({"method": "stable-flow", "model": "flux-dev-krea"}, "no set of flux-dev-krea"),
        (
            {"method": "noise", "strength": 0.8},
            "strength = 0.8: noise never looks at its source in layers: leave it out, or give its own, "
            "method.strength",
        ),
        (
            {"method": "fireflow", "edits": [{"prompt": "a", "window": [0, 2]}], "strategy": {"keys": False}},
            "edits[0].window = [0, 2]: fireflow never looks at its source in layers: leave it out",
        ),
        ({"method": "rf-inversion", "steps": 1}, "steps = 1: rf-inversion takes 2 at least"),
        ({"method": "flowedit", "strength": 0.5}, "strength = 0.5: " + NOWHERE),
        ({"outside": "all"}, 'outside = "all": looks outside a mask, and there is none: give mask, or name'),
        (
            {"mask": None, "edits": [{"prompt": "a", "mask": "auto"}, {"prompt": "b", "outside": [0]}]},
            "edits[1].outside = [0]: looks outside a mask",
        ),
        ({"roles": [{"layers": [0], "side": "outside"}]}, 'roles[0].side = "outside": looks outside a mask'),
        (
            {"method": "kv-edit", "mask": [0, 0, 9, 9], "strength": 0.5},
            "strength = 0.5: does not reach the look that kv-edit has of its own: leave it out",
        ),
        *(
            (
                {"method": name, "schedules": {"source": "exponential"}} | extra,
                f"schedules.source: {name} never asks for the source under its prompt: leave it out",
            )
            for name, extra in (("noise", {}), ("rf-inversion", {}), ("inpaint", {"mask": [0, 0, 9, 9]}))
        ),
        ({"edits": [{"prompt": "a", "layers": "all"}, {"prompt": "b", "window": [0, 2]}]}, "edits[1].window"),
        ({"edits": ["a"], "scan": {"strength": [0, 1]}}, "scan.strength: " + NOWHERE),
        (
            {"method": "mine:half", "guidance": 9},
            "guidance = 9.0: is a setting of methods of the table: give yours as method.guidance",
        ),
        (
            {"method": "flowedit", "source": "a dog", "fit": "crop"},
            'fit = "crop": is for photos, and these sources are generated in width x height: leave it out',
        ),
        ({"method": "flowedit", "source": "a dog", "pixels": 4096}, "pixels = 4096: is for photos, and"),
    ):
        with pytest.raises(SpecError, match=re.escape(said)):
            spec_of(tmp_path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"strength": 0.5, "edits": ["a", {"prompt": "b", "outside": "all"}], "mask": "auto"},
        {"strength": 0.5, "outside": "all", "edits": ["a", {"prompt": "b", "mask": [0, 0, 9, 9]}]},
        {"strength": 0.5, "outside": "all", "method": "decflowedit"},
        {"strength": 0.5, "layers": []},
        {"window": [0, 2], "roles": [{"layers": "all"}]},
        {"scan": {"strength": [0, 1], "layers": [[0], [1]]}},
        {"strength": 0.5, "scan": {"layers": [[0], [1]]}},
        {"strength": 0.5, "method": "stable-flow"},
    ],
)
def test_how_to_look_is_taken_where_layers_are_named(tmp_path, changes):
    photograph(tmp_path / "photo.png")
    assert spec_of(tmp_path, **changes)


def test_what_stands_for_null_is_not_refused(tmp_path):
    photograph(tmp_path / "photo.png")
    for method in ("noise", "mine:half"):
        spec = spec_of(tmp_path, method=method, edits=[{"prompt": "a cat", "strength": 1}])
        assert EditSpec.model_validate(spec.recipe()).recipe() == spec.recipe()


# Stopped and damaged


def test_a_killed_run_is_finished_by_the_next(clone, tmp_path):
    for i in range(3):
        photograph(tmp_path / f"{i}.png", seed=i)
    edits = ["a " + "red " * i + "hat" for i in range(3)]
    sources = [{"image": f"{i}.png", "prompt": "a dog", "edit": edits} for i in range(3)]
    (tmp_path / "my.json").write_text(json.dumps({"sources": sources, "batch": 2, "method": "flowedit"}))
    argv = ["my.json", *FEW, "--model.weights", str(clone)]
    folder = tmp_path / "output" / "edit" / "my"
    running = run_demo("edit", *argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (folder / "01-0" / "edit-01.png").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert made and not json.loads((folder / "run.json").read_text())["finished"]

    again = run_demo("edit", *argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert_whole_run(folder)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    whole = run_demo("edit", *argv, "--output", "whole", cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert whole.wait() == 0
    assert pictures(folder) == pictures(tmp_path / "whole")
    kept = [json.loads((place / "run.json").read_text()) for place in (folder, tmp_path / "whole")]
    assert kept[0]["edits"] == kept[1]["edits"] and kept[0]["sources"] == kept[1]["sources"]


def test_damaged_pictures_of_a_finished_run_are_made_again(demo, tmp_path):
    photograph(tmp_path / "photo.png")
    argv = ["--source.image", "photo.png", "--source.prompt", "a dog", "--edits", '["a cat", "a cow"]', *FEW]
    assert demo(*argv, "--batch", "1") == 0
    folder = tmp_path / "output" / "edit" / "none"
    whole = pictures(folder)
    (folder / "reconstruction.png").write_bytes(b"")
    (folder / "mask-02.png").unlink()
    kept = {name: (folder / name).stat().st_mtime_ns for name in ("source.png", "edit-01.png", "edit-02.png")}
    assert demo(*argv, "--batch", "1") == 0
    assert pictures(folder) == whole
    assert kept == {name: (folder / name).stat().st_mtime_ns for name in kept}


# What went wrong

SAME, LOST = Score(0.0, None, loss=0.0), Score(0.9, 9.0, loss=0.8)


@pytest.mark.parametrize(
    "changes, figures, seen, said",
    [
        (
            {"method": "flowedit"},
            SAME,
            None,
            "Try a guidance above 5.5, a start below 0.142857, a source prompt",
        ),
        (
            {
                "method": {"name": "flowedit", "start": 0},
                "operators": "gate",
                "mask": {"where": "auto", "threshold": 0.3},
            },
            SAME,
            None,
            "Try a guidance above 5.5, a mask threshold below 0.3, a gate limit above 0.85, a source prompt",
        ),
        (
            {"mask": [0, 0, 8, 8], "layers": [0, 1]},
            SAME,
            None,
            "fewer layers than 2, a larger mask, or none, a source",
        ),
        (
            {"method": "kv-edit", "mask": [0, 0, 8, 8]},
            SAME,
            None,
            "a larger mask, or a source prompt that names what is to change.",
        ),
        (
            {"method": "kv-edit", "mask": [0, 0, 8, 8], "source": "a dog"},
            SAME,
            None,
            "a source prompt that names what is to change, or another seed.",
        ),
        ({"method": "noise"}, SAME, None, "Try a guidance above 3.5, a strength above 0.6, a source prompt"),
        (
            {"method": "noise"},
            LOST,
            None,
            "Try a guidance below 3.5, a strength below 0.6, or a prompt closer",
        ),
        ({"method": "flowedit"}, LOST, None, "Try a mask of where it may change, a guidance below 5.5"),
        ({"method": "flowedit", "paste": False, "layers": [0]}, LOST, None, "paste true, or a prompt closer"),
        (
            {"method": "flowedit"},
            LOST,
            None,
            "layers in which it looks at its source, such as --layers default, or a prompt",
        ),
        ({"method": "fireflow"}, SAME, None, "an inject below 0.125, or a source prompt"),
        (
            {"method": "flowedit", "model": "flux-dev-krea"},
            LOST,
            None,
            "layers in which it looks at its source, or a prompt",
        ),
        (
            {"method": "kv-edit", "mask": [0, 0, 8, 8]},
            LOST,
            None,
            "a start above 0.142857, or a prompt closer",
        ),
        (
            {"method": "flowedit", "model": "flux-schnell"},
            SAME,
            None,
            "Try a start below 0.142857, a source prompt",
        ),
        (
            {"method": "flowedit"},
            LOST,
            ([], ["no hat"]),
            "did not make all that was asked for: no hat. Try a guidance",
        ),
        (
            {"method": "flowedit"},
            LOST,
            (["a cat"], ["no hat"]),
            "a cat; and no hat. Try a source prompt that names",
        ),
    ],
)
def test_remedies_are_settings_of_the_method(changes, figures, seen, said, tmp_path):
    photograph(tmp_path / "photo.png")
    spec = spec_of(tmp_path, **changes)
    (line,) = what_went_wrong(spec, jobs_of(spec)[0], figures, seen)
    assert said in line and "injection" not in line


def test_a_switch_of_ones_own_is_no_remedy_whatever_it_is_called(tmp_path, monkeypatch):
    photograph(tmp_path / "photo.png")
    (tmp_path / "switched.py").write_text("def edit(task, *, start=True, scale=2.0): ...")
    monkeypatch.syspath_prepend(tmp_path)
    spec = spec_of(tmp_path, method={"name": "switched:edit", "start": False, "scale": 3})
    (said,) = what_went_wrong(spec, jobs_of(spec)[0], SAME)
    assert "a scale above 3" in said and "start" not in said


def test_nothing_is_said_of_an_edit_that_worked(tmp_path):
    photograph(tmp_path / "photo.png")
    spec = spec_of(tmp_path)
    assert not list(what_went_wrong(spec, jobs_of(spec)[0], Score(0.2, 20.0, loss=0.1)))
    assert not list(what_went_wrong(spec, jobs_of(spec)[0], LOST, ([], [])))


# Before anything is made


def test_what_is_typed_of_a_method_stays_wherever_the_method_is_typed(demo, tmp_path, capsys):
    photograph(tmp_path / "photo.png")
    start = ["--source.image", "photo.png", *DOG, "--dry-run"]
    whole, part = ["--method", "flowedit"], ["--method.guidance", "9"]
    for typed in ([*whole, *part], [*part, *whole]):
        assert demo(*start, *typed) == 0
        assert "guidance 9" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        demo(*start, "--method.pinning", "foo", "--method", "stable-flow")
    assert "choose from right, released, free, exact" in capsys.readouterr().err


def test_a_dry_run_says_what_the_method_will_do(demo, tmp_path, capsys):
    photograph(tmp_path / "photo.png", 400, 304)
    argv = ["--source.image", "photo.png", *DOG, "--method", "flowedit", "--steps", "28", "--dry-run"]
    assert demo(*argv) == 0
    out = capsys.readouterr().out
    for words in (
        "by flowedit (arXiv 2412.08629)",
        "start 0.142857, last 0, draws 1, source_guidance 1.5, guidance 5.5",
        "= 48, T being 28 steps",
        "would make 5 pictures of 128 x 96, 28 steps",
        "photo.png of 400 x 304 pixels is edited at 128 x 96",
        "full-01.png",
    ):
        assert words in out
    assert not (tmp_path / "output").exists()


def test_the_size_that_photos_are_edited_at_is_said(demo, tmp_path):
    photograph(tmp_path / "photo.png", 64, 64)
    argv = [*FEW, *DOG, "--source.image", "photo.png", "--method", "flowedit"]
    beside = {"run": [], "scan": ["--scan.layers", "[[]]"], "chain": ["--chain", "true"]}
    for name, more in beside.items():
        assert demo(*argv, "--output", name, *more) == 0
        page = (tmp_path / name / "index.html").read_text()
        assert "32 × 32" in page and "48 × 32" not in page
    photograph(tmp_path / "wide.png", 96, 64)
    sources = [
        {"image": f"{name}.png", "prompt": "a dog", "edit": ["a cat"]} for name in ("photo", "photo", "wide")
    ]
    apart = {"source": "-", "edits": "-", "method": "flowedit", "width": 48, "height": 32}
    assert work(spec_of(tmp_path, sources=sources[:2], **apart)).size == "32 x 32"
    assert work(spec_of(tmp_path, sources=sources, **apart)).size == "several sizes"


@pytest.mark.parametrize(
    "method, said",
    [
        ("stable-flow", "and before editing, 32 a source, to noise as the method goes, and back by"),
        ({"name": "stable-flow", "integrator": "midpoint"}, "and before editing, 64 a source, to noise"),
        ({"name": "stable-flow", "integrator": "fixed-point"}, "and before editing, 48 a source, to noise"),
        ("rf-inversion", "and before editing, 31 a source, by the method itself, with the source's prompt"),
        ("dnaedit", "and before editing, 28 a source, by the method itself"),
        ("kv-edit", "not measured: what is masked is made anew"),
        ("flowedit", None),
    ],
)
def test_a_dry_run_counts_what_is_measured_before(method, said, tmp_path):
    photograph(tmp_path / "photo.png")
    mask = {"mask": [0, 0, 48, 64]} if method == "kv-edit" else {}
    spec = spec_of(tmp_path, method=method, steps=16, **mask)
    notes = "\n".join(work(spec).notes)
    assert (said or "") in notes and ("before editing" in notes) == (said is not None and "a source" in said)
    unasked = work(spec_of(tmp_path, method=method, steps=16, checks={"gate": False}, **mask))
    counted = re.search(r"before editing, (\d+) a source", notes)
    assert work(spec).evaluations - unasked.evaluations == int(counted[1] if counted else 0)


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_evaluations_are_counted_before(row):
    settings = {name: setting.default for name, setting in row.settings.items()}
    assert evaluations_of(row, row.steps, settings) is not None


def bomb() -> bytes:
    """A PNG that claims 20000 x 20000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


WRONG = {
    "notes.png": (lambda path: path.write_bytes(b"not a picture"), "it is no picture"),
    "cut.png": (lambda path: path.write_bytes(photograph(path).read_bytes()[:200]), "it is cut short"),
    "empty.png": (lambda path: path.write_bytes(b""), "it is empty"),
    "bomb.png": (lambda path: path.write_bytes(bomb()), "it has 400 million pixels"),
    "small.png": (lambda path: Image.new("RGB", (8, 40)).save(path), "too small to be edited"),
    "long.png": (lambda path: Image.new("RGB", (32, 600)).save(path), "too long to be edited"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_photo_that_cannot_be_edited_ends_in_one_line_before_torch(name, tmp_path):
    write, said = WRONG[name]
    write(tmp_path / name)
    (tmp_path / "my.json").write_text(
        json.dumps({"source": {"image": name, "prompt": "a dog"}, "edits": ["a cat"], "method": "flowedit"})
    )
    done = run_blocked({"torch", "transformers"}, "edit", "my.json", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"{tmp_path / name}: ") and said in done.stderr
    assert not (tmp_path / "output").exists()


MASKS = {
    "size": (Image.new("L", (96, 40), 255), "the mask has 96 x 40 pixels and its source 96 x 64"),
    "empty": (Image.new("L", (96, 64)), "the mask is empty"),
    "full": (Image.new("L", (96, 64), 255), "the mask is full"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_masks_nothing_is_refused(name, tmp_path):
    mask, said = MASKS[name]
    mask.save(tmp_path / "mask.png")
    photograph(tmp_path / "photo.png")
    with pytest.raises(ValueError, match=said) as caught:
        check(spec_of(tmp_path, mask="mask.png"))
    assert str(caught.value).startswith(f"{tmp_path / 'mask.png'}: ")


def test_boxes_are_masks_too(tmp_path):
    photograph(tmp_path / "photo.png")
    check(spec_of(tmp_path, mask=[0, 0, 48, 64]))
    for box, said in (([96, 0, 200, 64], "lies outside a picture of 96 x 64"), ([0, 0, 96, 64], "is full")):
        with pytest.raises(ValueError, match=said):
            check(spec_of(tmp_path, mask=box))


def test_a_box_that_reaches_beyond_its_source_is_refused(tmp_path):
    photograph(tmp_path / "photo.png")
    own = {"prompt": "a cat", "mask": [48, 0, 97, 64]}
    for changes in ({"edits": [own]}, {"source": "a dog", "edits": [own], "width": 96, "height": 64}):
        with pytest.raises(ValueError, match=r"^mask = \[48, 0, 97, 64\]: lies outside a picture of 96 x 64"):
            check(spec_of(tmp_path, **changes))


def test_of_many_sources_it_is_said_whose_mask_is_none(tmp_path):
    photograph(tmp_path / "photo.png")
    source = {"image": "photo.png", "prompt": "a dog", "edit": "a cat"}
    sources = [source, source | {"mask": [48, 0, 999, 64]}]
    with pytest.raises(
        ValueError, match=r"^02-photo: mask = \[48, 0, 999, 64\]: lies outside .*: end it there"
    ):
        check(spec_of(tmp_path, source=None, edits=None, sources=sources))


@pytest.mark.parametrize("box, said", [([0, 0, 8, 64], "black"), ([8, 0, 90, 64], "white")])
def test_a_mask_that_a_crop_leaves_nothing_of_is_refused(box, said, tmp_path):
    photograph(tmp_path / "photo.png")
    with pytest.raises(
        ValueError, match=f"^mask = .* of {tmp_path}/photo.png: a mask that is {said} all over"
    ):
        check(spec_of(tmp_path, mask=box, fit="crop", width=64, height=64))
    check(spec_of(tmp_path, mask=box, fit="pad", width=64, height=64))


def test_a_mask_of_an_edit_comes_before_its_sources(tmp_path):
    photograph(tmp_path / "photo.png")
    own = {"prompt": "a bird", "mask": [0, 0, 8, 8]}
    spec = spec_of(tmp_path, edits=["a cat", own], mask="auto")
    assert [job.mask.where for job in jobs_of(spec)] == ["auto", (0, 0, 8, 8)]
