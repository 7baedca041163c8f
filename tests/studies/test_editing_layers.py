"""From a sweep by carry to sets of layers that edits were tried with, and into demo 4."""

import json
from itertools import product

import helpers_sweeps
import numpy as np
import pytest
import torch
from helpers_sweeps import draw_sweep, save_clip, save_dino
from PIL import Image
from test_demos import load_demo
from transformers import CLIPModel

from flux.models import configs
from flux.pictures.directions import ClipTexts, Directions
from flux.pictures.features import Clip
from flux.pictures.files import to_pil
from flux.pictures.metrics import psnr
from flux.studies.edit.requests import edit_of
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec
from flux.studies.similarity import trying
from flux.studies.similarity.recommending import FREE, TriedSet, front, paired, recommend, sets_along
from flux.weights.identity import weights_id

# Numbers alone


@pytest.mark.parametrize(("count", "most"), [(2, 24), (12, 24), (12, 3), (57, 24), (57, 200)])
def test_sets_follow_the_order(count, most):
    order = [int(layer) for layer in np.random.default_rng(count).permutation(count)]
    found = sets_along(order, most)
    assert len(set(found)) == len(found) and len(found) <= max(most, 9)
    places = {layer: i for i, layer in enumerate(order)}
    for layers in found:
        assert list(layers) == sorted(layers)
        at = sorted(places[layer] for layer in layers)
        assert at == list(range(at[0], at[0] + len(layers))) and len(layers) < count
    sizes = {len(layers) for layers in found}
    # Of each size the layers that carry most are among them.
    assert all(tuple(sorted(order[:size])) in found for size in sizes)


def tried(*means: tuple[float, float]) -> list[TriedSet]:
    return [TriedSet((i,), (made,), (kept,)) for i, (made, kept) in enumerate(means)]


def test_the_front_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    sets = tried(*((float(a), float(b)) for a, b in rng.integers(0, 6, (30, 2))))
    plain = set()
    for one in sets:
        worse = False
        for other in sets:
            better = other.made[0] > one.made[0] or other.kept[0] > one.kept[0]
            if better and other.made[0] >= one.made[0] and other.kept[0] >= one.kept[0]:
                worse = True
        if not worse:
            plain.add(one.layers)
    assert {each.layers for each in front(sets)} == plain
    kept = [each.kept[0] for each in front(sets)]
    assert kept == sorted(kept)


def test_each_wish_keeps_most_of_what_makes_enough():
    none = TriedSet((), (1.0,), (20.0,))
    sets = tried((1.0, 22.0), (0.99, 23.0), (0.96, 25.0), (0.9, 27.0), (0.85, 28.0), (0.5, 40.0))
    chosen, notes = recommend(sets, none)
    assert chosen == {"keep more": (4,), "balanced": (2,), "change more": (1,)} and notes == []


def test_wishes_that_are_one_set_say_why():
    none = TriedSet((), (1.0,), (20.0,))
    chosen, notes = recommend(tried((1.0, 25.0), (0.2, 30.0)), none)
    assert set(chosen.values()) == {(0,)} and len(notes) == 2
    assert notes[0].startswith("keep more is balanced: none that makes less by up to 0.15 keeps more")
    chosen, notes = recommend(tried((0.6, 25.0), (0.7, 24.0)), none)
    assert set(chosen.values()) == {(1,)}
    assert "change more: every set that was tried lost more than 0.01 of what is made" in notes


def test_paired_differences_have_their_interval():
    rng = np.random.default_rng(1)
    first = rng.normal(0, 1, 200)
    mean, low, high = paired(first + 1, first)
    assert (round(mean, 6), round(low, 6), round(high, 6)) == (1, 1, 1)  # the pairs' own spread is gone
    mean, low, high = paired(first, rng.normal(0, 1, 200))
    assert low < mean < high and 0.1 < (high - low) / 2 < 0.3


# What an edit is scored by where no judge is


class FourPatches:
    """Stands in for DINO: the mean colours of quarters, as directions."""

    def patches(self, pictures):
        levels = np.stack([np.asarray(each.resize((2, 2), Image.Resampling.BOX)) for each in pictures])
        tokens = torch.from_numpy(levels).reshape(len(pictures), 4, 3).float()
        return torch.nn.functional.normalize(tokens, dim=-1)


def quarters(*colours: str) -> torch.Tensor:
    picture = Image.new("RGB", (32, 32))
    for (y, x), colour in zip(product((0, 16), (0, 16)), colours, strict=True):
        picture.paste(Image.new("RGB", (16, 16), colour), (x, y))
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 127.5 - 1


def test_by_region_is_the_rule():
    source, plain = quarters("red", "red", "red", "red"), quarters("blue", "red", "red", "red")
    score = trying.ByRegion(FourPatches())
    assert score(None, source, plain, plain) == (pytest.approx(1), trying.MOST_KEPT)
    assert score(None, source, plain, source) == (pytest.approx(0, abs=1e-6), trying.MOST_KEPT)
    assert score(None, source, source, source)[0] == 1  # nothing was to be made
    # Half of the way, and one quarter outside the region changed too.
    edit = quarters("#800080", "#f00000", "red", "red")
    made, kept = score(None, source, plain, edit)
    assert made == pytest.approx(0.5**0.5, abs=1e-3)
    outside = [np.asarray(to_pil(each)).copy() for each in (source, edit)]
    for each in outside:
        each[:16, :16] = 0
    flat = [Image.fromarray(each.reshape(-1, 32, 3)[:, :]) for each in outside]
    # The same error over three quarters of the pixels.
    assert kept == pytest.approx(psnr(*flat) + 10 * np.log10(0.75), abs=1e-3)


class Compass:
    """Stands in for CLIP: what is east, and how blue a picture is."""

    def embed(self, items):
        if isinstance(items[0], str):
            return np.array([[1.0, 0.0] if text == "west" else [0.0, 1.0] for text in items])
        blue = np.array([np.asarray(each).mean(axis=(0, 1))[2] / 255 for each in items])
        return np.stack([1 - blue, blue], axis=-1)[:, None]


def test_by_direction_is_the_share_of_the_way():
    shares = (0, 0.2, 0.4, 0.8, 1)
    colours = {share: quarters(*[f"#0000{round(share * 255):02x}"] * 4) for share in shares}
    score = trying.ByDirection(trying.ByRegion(FourPatches()), Directions(Compass(), Compass()))
    west, half = prompts("west", "east"), {0: 0, 0.2: 0, 0.4: 0.333, 0.8: 1, 1: 1}
    for share, wanted in half.items():
        made, kept = score(west, colours[0.2], colours[0.8], colours[share])
        assert made == pytest.approx(wanted, abs=0.01), share
        assert kept == trying.ByRegion(FourPatches())(west, colours[0.2], colours[0.8], colours[share])[1]
    # Where the edit without injection goes no way, or back, none can be missed.
    assert score(west, colours[0.2], colours[0.2], colours[0])[0] == 1
    assert score(prompts("east", "west"), colours[0.2], colours[0.8], colours[0])[0] == 1
    assert score(prompts("west", "west"), colours[0.2], colours[0.8], colours[0])[0] == 1


def prompts(*words: str) -> trying.Prompts:
    return trying.Prompts(words, 0)


def test_texts_and_pictures_of_a_clip_share_their_space(tmp_path):
    clip = save_clip(tmp_path, words=True)
    texts = ClipTexts(clip)
    found = texts.embed(["a red house", "a blue house", "a red house " * 40])
    picture = Clip(clip).embed([Image.new("RGB", (40, 30), "red")])
    assert found.shape == (3, 16) and picture.shape == (1, 1, 16)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5) and not np.allclose(found[0], found[1])
    # As the whole model has it, and a text beside a longer one as alone.
    whole = CLIPModel.from_pretrained(clip).eval()
    with torch.inference_mode():
        tokens = texts.tokenizer(["a red house"], return_tensors="pt")
        plain = whole.text_projection(whole.text_model(**tokens).pooler_output)[0]
    assert np.allclose(found[0], plain / plain.norm(), atol=1e-5)


# Demo 3


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> str:
    return str(save_dino(tmp_path_factory.mktemp("dino")))


@pytest.fixture
def carry(tmp_path, monkeypatch):
    """A sweep by carry with drawn pictures, of the weights that are there."""
    tiny = configs["flux-tiny"]
    setting = {"device": "cpu", "dtype": "float32", "weights": weights_id(tiny, tiny.home)}
    monkeypatch.setattr(helpers_sweeps, "SETTING", setting)
    monkeypatch.chdir(tmp_path)

    def draw(name: str = "carry", probe="carry", **more):
        values = {"groups": [(1,), (4,), (8,)], "prompts": 2, "size": (128, 128), "probe": probe}
        return draw_sweep(tmp_path / name, **{**values, **more})

    return draw


@pytest.fixture
def demo(dino):
    module = load_demo("demo_3_dino")

    def run(*argv: str, output: str = "out") -> int:
        return module.main([*argv, "--model", dino, "--device", "cpu", "--output", output])

    return run


QUICK = ("--editing.pairs", "4", "--editing.sets", "2")


@pytest.fixture
def edits(monkeypatch):
    """The pairs that edits were made of, in order."""
    made = []
    plain = trying.Trial._edit
    monkeypatch.setattr(
        trying.Trial,
        "_edit",
        lambda self, pair, sets: (made.append(pair.prompts), plain(self, pair, sets))[1],
    )
    return made


def test_one_command_after_the_sweep_makes_the_file(carry, demo, edits, tmp_path, capsys):
    carry()
    assert demo("--sweep", "carry", *QUICK) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "editing_layers.json").read_text())
    assert set(found["sets"]) == set(FREE) and found["layers"] == found["sets"]["balanced"]
    assert sorted(found["order"]) == [1, 4, 8] and found["model"] == "flux-tiny"
    evidence = found["evidence"]
    assert (evidence["chosen on"], evidence["measured again on"], evidence["steps"]) == (2, 2, 2)
    assert evidence["order by"]["token"] == "patch by patch, whitened"
    assert [each["layers"] for each in evidence["tried"]] == [
        list(each) for each in sets_along(found["order"], 2)
    ]
    assert "For demo 4" in out and len(edits) == 4 and len(set(edits)) == 4
    page = (tmp_path / "out" / "index.html").read_text()
    assert "editing_sets.png" in page and "tried/check-0001-source.png" in page
    assert str(tmp_path) not in json.dumps(found)
    # Figures are those of the pairs, and pairs to measure on are others than those to choose on.
    choose = [json.loads((tmp_path / f"out/tried/choose-000{i}.json").read_text()) for i in (0, 2)]
    none = np.mean([each["scores"][0] for each in choose], axis=0)
    assert evidence["none"]["made"] == pytest.approx(none[0], abs=1e-4)
    assert evidence["none"]["kept"] == pytest.approx(none[1], abs=1e-3)

    for take, layers in found["sets"].items():
        spec = load_spec(
            EditSpec,
            None,
            {"source": "a", "edits": ["b"], "layers": {"file": "out/editing_layers.json", "take": take}},
        )
        assert edit_of(spec, spec.edits[0]).layers == tuple(layers)
    spec = load_spec(EditSpec, None, {"source": "a", "edits": ["b"], "layers": "out/editing_layers.json"})
    assert edit_of(spec, spec.edits[0]).layers == tuple(found["layers"])


def test_a_run_that_was_cut_off_goes_on(carry, demo, edits, tmp_path, monkeypatch):
    carry()
    assert demo("--sweep", "carry", *QUICK, output="whole") == 0
    whole, edits[:] = list(edits), []
    plain = trying.Trial._edit

    def stops(self, pair, sets):
        if len(edits) == 2:
            raise KeyboardInterrupt
        return plain(self, pair, sets)

    monkeypatch.setattr(trying.Trial, "_edit", stops)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(demo("--sweep", "carry", *QUICK))
    monkeypatch.setattr(trying.Trial, "_edit", plain)
    assert edits == whole[:2]
    assert demo("--sweep", "carry", *QUICK) == 0
    assert edits == whole
    for name in ("editing_layers.json", "editing_sets.csv"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "out"))
        assert one == other


def test_pairs_of_ones_own_need_no_judge(carry, demo, tmp_path):
    carry()
    pairs = [{"source": "a red house", "edit": "a blue house"}, {"source": "x", "edit": "y", "seed": 7}]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    assert demo("--sweep", "carry", "--editing", "pairs.json") == 0
    evidence = json.loads((tmp_path / "out" / "editing_layers.json").read_text())["evidence"]
    assert "without injection, by DINO patches" in evidence["made"]
    assert evidence["none"]["made"] == pytest.approx(1) and evidence["chosen on"] == 1
    tried = json.loads((tmp_path / "out" / "tried" / "check-0001.json").read_text())
    assert (tried["prompts"], tried["seed"]) == (["x", "y"], 7)


def test_pairs_may_be_judged_by_clips_direction(carry, demo, tmp_path):
    carry()
    clip = save_clip(tmp_path / "clip", words=True)
    pairs = [{"source": "a red house", "edit": "a blue house"}, {"source": "a cat", "edit": "a dog"}]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    asked = ("--editing.file", "pairs.json", "--editing.sets", "1", "--clip", str(clip))
    assert demo("--sweep", "carry", *asked, "--editing.by", "clip") == 0
    evidence = json.loads((tmp_path / "out" / "editing_layers.json").read_text())["evidence"]
    assert "along the texts, by CLIP" in evidence["made"] and evidence["none"]["made"] == pytest.approx(1)
    assert demo("--sweep", "carry", *asked, output="region") == 0
    recipes = [json.loads((tmp_path / name / "run.json").read_text())["spec"] for name in ("out", "region")]
    assert recipes[0]["editing"]["by"] == "clip" and "by" not in recipes[1]["editing"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("--sweep carry --editing.by clip", "is for pairs of a file: flux-tiny's own have a judge"),
        ("--sweep carry --editing.file two.json --editing.by dino", "choose from"),
        ("--sweep carry --editing.file two.json --editing.by clip --clip carry", "CLIP model"),
        ("--sweep skip --editing true", "is a sweep by skip; sets are taken from the order of one by carry"),
        ("--sweep mean --editing true", "is a sweep by mean; sets are taken"),
        ("--sweep old --editing true", "was made with other weights of flux-tiny"),
        ("--sweep small --editing true", "own pairs are of 128 x 128 pixels, and the sweep is of 64 x 64"),
        ("--sweep heads --editing true", "gives no order of layers"),
        ("--pictures carry --editing true", "editing"),
        ("--sweep carry --editing none.json", "editing.file"),
        ("--sweep carry --editing same.json", "is its source: nothing is to be edited"),
        ("--sweep carry --editing one.json", "needs two pairs or more"),
        ("--sweep carry --editing object.json", "must hold a list"),
        ("--sweep carry --editing.pairs 1", "must be between 2 and 1000"),
        ("--sweep carry --editing 3", "editing = 3: must be an object"),
    ],
)
def test_mistakes_end_in_one_line(carry, demo, tmp_path, capsys, monkeypatch, argv, says):
    carry()
    carry("skip", "skip")
    carry("mean", "mean")
    carry("small", size=(64, 64))
    carry("heads", {"name": "carry", "heads": [0]})
    monkeypatch.setattr(helpers_sweeps, "SETTING", {"device": "cpu", "dtype": "float32", "weights": {"x": 1}})
    carry("old")
    (tmp_path / "same.json").write_text('[{"source": "a", "edit": "a"}, {"source": "a", "edit": "b"}]')
    (tmp_path / "two.json").write_text('[{"source": "a", "edit": "b"}, {"source": "a", "edit": "c"}]')
    (tmp_path / "one.json").write_text('[{"source": "a", "edit": "b"}]')
    (tmp_path / "object.json").write_text("{}")
    try:
        code = demo(*argv.split())
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and says in err.strip().splitlines()[-1] and "Traceback" not in err, err


# Demo 4

FILE = {
    "model": "flux-tiny",
    "layers": [4],
    "sets": {"keep more": [4, 8], "balanced": ["single.0"], "change more": [1]},
}


def layers_of(choice, **changes) -> tuple[int, ...]:
    spec = load_spec(EditSpec, None, {"source": "a", "edits": ["b"], "layers": choice, **changes})
    return edit_of(spec, spec.edits[0]).layers


def test_a_set_is_taken_by_what_is_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.json").write_text(json.dumps(FILE))
    assert layers_of({"file": "e.json", "take": "keep more"}) == (4, 8)
    assert layers_of({"file": "e.json"}) == layers_of("e.json") == (4,)
    assert layers_of([0], scan={"layers": [{"file": "e.json", "take": "change more"}, [2]]}) == (0,)
    spec = load_spec(
        EditSpec, None, {"source": "a", "edits": [{"prompt": "b", "layers": {"file": "e.json"}}]}
    )
    assert spec.recipe()["edits"][0]["layers"] == [4]
    module = load_demo("demo_4_edit")
    argv = ["--prompts", "a", "b", "--layers.file", "e.json", "--layers.take", "change more", "--dry-run"]
    assert module.main(argv) == 0


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"file": "none.json"}, 'layers.file = "none.json": no such file or folder'),
        ({"take": "balanced"}, "layers.file: missing"),
        (
            {"file": "e.json", "take": "keep"},
            "did you mean keep more? choose from keep more, balanced, change more",
        ),
        ({"file": "e.json", "tkae": 1}, "layers.tkae = 1: unknown key, did you mean take?"),
        ({"file": "vital.json"}, "holds no sets to take from: it is a vital set; give the path alone"),
        ({"file": "order.json"}, "holds an order of layers alone: the editing key of demo 3"),
        ({"file": "less.json"}, "sets.change more: missing"),
        ({"file": "dev.json"}, "was found on flux-dev, the model is flux-tiny; any_model = true takes it"),
        ({"file": "beyond.json"}, "flux-tiny has layers 0 to 11"),
        ({"file": "text.json"}, "no editing layers"),
        ("order.json", "not a vital set"),
        ("order.json", "holds the order of a probe: the editing key of demo 3 finds sets along it"),
    ],
)
def test_wrong_takes_are_named(tmp_path, monkeypatch, choice, says):
    monkeypatch.chdir(tmp_path)
    files = {
        "e": FILE,
        "vital": {"model": "flux-tiny", "layers": [0]},
        "order": {"model": "flux-tiny", "probe": {"name": "carry"}, "order": [{"layers": [0]}]},
        "less": {"model": "flux-tiny", "sets": {"keep more": [1], "balanced": [1]}},
        "dev": {**FILE, "model": "flux-dev"},
        "beyond": {**FILE, "sets": dict.fromkeys(FREE, [12])},
        "text": "text",
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(SpecError) as error:
        layers_of(choice)
    assert says in str(error.value) and "\n" not in str(error.value)
