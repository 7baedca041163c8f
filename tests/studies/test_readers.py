"""One reader each for prompts, layers and seeds: the same forms, in a spec and typed, for every study."""

import json
from pathlib import Path

import pytest

from flux.limits import MOST_SEED, MOST_SEEDS
from flux.studies.edit.requests import edit_of
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec, read_command
from flux.studies.schema import DEMOS
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.spec import LayerSpec

ROOT = Path(__file__).resolve().parents[2]

SPECS = {
    TestSpec: {"prompts": ["a"]},
    LayerSpec: {"prompt": "a"},
    SkipSpec: {"prompts": ["a"]},
    EditSpec: {"source": "a", "edits": ["b"]},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(kind, **values):
    """The spec that a file with these values holds."""
    Path("my.json").write_text(json.dumps({**SPECS[kind], **values}))
    return load_spec(kind, Path("my.json"))


def typed(kind, *argv: str):
    """The spec that is meant by words behind a demo's name."""
    Path("my.json").write_text(json.dumps(SPECS[kind]))
    return read_command(kind, doc="", default=Path("my.json"), argv=argv).spec


def refused(capsys, kind, *argv: str) -> str:
    """The one line that words end in."""
    with pytest.raises(SystemExit) as end:
        typed(kind, *argv)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.count("\n") == 1
    return err.strip()


# Prompts

TEXTS = ("a hat, red", "the sea")
FILES = {
    "p.txt": "a hat, red\n\n  the sea\r\n",
    "p.json": '["a hat, red", {"prompt": "the sea"}]',
    "list.JSON": '{"prompts": ["a hat, red", "the sea"]}\n',
    "p.jsonl": '"a hat, red"\n\n{"prompt": "the sea"}\n',
    "p.csv": 'id,Prompt\n1,"a hat, red"\n2,the sea\n',
    "semicolons.csv": "caption;id\na hat, red;1\nthe sea;2\n",
    "bom.txt": "\ufeffa hat, red\nthe sea",
}


def prompts_of(spec) -> tuple[str, ...]:
    if isinstance(spec, EditSpec):
        return (spec.source.prompt, *(edit.prompt for edit in spec.edits))
    return tuple(each if isinstance(each, str) else each.prompt for each in spec.prompts)


@pytest.mark.parametrize("kind", [TestSpec, SkipSpec, EditSpec], ids=lambda kind: kind.demo)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_prompts_is_read(kind, name):
    Path(name).write_text(FILES[name], encoding="utf-8")
    assert prompts_of(typed(kind, "--prompts", name)) == TEXTS


@pytest.mark.parametrize("kind, key", [(TestSpec, "prompts"), (SkipSpec, "prompts"), (EditSpec, "edits")])
def test_a_file_of_prompts_may_stand_in_a_spec(kind, key):
    Path("p.txt").write_text(FILES["p.txt"], encoding="utf-16")  # as Windows' editor saves it
    assert prompts_of(written(kind, **{key: "p.txt"}))[-2:] == TEXTS


@pytest.mark.parametrize("key", ["prompt", "source"])
def test_a_file_with_one_prompt_may_stand_for_one(key, capsys):
    kind = LayerSpec if key == "prompt" else EditSpec
    Path("one.txt").write_text("the sea\n")
    spec = typed(kind, f"--{key}", "one.txt")
    assert (spec.prompt if kind is LayerSpec else spec.source.prompt) == "the sea"
    Path("p.txt").write_text(FILES["p.txt"])
    assert "holds 2 prompts, and here stands one" in refused(capsys, kind, f"--{key}", "p.txt")


@pytest.mark.parametrize("kind, key", [(EditSpec, "edits.0.prompt"), (SkipSpec, "prompts.0.prompt")])
def test_a_file_is_no_prompt_inside_an_object_either(kind, key, capsys):
    Path("one.txt").write_text("the sea\n")
    assert prompts_of(typed(kind, f"--{key}", "one.txt"))[-1] == "the sea"
    assert "none.txt: no such file" in refused(capsys, kind, f"--{key}", "none.txt")
    Path("notes.md").write_text("a\n")
    assert "notes.md: is a file, and prompts" in refused(capsys, kind, f"--{key}", "notes.md")


def test_prompts_keep_their_own_seeds():
    Path("p.csv").write_text('caption,seed\n"a hat, red",\nthe sea,7\n')
    assert [each.seed for each in typed(SkipSpec, "--prompts", "p.csv").prompts] == [None, 7]
    spec = typed(TestSpec, "--prompts", "p.csv", "--seeds", "0", "1")
    assert list(spec.pictures()) == [(1, TEXTS[0], 0), (1, TEXTS[0], 1), (2, TEXTS[1], 7)]
    assert load_spec(TestSpec, None, spec.recipe()).recipe() == spec.recipe()
    assert [edit.seeds for edit in typed(EditSpec, "--prompts", "p.csv").edits] == [(7,)]


@pytest.mark.parametrize("kind", [TestSpec, SkipSpec, EditSpec], ids=lambda kind: kind.demo)
@pytest.mark.parametrize(
    "name, text, says",
    [
        ("p.yaml", "- a\n- b\n", "YAML is not read; save the prompts as .txt"),
        ("notes.md", "a\nb\n", "notes.md: is a file, and prompts are read from .txt"),
        ("cat", "a\nb\n", "cat: is a file, and prompts are read from .txt"),
        ("p.csv", "text,id\na,1\n", "needs a column prompt or caption in its first line, which has text, id"),
        (
            "p.csv",
            "prompt,id\na hat, red,1\n",
            "line 2: has 3 columns and the first line 2; a prompt with commas",
        ),
        ("p.csv", "prompt,seed\na,x\n", 'line 2.seed = "x": must be a whole number'),
        ("p.csv", "prompt,seed\n ,1\n", 'line 2.prompt = "": must not be blank'),
        ("p.jsonl", '"a"\n{"prompt": \n', "line 2: not valid JSON at column 11"),
        ("p.jsonl", '"a"\n\n{"promt": "b"}\n', "line 3.promt"),
        ("p.json", '["a",\n', "not valid JSON at line 2, column 1"),
        ("p.json", '["a", " "]', 'prompts[1].prompt = " ": must not be blank'),
        ("p.json", "[" * 900 + "]" * 900, "nested too deeply"),
        ("p.json", '["a", {"prompt": "b", "seed": NaN}]', "seed = NaN: must be a whole number"),
        ("p.json", '["a", {"prompt": "b", "seed": %s}]' % ("9" * 5000), "holds a number of 5000 digits"),
        ("p.txt", "\n \n", "must have at least one entry"),
        ("p.TXT", "", "must have at least one entry"),
    ],
)
def test_a_file_that_is_none_of_prompts_is_refused(kind, name, text, says, capsys):
    Path(name).write_text(text)
    assert says in refused(capsys, kind, "--prompts", name)


def test_what_only_looks_like_a_file_is_refused(capsys):
    assert "none.txt: no such file" in refused(capsys, TestSpec, "--prompts", "none.txt")
    assert "no such file; a text that ends in .txt names one" in refused(
        capsys, TestSpec, "--prompts", "a sign that says readme.txt"
    )
    Path("more").mkdir()
    assert "is a folder; name a file of prompts in it" in refused(capsys, TestSpec, "--prompts", "more/")
    assert typed(TestSpec, "--prompts", "more").prompts == ("more",)
    Path("p.txt").write_text("a\n")
    assert "a file of prompts stands alone" in refused(capsys, TestSpec, "--prompts", "p.txt", "b")


@pytest.mark.parametrize("name", [".", "..", "./more", "more/inner", "more/"])
def test_the_path_of_a_folder_is_no_prompt(name, capsys):
    Path("more/inner").mkdir(parents=True)
    says = "is a folder; name a file of prompts in it"
    assert says in refused(capsys, TestSpec, "--prompts", name)
    assert says in refused(capsys, LayerSpec, "--prompt", name)


@pytest.mark.parametrize("text", ["a cat", "land and/or sea", "..."])
def test_a_prompt_that_only_looks_like_a_folder_is_one(text):
    Path("a cat").mkdir()
    assert typed(TestSpec, "--prompts", text).prompts == (text,)
    assert typed(LayerSpec, "--prompt", text).prompt == text


def test_an_empty_prompt_is_no_folder():
    assert typed(LayerSpec, "--prompt", "").prompt == ""


@pytest.mark.parametrize("kind, key", [(LayerSpec, "prompt"), (SkipSpec, "prompts.0.prompt")])
@pytest.mark.parametrize("text", ["5", "-0.50", "007"])
def test_a_typed_number_is_text_where_text_is_asked_for(kind, key, text):
    spec = typed(kind, f"--{key}={text}")
    assert (spec.prompt if kind is LayerSpec else spec.prompts[0].prompt) == text


def test_a_typed_number_is_a_path_too():
    assert typed(LayerSpec, "--output", "5").output == Path("5").absolute()


LOST = "kot \u00e9".encode().decode("ascii", errors="surrogateescape")
"""What Python makes of a word whose letters the console's encoding lacks."""


@pytest.mark.parametrize(
    "kind, argv",
    [
        (TestSpec, ["--prompts", LOST]),
        (TestSpec, ["--prompts", f"{LOST}.txt"]),
        (LayerSpec, ["--prompt", LOST]),
        (LayerSpec, ["--output", LOST]),
    ],
)
def test_letters_that_a_console_has_lost_are_laid_to_it(kind, argv, capsys):
    line = refused(capsys, kind, *argv)
    assert "this console's encoding has lost: set PYTHONUTF8=1, or a UTF-8 locale" in line


def test_a_list_of_prompts_may_be_typed_as_json(capsys):
    assert typed(TestSpec, "--prompts", '["a", "b"]').prompts == ("a", "b")
    assert prompts_of(typed(EditSpec, "--prompts", '["a", "b"]')) == ("a", "b")
    (item,) = typed(SkipSpec, "--prompts", '{"prompt": "a", "seed": 3}').prompts
    assert (item.prompt, item.seed) == ("a", 3)
    assert "must have at least one entry" in refused(capsys, TestSpec, "--prompts", "[]")
    assert "prompt: missing" in refused(capsys, SkipSpec, "--prompts", "{}")
    assert "not valid JSON" in refused(capsys, TestSpec, "--prompts", '["a", "b"')
    # Texts that begin with a bracket.
    assert typed(TestSpec, "--prompts", "[V] a dog").prompts == ("[V] a dog",)


@pytest.mark.parametrize("kind", [TestSpec, SkipSpec, EditSpec], ids=lambda kind: kind.demo)
def test_a_blank_prompt_in_a_list_is_refused(kind, capsys):
    assert "must not be blank" in refused(capsys, kind, "--prompts", "a", " ")


# Layers

LAYER_KEYS = {EditSpec: "layers", SkipSpec: "layers", LayerSpec: "attention"}


def layers_of(spec) -> tuple[int, ...]:
    if isinstance(spec, SkipSpec):
        return tuple(layer for group in spec.groups() for layer in group)
    return spec.attention_layers() if isinstance(spec, LayerSpec) else edit_of(spec, spec.edits[0]).layers


@pytest.mark.parametrize("kind", LAYER_KEYS, ids=lambda kind: kind.demo)
@pytest.mark.parametrize(
    "words, layers",
    [
        (["0,1,7"], (0, 1, 7)),
        (["0", "1", "7"], (0, 1, 7)),
        (["0,", "1,", "7"], (0, 1, 7)),
        (["[0,", "1,", "7]"], (0, 1, 7)),
        (["0-3,7"], (0, 1, 2, 3, 7)),
        (["0-3"], (0, 1, 2, 3)),
        (["[0, 1, 7]"], (0, 1, 7)),
        (['["0-2", 7]'], (0, 1, 2, 7)),
        (["7"], (7,)),
        (["list.json"], (0, 1, 7)),
        (["LIST.JSON"], (0, 1, 7)),
        (["vital.json"], (0, 5)),
        (["double.3", "single.7"], (3, 11)),
        (["transformer_blocks.2"], (2,)),
        (["single_transformer_blocks.2"], (6,)),
        (["double_blocks.2,single_blocks.0-1"], (2, 4, 5)),
        (["double_blocks.*"], (0, 1, 2, 3)),
        (["all"], tuple(range(12))),
        (["vital"], (0, 3)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_layers_are_read_in_every_form(kind, words, layers):
    Path("list.json").write_text("[0, 1, 7]\n")
    Path("LIST.JSON").write_text('["0-1", 7]')
    Path("vital.json").write_text('{"model": "flux-tiny", "layers": [0, "single.1"]}')
    key = LAYER_KEYS[kind]
    assert layers_of(typed(kind, f"--{key}", *words)) == layers
    if len(words) == 1:
        value = json.loads(words[0]) if words[0][0] == "[" else words[0]
        assert layers_of(written(kind, **{key: value})) == layers


@pytest.mark.parametrize("kind", LAYER_KEYS, ids=lambda kind: kind.demo)
@pytest.mark.parametrize(
    "words, says",
    [
        (["[0,0]"], "[1] = 0: layer 0 stands in entry 0 already"),
        (["0,0"], ' = "0,0": layer 0 stands in entry 0 already'),
        (['["0-3", 2]'], "[1] = 2: layer 2 stands in entry 0 already"),
        (["0", "double.0"], "layer 0 stands in entry 0 already"),
        (["12"], " = 12: "),
        (["0", "99"], " = 99: "),
        (["single_transformer_blocks.8"], "layers 0 to 11"),
        (["3-1"], "a range goes from its lower layer to its higher one"),
        (["9" * 5000], "layers 0 to 11"),
        (["[" * 900 + "]" * 900], "..."),
        (["layers.txt"], "a file of layers is a .json file"),
        (["none.json"], "no such file"),
        (["cut.json"], "not valid JSON at line 2, column 1"),
        (["foreign.json"], "was found on flux-dev, the model is flux-tiny"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_wrong_layers_are_named_where_they_stand(kind, words, says, capsys):
    Path("layers.txt").write_text("0\n1\n")
    Path("cut.json").write_text("[0, 1,\n")
    Path("foreign.json").write_text('{"model": "flux-dev", "layers": [0]}')
    line = refused(capsys, kind, f"--{LAYER_KEYS[kind]}", *words)
    assert line.startswith(f"--{LAYER_KEYS[kind]}") and says in line and len(line) < 1000


def test_numbers_behind_a_flag_end_where_a_spec_is_named():
    Path("other.json").write_text(json.dumps({"source": "x", "edits": ["y"]}))
    argv = ["--layers", "0", "7", "other.json", "--seed", "3"]
    spec = read_command(EditSpec, doc="", default=Path("none"), argv=argv).spec
    assert spec.source.prompt == "x" and layers_of(spec) == (0, 7)


def test_rounds_and_a_window_are_typed_as_numbers_too():
    rule = typed(SkipSpec, "--until.threshold", "0.9", "--until.rounds", "2", "4,", "8").until
    assert rule.rounds == (2, 4, 8)
    assert typed(SkipSpec, "--until.threshold", "0.9", "--until.rounds", "4").until.rounds == (4,)
    assert typed(EditSpec, "--window", "0", "8").window == typed(EditSpec, "--window", "0,8").window == (0, 8)


# Seeds


@pytest.mark.parametrize(
    "words, seeds",
    [
        (["0", "1", "2"], (0, 1, 2)),
        (["0,1"], (0, 1)),
        (["0-3"], (0, 1, 2, 3)),
        (["0-2,", "9"], (0, 1, 2, 9)),
        (["[0, 1]"], (0, 1)),
        (["[0,", "1]"], (0, 1)),
        (['["0-2", 7]'], (0, 1, 2, 7)),
        (["5"], (5,)),
        ([str(MOST_SEED)], (MOST_SEED,)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_seeds_are_read_in_every_form(words, seeds):
    assert typed(TestSpec, "--seeds", *words).seeds == seeds
    assert typed(EditSpec, "--edits.0.seeds", *words).edits[0].seeds == seeds
    if len(words) == 1 and words[0][0] != "[":
        assert written(TestSpec, seeds=words[0]).seeds == seeds


@pytest.mark.parametrize("kind, key", [(LayerSpec, "seed"), (SkipSpec, "seed"), (EditSpec, "seed")])
def test_minus_one_is_drawn_shown_and_recorded(kind, key):
    first, second = typed(kind, f"--{key}", "-1"), typed(kind, f"--{key}", "-1")
    assert 0 <= first.seed < 2**32 and first.seed != second.seed
    assert list(first.notes()) == [f"seed is {first.seed}, which was drawn"]
    recipe = json.loads(json.dumps(first.recipe()))
    again = load_spec(kind, None, recipe)
    assert again.recipe() == first.recipe() and list(again.notes()) == []
    if kind is not SkipSpec:  # whose recipe has the seeds of the prompts
        assert recipe["seed"] == first.seed
    else:
        assert recipe["prompts"][0]["seed"] == first.seed


def test_seeds_in_lists_are_drawn_too():
    spec = typed(TestSpec, "--seeds", "-1")
    assert list(spec.notes()) == [f"seeds[0] is {spec.seeds[0]}, which was drawn"]
    assert len(set(typed(TestSpec, "--seeds", "-1", "-1", "3").seeds)) == 3
    Path("p.json").write_text('[{"prompt": "a", "seed": -1}]')
    spec = typed(SkipSpec, "--prompts", "p.json")
    assert list(spec.notes()) == [f"prompts[0].seed is {spec.prompts[0].seed}, which was drawn"]


@pytest.mark.parametrize("kind", [TestSpec, LayerSpec, SkipSpec, EditSpec], ids=lambda kind: kind.demo)
@pytest.mark.parametrize("seed", [-2, 2**63, 2**64, 10**400])
def test_a_seed_out_of_range_is_refused(kind, seed, capsys):
    flag = "--seeds" if kind is TestSpec else "--seed"
    line = refused(capsys, kind, flag, str(seed))
    assert line.startswith(f"{flag} = ") and f"between 0 and {MOST_SEED}, or -1 to draw one" in line


def test_too_many_seeds_are_refused_before_they_are_counted_out(capsys):
    assert f"at most {MOST_SEEDS} entries" in refused(capsys, TestSpec, "--seeds", "0-99999999999")
    assert "lower seed" in refused(capsys, TestSpec, "--seeds", "3-1")


def test_shards_do_not_draw(capsys):
    assert "is drawn anew for each shard" in refused(capsys, SkipSpec, "--seed", "-1", "--shard", "1/2")


# Numbers


@pytest.mark.parametrize(
    "kind, flag, value, says",
    [
        (EditSpec, "steps", 16 * 10**15, "must be between 1 and 1000"),
        (EditSpec, "steps", 10**400, "must be between 1 and 1000"),
        (EditSpec, "guidance", 100.5, "must be between 0 and 100"),
        (EditSpec, "guidance", 1e308, "must be between 0 and 100"),
        (EditSpec, "guidance", 10**400, "must be a finite number"),
        (EditSpec, "width", 16 * 10**6, "must be between 16 and 8192"),
        (EditSpec, "width", 10**400 + 1, "must be between 16 and 8192"),
        (EditSpec, "batch", 10**9, "must be between 1 and 1024"),
        (LayerSpec, "frame_ms", 99999999999, "must be between 1 and 60000"),
        (SkipSpec, "noise_floor", 10**12, "must be between 0 and 100000"),
        (SkipSpec, "engine.workers", 10**12, "must be between 1 and 4096"),
        (EditSpec, "strategy.threshold", 1e300, "must be between 0 and 262144"),
        (EditSpec, "model.device", "cuda:99999999999", "choose from auto, cpu"),
    ],
)
def test_every_number_has_an_upper_bound(kind, flag, value, says, capsys):
    line = refused(capsys, kind, f"--{flag}", str(value))
    assert says in line and len(line) < 200
    with pytest.raises(SpecError, match=says):
        load_spec(kind, None, {**SPECS[kind], flag: value})


def test_more_pictures_than_a_run_takes_are_refused_at_once(capsys):
    Path("p.txt").write_text("a\n" * 3000)
    line = refused(capsys, TestSpec, "--prompts", "p.txt", "--seeds", "0-999")
    assert "3000000 pictures are more than the 1000000 of one run" in line


# What is said


def test_a_long_key_is_cut(capsys):
    for argv in (["--" + "k" * 5000, "3"], ["--" + "k" * 5000], ["--model." + "k" * 5000, "3"]):
        line = refused(capsys, EditSpec, *argv)
        assert "kkk..." in line and len(line) < 500
    lines = []
    for key in ("k", "k" * 5000):
        Path("long.json").write_text(json.dumps({key: 1}))
        lines.append(refused(capsys, EditSpec, "long.json"))
    assert len(lines[1]) < len(lines[0]) + 100


@pytest.mark.parametrize(
    "name, kind, demo",
    [
        ("layer", TestSpec, "demo_1_layer"),
        ("test", EditSpec, "demo_0_test"),
        ("edit", SkipSpec, "demo_4_edit"),
        ("skip", LayerSpec, "demo_2_skip"),
        ("dino", LayerSpec, "demo_3_dino"),
    ],
)
@pytest.mark.parametrize("by", ["schema", "keys"])
def test_a_spec_of_another_demo_is_sent_there(name, kind, demo, by, capsys):
    spec = json.loads((ROOT / "json" / f"{name}.json").read_text())
    if by == "schema":
        spec["stpes"] = 3
    else:
        del spec["$schema"]
    Path("other.json").write_text(json.dumps(spec))
    line = refused(capsys, kind, "other.json")
    assert line == f"other.json: this is a spec of {demo}: run python demos/{demo}.py other.json"


def test_every_numbered_demo_is_there():
    assert sorted(DEMOS.values()) == sorted(file.stem for file in (ROOT / "demos").glob("demo_[0-9]_*.py"))


def test_a_slip_is_no_spec_of_another_demo(capsys):
    Path("slip.json").write_text(json.dumps({"$schema": "layer.json", "prompts": ["a"], "sede": 1}))
    assert "unknown key" in refused(capsys, TestSpec, "slip.json")


def test_the_list_of_keys_is_said_once(capsys):
    Path("many.json").write_text(json.dumps({"prompts": ["a"], "stpes": 3, "colour": 1, "widht": 64}))
    line = refused(capsys, TestSpec, "many.json")
    assert line.count("choose from") == 1 and line.count("unknown key") == 3
    assert line.endswith("colour = 1: unknown key, see above; widht = 64: unknown key, did you mean width?")


def test_many_mistakes_are_cut(capsys):
    line = refused(capsys, TestSpec, "--prompts", json.dumps([1] * 5000))
    assert line.endswith("; and 4980 more") and len(line) < 1500


def test_the_flag_that_asks_for_more_is_blamed(capsys):
    assert refused(capsys, EditSpec, "--strategy.name", "ratio").startswith("--strategy.ratio: missing")
    assert refused(capsys, EditSpec, "--strategy", "ratio").startswith("--strategy.ratio: missing")
    Path("none.json").write_text('{"edits": ["a"]}')
    assert refused(capsys, EditSpec, "none.json", "--seed", "1").startswith("none.json: source: missing")


@pytest.mark.parametrize(
    "kind, argv, says",
    [
        (EditSpec, ["--layers", "[" * 900 + "]" * 900], "--layers = "),
        (EditSpec, ["--steps", "9" * 5000], "--steps = "),
        (EditSpec, ["--edits." + "9" * 5000 + ".prompt", "x"], "--edits.999"),
        (EditSpec, ["cut.json"], "cut.json: not valid JSON at line 2, column 1"),
        (EditSpec, ["deep.json"], "deep.json: not valid JSON: nested too deeply"),
        (EditSpec, ["digits.json"], "digits.json: holds a number of 5000 digits"),
        (EditSpec, ["nan.json"], "nan.json: strength = NaN: must be a finite number"),
    ],
)
def test_deep_long_and_truncated_input_is_one_line(kind, argv, says, capsys):
    Path("cut.json").write_text('{"source": "a",\n')
    Path("deep.json").write_text('{"layers": ' + "[" * 900 + "]" * 900 + "}")
    Path("digits.json").write_text('{"steps": ' + "9" * 5000 + "}")
    Path("nan.json").write_text('{"source": "a", "edits": ["b"], "strength": NaN}')
    assert refused(capsys, kind, *argv).startswith(says)


def test_a_size_that_flux_tiny_cannot_draw_is_noted_once():
    assert list(typed(EditSpec, "--width", "256").notes()) == [
        "flux-tiny draws 128 x 128: of 256 x 128 stripes come out"
    ]
    assert list(typed(EditSpec, "--width", "64").notes()) == []
    assert list(typed(EditSpec, "--width", "1360", "--model", "flux-dev").notes()) == []
