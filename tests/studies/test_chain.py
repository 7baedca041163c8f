"""Chains of demo 4: each edit goes on from kept latents; drift, undoing, resuming, mistakes."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_demos import assert_whole_run, files, load_demo, pictures, run_demo

import flux.photos.sources
from flux.methods.masks import own_mask
from flux.models import configs
from flux.pictures.metrics import changed_share, psnr, psnr_outside, ssim, ssim_outside
from flux.studies.edit.chaining import links_of
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec

FEW = ["--steps", "3", "--width", "48", "--height", "32", "--checks.dino", "off"]
SOURCE = ["--source.prompt", "a red hat"]
HATS = ["a blue hat", "a blue hat and a boat", {"prompt": "a red boat", "after": 1}]


@pytest.fixture
def chain(clone, tmp_path, monkeypatch):
    """`chain("a", [edits], ...)` runs demo 4 with a chain into a folder and returns it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.json").write_text("{}")

    def run(name: str, edits: list, *argv: str, chained: str = "true") -> Path:
        own = ["--edits", json.dumps(edits), "--output", name, "--model.weights", str(clone)]
        command = ["none.json", *FEW, *SOURCE, "--chain", chained, *own, *argv]
        assert load_demo("demo_4_edit").main(command) == 0
        return tmp_path / name

    return run


def latents(folder: Path, name: str) -> torch.Tensor:
    return load_file(folder / "latents" / f"{name}.safetensors")["latents"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "drift.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


# Side by side


def test_a_chain_side_by_side(chain, clone, tmp_path):
    folder = chain("chain", HATS, "--layers", "[0, 3]")
    record = assert_whole_run(folder)
    assert files(folder) == {
        *(f"{kind}-{i:02}.png" for kind in ("edit", "mask", "difference") for i in (1, 2, 3)),
        *(f"latents/{name}.safetensors" for name in ("source", "edit-01", "edit-02", "edit-03")),
        *("source.png", "drift.csv", "sheet.png", "index.html", "run.json", "spec.json"),
    }
    ways = [latents(folder, name) for name in ("source", "edit-01", "edit-02", "edit-03")]
    # Both ends and what lies between, all from one noise.
    assert all(way.shape == (4, 6, 64) and torch.equal(way[0], ways[0][0]) for way in ways)
    assert len({float(way[-1].sum()) for way in ways}) == 4
    assert [link["after"] for link in record["links"]] == [0, 1, 1]

    # The first link is what an edit without a chain is, to rounding.
    argv = [
        "none.json",
        *FEW,
        *SOURCE,
        "--edits",
        '["a blue hat"]',
        "--layers",
        "[0, 3]",
        "--output",
        "alone",
    ]
    assert load_demo("demo_4_edit").main([*argv, "--model.weights", str(clone)]) == 0
    for name in ("source.png", "edit-01.png"):
        pair = [np.asarray(Image.open(tmp_path / run / name)).astype(int) for run in ("alone", "chain")]
        assert abs(pair[0] - pair[1]).max() <= 1


def test_links_are_pasted_into_what_they_go_on_from(chain):
    pasted = chain("pasted", HATS, "--layers", "[0, 3]", "--paste", "true")
    plain = chain("plain", HATS, "--layers", "[0, 3]", "--paste", "false")
    names = ("source", "edit-01", "edit-02", "edit-03")
    source, one, *_ = ways = [latents(pasted, name) for name in names]
    own = [latents(plain, name) for name in names]
    assert torch.equal(source, own[0])
    mask = own_mask(own[0][-1:], own[1][-1:], (2, 3), configs["flux-tiny"].latent_spread)[0]
    torch.testing.assert_close(one, own[0] + mask * (own[1] - own[0]))
    assert not torch.allclose(ways[2], own[2])
    levels = [np.asarray(Image.open(pasted / f"{name}.png")) for name in names]
    for number, before in ((1, 0), (2, 1), (3, 1)):
        dark = np.asarray(Image.open(pasted / f"mask-0{number}.png")) == 0
        assert np.array_equal(levels[number][dark], levels[before][dark])


def test_a_link_looks_at_the_one_it_stands_after(chain):
    """With nothing to look at it would be the same; and it is no edit of the source."""
    folder = chain("chain", ["a blue hat", "a boat"], "--layers", "all")
    apart = chain("apart", ["a blue hat", {"prompt": "a boat", "after": 0}], "--layers", "all")
    free = [
        chain(f"free-{i}", ["a blue hat", {"prompt": "a boat", "after": i}], "--layers", "[]") for i in (0, 1)
    ]
    assert torch.equal(latents(folder, "edit-01"), latents(apart, "edit-01"))
    assert not torch.allclose(latents(folder, "edit-02"), latents(apart, "edit-02"), atol=1e-3)
    torch.testing.assert_close(*(latents(each, "edit-02") for each in free), rtol=1e-4, atol=1e-5)


def test_a_link_that_asks_for_nothing_new_is_what_it_goes_on_from(chain):
    folder = chain("chain", ["a blue hat", "a blue hat", "a blue hat"], "--layers", "all")
    for name in ("edit-02", "edit-03"):
        torch.testing.assert_close(latents(folder, name), latents(folder, "edit-01"), rtol=1e-4, atol=1e-4)


def test_a_step_is_undone_by_going_on_from_another(chain):
    undone = chain("undone", ["a blue hat", "a boat", {"prompt": "a cat", "after": 1}])
    never = chain("never", ["a blue hat", "a cat"])
    assert torch.equal(latents(undone, "edit-03"), latents(never, "edit-02"))
    pair = [np.asarray(Image.open(path)) for path in (undone / "edit-03.png", never / "edit-02.png")]
    assert np.array_equal(*pair)


# By a method


def photograph(path: Path) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((96, 64), Image.Resampling.BICUBIC).save(path)
    return path


def test_a_chain_of_a_photo_is_encoded_once(chain, tmp_path, monkeypatch):
    encoded = []
    real = flux.photos.sources.encode_pictures
    monkeypatch.setattr(
        flux.photos.sources, "encode_pictures", lambda *args, **more: encoded.append(1) or real(*args, **more)
    )
    photo = photograph(tmp_path / "photo.png")
    boxes = ([64, 0, 96, 64], [0, 0, 32, 64], [0, 0, 32, 64])
    edits = [
        {"prompt": prompt, "mask": box}
        for prompt, box in zip(("a blue hat", "a boat", "a cat"), boxes, strict=True)
    ]
    edits[2]["after"] = 1
    folder = chain("chain", edits, "--source.image", str(photo), "--method", "flowedit")
    assert_whole_run(folder)
    assert encoded == [1], "links go on from latents"
    own, *fulls = (
        np.asarray(Image.open(path)) for path in (photo, *(folder / f"full-{i:02}.png" for i in (1, 2, 3)))
    )
    first, second, third = fulls
    assert np.array_equal(own[:, :56], first[:, :56]) and not np.array_equal(own[:, 72:], first[:, 72:])
    # The second edit has its own side, and keeps the first one's pixels, which are none of the photo's.
    assert np.array_equal(second[:, 40:], first[:, 40:]) and not np.array_equal(second[:, :24], own[:, :24])
    assert np.array_equal(third[:, 40:], first[:, 40:]) and not np.array_equal(third, second)
    one, two, _ = rows(folder)
    assert float(one["drift_psnr"]) > 50 and float(one["outside"]) > 0.5, "pasted, it is the photo"
    assert float(two["outside"]) < float(one["outside"])
    assert latents(folder, "edit-02").shape == (1, 6, 64)


def test_a_generated_picture_keeps_its_pixels_through_a_chain_by_a_method(chain):
    """Each link is pasted into the picture before it as that was pasted, not into what its latent shows."""
    boxes = ([0, 0, 16, 32], [32, 0, 48, 32])
    edits = [{"prompt": f"a boat {i}", "mask": box} for i, box in enumerate(boxes)]
    folder = chain("chain", edits, "--method", "flowedit")
    assert_whole_run(folder)
    levels = [np.asarray(Image.open(folder / f"{name}.png")) for name in ("source", "full-01", "full-02")]
    masks = [np.asarray(Image.open(folder / f"mask-0{i}.png")) for i in (1, 2)]
    for mask, before, after in zip(masks, levels[:-1], levels[1:], strict=True):
        assert np.array_equal(before[mask == 0], after[mask == 0]) and not np.array_equal(before, after)
    nowhere = (masks[0] == 0) & (masks[1] == 0)
    assert nowhere.mean() > 0.1 and np.array_equal(levels[0][nowhere], levels[2][nowhere])


def test_the_padding_of_a_photo_is_no_drift(chain, tmp_path):
    Image.open(photograph(tmp_path / "large.png")).resize((48, 16)).save(tmp_path / "photo.png")
    argv = ["--source.image", "photo.png", "--fit", "pad", "--method", "flowedit"]
    folder = chain("padded", HATS[:2], *argv, "--mask", "[0, 0, 48, 8]", "--paste", "false")
    names = ("source", "edit-02", "edit-01", "mask-02")  # of the photo's rows alone
    first, edit, before, mask = (Image.open(folder / f"{name}.png").crop((0, 8, 48, 24)) for name in names)
    row = rows(folder)[1]
    assert float(row["outside"]) == pytest.approx((np.asarray(mask) < 2.55).mean())
    assert float(row["changed"]) == pytest.approx(changed_share(first, edit))
    assert float(row["drift_psnr"]) == pytest.approx(psnr_outside(first, edit, mask))
    assert float(row["drift_ssim"]) == pytest.approx(ssim_outside(first, edit, mask))
    assert float(row["own_psnr"]) == pytest.approx(psnr_outside(before, edit, mask))


def test_links_of_a_photo_that_the_model_draws_smaller(chain, tmp_path):
    """Of 256 x 256 pixels, as many as are asked for, flux-tiny draws 128 x 128."""
    Image.effect_noise((256, 256), 60).convert("RGB").save(tmp_path / "photo.png")
    argv = ["--source.image", str(tmp_path / "photo.png"), "--method", "noise", "--pixels", "65536"]
    folder = chain("chain", ["a boat", "a cat"], *argv)
    assert [latents(folder, f"edit-0{i}").shape for i in (1, 2)] == [(1, 64, 64)] * 2


# Going on


@pytest.mark.parametrize("method", [[], ["--method", "flowedit"]], ids=["side by side", "by a method"])
def test_a_killed_chain_is_finished_by_the_next(method, chain, clone, tmp_path):
    edits = [f"a {'red ' * i}hat" for i in range(8)]
    folder = tmp_path / "killed"
    (tmp_path / "none.json").write_text("{}")
    argv = [
        str(tmp_path / "none.json"),
        *FEW,
        *SOURCE,
        "--chain",
        "true",
        "--edits",
        json.dumps(edits),
        *method,
    ]
    own = ["--model.weights", str(clone), "--output", str(folder)]
    running = run_demo(
        "edit", *argv, *own, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (folder / "edit-03.png").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (folder / "edit-08.png").exists()
    assert load_demo("demo_4_edit").main([*argv, *own]) == 0
    assert_whole_run(folder)
    whole = chain("whole", edits, *method)
    assert pictures(folder) == pictures(whole)
    for file in (whole / "latents").iterdir():
        assert (folder / "latents" / file.name).read_bytes() == file.read_bytes()


def test_lost_files_of_a_chain_are_made_again(chain):
    folder = chain("chain", HATS)
    before = {name: (folder / name).read_bytes() for name in files(folder) if name != "run.json"}
    for name in ("edit-02.png", "latents/edit-01.safetensors", "mask-03.png"):
        (folder / name).unlink()
    chain("chain", HATS)
    assert {name: (folder / name).read_bytes() for name in files(folder) if name != "run.json"} == before


# The drift report


def test_what_went_wrong_with_a_link_is_said(chain, capsys):
    """Held against what it goes on from, which the second link leaves as it is."""
    folder = chain("chain", ["a blue hat", "a blue hat"], "--layers", "all")
    out, page = capsys.readouterr().out, (folder / "index.html").read_text()
    first, second = json.loads((folder / "run.json").read_text())["links"]
    (notice,) = second["notices"]
    assert notice.startswith("did nothing: 0.00% of pixels changed") and notice not in first["notices"]
    assert f"edit-02, after 1: {notice}" in out
    assert "Beside what it goes on from, this edit did nothing: 0.00% of pixels changed" in page


MOVED = """
from flux.methods.task import MethodStep


def edit(task, *, size=1.0):
    clean = task.field.of_edits(task.clean)
    yield MethodStep("edit", 0, 1, 1.0, 0.0, clean + size)
"""


@pytest.mark.parametrize(("size", "outside"), [(0, 1), (9, 0)])
def test_links_have_the_figures_of_edits_by_themselves(size, outside, chain, tmp_path):
    (tmp_path / "moved.py").write_text(MOVED)
    argv = ["--method", "moved:edit", "--method.size", str(size)]
    (link,) = json.loads((chain("chain", HATS[:1], *argv) / "run.json").read_text())["links"]
    (alone,) = json.loads((chain("alone", HATS[:1], *argv, chained="false") / "run.json").read_text())[
        "edits"
    ]
    for name in ("evaluations", "mask", "pasted", "note", "notices"):
        assert link[name] == alone[name]
    assert (size == 0) == any(text.startswith("did nothing") for text in link["notices"])
    # Both leave a PSNR empty: what is equal, and what changed everywhere.
    (row,) = rows(tmp_path / "chain")
    assert (row["own_psnr"], row["own_outside"]) == ("", str(outside))
    shown = "to what it goes on from, outside its own mask" in (tmp_path / "chain/index.html").read_text()
    assert shown == (size == 0)


def test_drift_is_measured_where_no_link_has_changed_anything(chain):
    folder = chain("chain", HATS[:2], "--layers", "all")
    masks = [np.asarray(Image.open(folder / f"mask-0{i}.png").convert("L")) for i in (1, 2)]
    every = Image.fromarray(np.maximum(*masks))
    shown = [Image.open(folder / name) for name in ("source.png", "edit-02.png")]
    row = rows(folder)[1]
    assert float(row["outside"]) == pytest.approx((np.asarray(every) < 2.55).mean())
    expected = (psnr_outside(*shown, every), ssim_outside(*shown, every))
    for name, value in zip(("drift_psnr", "drift_ssim"), expected, strict=True):
        assert row[name] == ("" if value is None else f"{value:.8g}")


def test_figures_outside_a_mask():
    levels = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    one, other = Image.fromarray(levels), Image.fromarray(levels.copy())
    changed = levels.copy()
    changed[:, 16:] //= 2
    changed[0, 0] ^= 8
    other, mask = Image.fromarray(changed), np.zeros((24, 32), np.uint8)
    none = Image.fromarray(mask)
    assert psnr_outside(one, other, none) == pytest.approx(psnr(one, other))
    assert ssim_outside(one, other, none) == pytest.approx(ssim(one, other))
    mask[:, 13:] = 255
    half = Image.fromarray(mask)
    left = [Image.fromarray(np.asarray(each)[:, :13]) for each in (one, other)]
    assert psnr_outside(one, other, half) == pytest.approx(psnr(*left))
    assert ssim_outside(one, other, half) > 0.99 > ssim(one, other)
    assert psnr_outside(one, one, half) is None
    full = Image.fromarray(np.full((24, 32), 255, np.uint8))
    small = [each.crop((0, 0, 32, 6)) for each in (one, other, none)]
    assert ssim_outside(*small) is None
    assert psnr_outside(one, other, full) is None and ssim_outside(one, other, full) is None


# Mistakes


def spec_of(**changes) -> EditSpec:
    return load_spec(EditSpec, None, {"source": "a hat", "edits": ["a", "b"], "chain": True, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"edits": ["a", {"prompt": "b", "after": 2}]},
            "edits[1].after = 2: is the edit itself: a chain goes on from 0, the source, or from",
        ),
        (
            {"edits": [{"prompt": "a", "after": 2}, "b"]},
            "edits[0].after = 2: is made later: a chain goes on from 0",
        ),
        ({"edits": [{"prompt": "a", "after": -1}]}, "edits[0].after = -1: must be between 0 and"),
        (
            {"edits": [{"prompt": "a", "after": 0}], "chain": False},
            "after = 0: is for a chain: set chain to true",
        ),
        ({"edits": [{"prompt": "a", "seeds": [1, 2]}]}, "edits[0].seeds: a chain has the seed of its spec"),
        ({"watch": {"words": "a"}}, "watch: is for edits by themselves: leave chain out"),
        ({"chain": 1}, "chain = 1: must be true or false"),
    ],
)
def test_a_wrong_chain_is_said_in_one_line(changes, said):
    with pytest.raises(SpecError) as error:
        spec_of(**changes)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_chain_is_not_its_own_source(chain, clone, tmp_path, capsys):
    folder = chain("chain", ["a blue hat"])
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    argv = ["none.json", *FEW, "--chain", "true", "--edits", '["a boat"]', "--output", str(folder)]
    image = ["--source.image", str(folder / "edit-01.png"), "--source.prompt", "a hat"]
    with pytest.raises(SystemExit) as end:
        load_demo("demo_4_edit").main([*argv, *image, "--model.weights", str(clone)])
    said = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and "lies in the chain's own output folder" in said
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_links_stand_behind_what_they_go_on_from():
    links = links_of(spec_of(edits=["a", "b", {"prompt": "c", "after": 1}, "d", {"prompt": "e", "after": 0}]))
    assert [[each.number for each in link.line] for link in links] == [[1], [1, 2], [1, 3], [1, 3, 4], [5]]
    assert links[3].source_prompt == "c" and links[3].source_latents == "latents/edit-03.safetensors"
    assert links[4].source_prompt == "a hat" and links[4].source_file == "source.png"
