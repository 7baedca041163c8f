"""Attention, watched in demo 1: nothing in the pictures changes, and the tables say what was seen."""

import csv
import importlib.util
import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from helpers_demos import save_clone, small_models
from PIL import Image
from test_pages import Tags

from flux.hooks import CopySource, Hooks
from flux.photos.framing import Frame
from flux.studies.pages.overlays import overlay
from flux.studies.reading import SpecError, load_spec
from flux.studies.timesteps.spec import LayerSpec
from flux.studies.watch.framed import framed, unseen
from flux.studies.watch.kept import WatchedPicture
from flux.studies.watch.report import _spread
from flux.studies.watch.spec import Watch
from flux.studies.watch.watching import watching

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a red hat and a boat"
FEW = ["--steps", "3", "--width", "32", "--height", "48", "--prompt", PROMPT, "--attention", "0"]
WATCH = {"points": [[20, 40]], "box": [0, 16, 17, 32], "words": ["hat", "boat"], "layers": [0, 3, "single.7"]}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return save_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture
def layer(clone, tmp_path, monkeypatch):
    """`layer("a", "--watch", ...)` runs demo 1 into a folder and returns it."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("demo_1_layer", ROOT / "demos" / "demo_1_layer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(name: str, *argv: str) -> Path:
        assert module.main([*FEW, *argv, "--output", name, "--model.weights", str(clone)]) == 0
        return tmp_path / name

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_run_that_is_watched(layer):
    plain, watched = layer("plain"), layer("watched", "--watch", json.dumps(WATCH))
    before, after = files(plain), files(watched)
    pictures = {name: data for name, data in before.items() if name.endswith((".png", ".webp"))}
    assert pictures.items() <= after.items(), "to watch changes nothing"
    names = [f"{what}{part}.png" for what in ("point-1", "box", "word-1", "word-2") for part in _PARTS]
    assert after.keys() - before.keys() == {
        *(f"watch/picture/{name}" for name in [*names, "places.png"]),
        *(f"watch/{name}" for name in ("picture.safetensors", "places.csv", "words.csv")),
        "watch/places-to-words.csv",
    }
    for link in Tags((watched / "index.html").read_text()).links:
        assert (watched / unquote(link)).is_file(), link
    assert json.loads(after["spec.json"])["watch"]["layers"] == [0, 3, 11]
    assert "watch" not in json.loads(before["spec.json"]), "a run made before goes on"


_PARTS = ("", "-1", "-2", "-3")


def test_what_the_tables_say(layer):
    folder = layer("watched", "--watch", json.dumps(WATCH))
    kept = WatchedPicture.read(folder / "watch" / "picture.safetensors")
    assert kept.prompt == PROMPT and kept.layers == (0, 3, 11) and kept.looking == ()
    # 32 x 48 pixels are two columns of three tokens.
    assert kept.places == {"point 1": [5], "box": [2, 3]}
    assert kept.from_places.shape == (3, 3, 2, 48 + 6) and kept.to_words.shape == (3, 3, 2, 6)
    shares = rows(folder / "watch" / "places.csv")
    assert len(shares) == 2 * 3 * 3
    for row in shares:
        assert sum(float(row[key]) for key in ("prompt", "rest_of_text", "image")) == pytest.approx(
            1, abs=1e-5
        )
    first = shares[0]
    assert (first["place"], first["name"], first["vital"], first["step"]) == (
        "point 1",
        "double.0",
        "yes",
        "1",
    )
    text = kept.from_places[0, 0, 0].float() / 54
    assert float(first["image"]) == pytest.approx(float(text[48:].sum()), rel=1e-3)
    assert float(first["prompt"]) == pytest.approx(float(text[:6].sum()), rel=1e-3)
    assert [row["vital"] for row in shares[:9:3]] == ["yes", "yes", "no"]  # flux-tiny's are 0 and 3

    words = rows(folder / "watch" / "words.csv")
    assert [row["word"] for row in words] == ["hat"] * 9 + ["boat"] * 9
    seen = kept.to_words[1, 2, 1].float()
    row = words[9 + 3 + 2]
    assert (row["layer"], row["step"]) == ("3", "3")
    assert float(row["mean"]) == pytest.approx(float(seen.mean()), rel=1e-4)
    assert float(row["in_box"]) == pytest.approx(float(seen[[2, 3]].mean()), rel=1e-4)
    assert float(row["outside_box"]) == pytest.approx(float(seen[[0, 1, 4, 5]].mean()), rel=1e-4)
    place = int(seen.argmax())
    assert (int(row["most_x"]), int(row["most_y"])) == (place % 2 * 16 + 8, place // 2 * 16 + 8)

    spread = rows(folder / "watch" / "places-to-words.csv")
    assert [row["word"] for row in spread[:54:9]] == PROMPT.split()
    assert float(spread[9]["times_uniform"]) == pytest.approx(float(kept.from_places[0, 0, 0, 1]), rel=1e-3)


@pytest.fixture
def edit(clone, tmp_path, monkeypatch):
    """`edit("a", "--watch", ...)` runs demo 4 into a folder and returns it."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("demo_4_edit", ROOT / "demos" / "demo_4_edit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    edits = ["a blue hat and a boat", {"prompt": "a red cat and a boat", "layers": [3, 5]}]
    few = {"--source": PROMPT, "--edits": json.dumps(edits), "--layers": "[0]"}

    def run(name: str, *argv: str, batch: int = 1) -> Path:
        own = ["--batch", str(batch), "--output", name, "--model.weights", str(clone)]
        given = few | dict(zip(argv[::2], argv[1::2], strict=True))
        assert module.main([*FEW[:6], *(word for pair in given.items() for word in pair), *own]) == 0
        return tmp_path / name

    return run


def test_edits_that_are_watched(edit):
    watch = {"box": [0, 16, 17, 32], "words": ["hat", "cat"], "layers": [0, 3]}
    plain, watched = files(edit("plain")), edit("watched", "--watch", json.dumps(watch))
    after = files(watched)
    pictures = {name: data for name, data in plain.items() if name.endswith(".png")}
    assert pictures.items() <= after.items(), "to watch changes nothing"
    for link in Tags((watched / "index.html").read_text()).links:
        assert (watched / unquote(link)).is_file(), link
    kept = {
        name: WatchedPicture.read(watched / "watch" / f"{name}.safetensors")
        for name in ("source", "edit-01", "edit-02")
    }
    assert [each.looking for each in kept.values()] == [(), (0,), (3,)]
    assert [dict(each.words) for each in kept.values()] == [
        {"hat": [2], "cat": []},
        {"hat": [2], "cat": []},
        {"hat": [], "cat": [2]},
    ]
    # Layer 0 is the first: there an edit that copies nothing has seen no other text yet than its own.
    assert not torch.equal(kept["source"].from_places[0], kept["edit-01"].from_places[0])
    words = rows(watched / "watch" / "words.csv")
    assert {(row["picture"], row["word"]) for row in words} == {
        *(("source", "hat"), ("edit-01", "hat"), ("edit-02", "cat"))
    }
    injected = {(row["picture"], row["layer"]): row["injected"] for row in rows(watched / "watch/places.csv")}
    assert injected["edit-01", "0"] == injected["edit-02", "3"] == "yes"
    assert injected["edit-01", "3"] == injected["edit-02", "0"] == "no"


def test_attention_of_edits_does_not_depend_on_their_company(edit):
    watch = json.dumps({"points": [[20, 40]], "words": "hat"})
    apart, together = (
        WatchedPicture.read(edit(f"of-{batch}", "--watch", watch, batch=batch) / "watch/edit-01.safetensors")
        for batch in (1, 2)
    )
    torch.testing.assert_close(apart.from_places, together.from_places, rtol=2e-2, atol=1e-3)
    torch.testing.assert_close(apart.to_words, together.to_words, rtol=2e-2, atol=1e-3)


# By a method


def photograph(path: Path, size=(96, 64)) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize(
    ("method", "evaluations", "sources"),
    [
        ({"name": "flowedit", "start": 0}, 3, True),
        ({"name": "stable-flow", "integrator": "midpoint"}, 6, True),
        ({"name": "rf-inversion"}, 3, False),
        ({"name": "fireflow"}, 4, False),
        ({"name": "gentle", "start": 0, "doubt": 10}, 6, True),  # and all again
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_edits_by_a_method_are_watched(method, evaluations, sources, edit, tmp_path):
    photo = str(photograph(tmp_path / "photo.png"))
    argv = ["--source", json.dumps({"image": photo, "prompt": PROMPT}), "--method", json.dumps(method)]
    argv += ["--layers", "[0]" if sources else "null"]
    argv += ["--edits", '["a blue hat and a boat", "a red cat and a boat"]']
    watch = {"points": [[90, 10]], "box": [0, 0, 33, 20], "words": ["hat", "cat"], "layers": [0, 3]}
    plain = files(edit("plain", *argv, batch=2))
    watched = edit("watched", *argv, "--watch", json.dumps(watch), batch=2)
    after = files(watched)
    assert {name: data for name, data in plain.items() if name.endswith(".png")}.items() <= after.items()
    for link in Tags((watched / "index.html").read_text()).links:
        assert (watched / unquote(link)).is_file(), link
    names = [*(["source"] if sources else []), "edit-01", "edit-02"]
    kept = {name: WatchedPicture.read(watched / "watch" / f"{name}.safetensors") for name in names}
    assert {name for name in after if name.endswith(".safetensors")} == {
        f"watch/{name}.safetensors" for name in names
    }
    # 96 x 64 pixels are edited at 48 x 32: three columns of two tokens.
    for name, each in kept.items():
        assert each.places == {"point 1": [2], "box": [0, 1]}
        assert each.from_places.shape == (2, evaluations, 2, 48 + 6)
        assert torch.isfinite(each.from_places.float()).all() and each.from_places.any()
        assert each.looking == ((0,) if sources and name != "source" else ())
    assert [list(kept[name].words.values()) for name in names[-2:]] == [[[2], []], [[], [2]]]
    assert not torch.equal(kept["edit-01"].from_places[1], kept["edit-02"].from_places[1])


def test_a_lost_file_of_attention_by_a_method_is_made_again(edit):
    argv = ["--method", "flowedit", "--watch", '{"points": [[20, 40]], "words": "hat"}']
    folder = edit("watched", *argv, batch=2)
    before = files(folder)
    (folder / "watch" / "edit-02.safetensors").unlink()
    after = files(edit("watched", *argv, batch=2))
    assert {**after, "run.json": b""} == {**before, "run.json": b""}


@pytest.mark.parametrize(("last", "beside"), [(0.34, 2), (1, 0)])
def test_a_source_is_watched_where_it_stands_beside_its_edit(last, beside, edit):
    """Which it does not in steps that sample the edit plainly."""
    method = json.dumps({"name": "flowedit", "start": 0, "last": last})
    folder = edit(
        "watched", "--method", method, "--watch", '{"points": [[20, 40]]}', "--edits", '["a blue hat"]'
    )
    kept = {each.stem: WatchedPicture.read(each) for each in (folder / "watch").glob("*.safetensors")}
    counts = {"edit-01": 3, **({"source": beside} if beside else {})}
    assert {name: len(each.times) for name, each in kept.items()} == counts
    assert all(each.from_places.shape[1] == len(each.times) for each in kept.values())


@pytest.mark.parametrize("method", ["null", "flowedit"])
def test_words_are_watched_where_t5_reads_them(method, edit):
    """And need not stand in what CLIP reads."""
    source = {"prompt": "a field", "prompt_2": "a red hat"}
    edits = [{"prompt": "a sea", "prompt_2": "a big blue hat"}]
    argv = ["--source", json.dumps(source), "--edits", json.dumps(edits), "--method", method]
    folder = edit("watched", *argv, "--watch", '{"words": "hat"}')
    kept = [WatchedPicture.read(folder / f"watch/{name}.safetensors") for name in ("source", "edit-01")]
    assert [each.prompt for each in kept] == ["a red hat", "a big blue hat"]
    assert [list(each.words.values()) for each in kept] == [[[2]], [[3]]]


def test_places_of_a_photo_are_those_of_the_picture_that_is_edited():
    watch = Watch(points=[(0, 0), (99, 59)], box=(50, 30, 51, 31))
    half = Frame((100, 60), (48, 32), (0, 0, 100, 60))
    assert framed(watch, half).points == ((0, 0), (47, 31)) and framed(watch, half).box == (24, 16, 25, 17)
    crop = Frame((100, 60), (48, 48), (20, 0, 80, 60))
    assert [problem.path for problem in unseen(watch, crop)] == [("points", 0), ("points", 1)]
    assert not list(unseen(watch, half)) and framed(watch, crop).box == (24, 24, 25, 25)
    assert [problem.path for problem in unseen(Watch(points=[(100, 0)]), half)] == [("points", 0)]
    beside = Watch(box=(0, 0, 20, 60))
    assert list(unseen(beside, crop)) and framed(Watch(box=(0, 0, 50, 90)), crop).box == (0, 0, 24, 48)


def test_a_place_outside_a_photo_is_said_before_anything_loads(edit, tmp_path, capsys):
    photo = str(photograph(tmp_path / "photo.png"))
    source = json.dumps({"image": photo, "prompt": PROMPT})
    with pytest.raises(AssertionError, match="2 == 0"):
        edit("out", "--source", source, "--watch", '{"points": [[96, 3]]}')
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{photo}: watch.points[0] = [96, 3]: lies outside the picture, 96 x 64" in said


def test_a_lost_file_of_attention_is_made_again(layer):
    folder = layer("watched", "--watch", json.dumps(WATCH))
    before = files(folder)
    (folder / "watch" / "picture.safetensors").unlink()
    (folder / "watch" / "picture" / "box.png").write_bytes(b"")
    after = files(layer("watched", "--watch", json.dumps(WATCH)))
    assert {**after, "run.json": b""} == {**before, "run.json": b""}


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ({}, "watch = {"),
        ({"points": [[32, 0]]}, "watch.points[0] = [32, 0]: lies outside the picture, 32 x 48"),
        ({"points": [[1.5, 0]]}, "watch.points[0] = [1.5, 0]: must be [x, y] in pixels, two whole numbers"),
        ({"points": []}, "watch.points = []: must be a list of points, such as [[64, 80]]"),
        ({"points": [[0, 0]] * 33}, "must have at most 32 points"),
        ({"box": [0, 0, 33, 48]}, "watch.box = [0, 0, 33, 48]: lies outside the picture, 32 x 48"),
        ({"box": [8, 0, 8, 9]}, "watch.box = [8, 0, 8, 9]: must be [left, top, right, bottom] in pixels"),
        ({"words": ["cat"]}, "watch.words[0] = \"cat\": is no word of prompt 'a red hat and a boat'"),
        ({"words": ["ha"]}, 'watch.words[0] = "ha": is no word of'),
        ({"words": [" "]}, 'watch.words[0] = " ": must not be blank'),
        ({"words": "hat", "layers": [99]}, "watch.layers[0] = 99: flux-tiny has layers 0 to 11"),
    ],
)
def test_a_wrong_thing_to_watch_is_said_in_one_line(watch, said):
    with pytest.raises(SpecError) as error:
        load_spec(LayerSpec, None, {"prompt": PROMPT, "width": 32, "height": 48, "watch": watch})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_tokenizer_that_does_not_tell_is_named():
    spec = load_spec(LayerSpec, None, {"prompt": PROMPT, "watch": {"words": "hat"}})
    with pytest.raises(ValueError, match=r"watch\.words: the tokenizer of this T5 does not tell"):
        watching(spec.watch, spec, small_models(), [0], [PROMPT])
    only = load_spec(LayerSpec, None, {"prompt": PROMPT, "watch": {"box": [0, 0, 64, 64]}})
    assert watching(only.watch, only, small_models(), [0], [PROMPT]).places == {
        "box": tuple(row * 8 + column for row in range(4) for column in range(4))
    }


def test_the_hook_stands_behind_all_injections():
    """So that it sees the keys that a layer attends with, the source's where they are copied."""
    spec = load_spec(LayerSpec, None, {"prompt": PROMPT, "watch": {"points": [[0, 0]], "layers": [0, 3]}})
    watched = watching(spec.watch, spec, small_models(), [0], [PROMPT])
    copies = [CopySource(strength=strength) for strength in (0.5, 1.0)]
    plan = watched.behind(Hooks(skip=[5], inject={0: copies, 2: copies[0]}))
    assert dict(plan.inject) == {0: (*copies, watched.hook), 2: (copies[0],), 3: (watched.hook,)}
    assert dict(plan.skip) == {5: True} and dict(watched.behind(None).inject).keys() == {0, 3}


def test_an_overlay_is_bright_where_the_map_is():
    picture = Image.new("RGB", (32, 48), (10, 200, 30))
    values = np.zeros((3, 2))
    values[2, 1] = 4
    drawn = np.asarray(overlay(picture, values, 4.0)).astype(int).sum(axis=-1)
    assert drawn[32:, 16:].min() > 1.5 * drawn[:32].max()


def test_steps_shown_are_spread_evenly():
    assert _spread(50, 16)[:3] == [0, 3, 7] and _spread(50, 16)[-1] == 49 and len(_spread(50, 16)) == 16
    assert _spread(3, 16) == [0, 1, 2] and _spread(1, 16) == [0]


def test_the_same_numbers_are_the_same_bytes(tmp_path):
    kept = WatchedPicture(
        prompt="ä b",
        spans=[(0, 1), (2, 3), (0, 0)],
        layers=(0, 2),
        looking=(2,),
        times=(1.0, 0.4),
        places={"box": [0, 1]},
        words={"b": [1]},
        from_places=torch.rand(2, 2, 1, 7).half(),
        to_words=torch.rand(2, 2, 1, 4).half(),
        shares=torch.rand(2, 2, 1, 3),
    )
    (tmp_path / "kept").write_bytes(kept.to_bytes())
    again = WatchedPicture.read(tmp_path / "kept")
    assert again.to_bytes() == kept.to_bytes() and again.times == kept.times and again.spans == kept.spans
    assert torch.equal(again.to_words, kept.to_words)
