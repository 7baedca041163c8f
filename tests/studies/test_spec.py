"""Specs: what is accepted, and what files and flags are refused; wrong values are in `test_messages.py`."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from flux.hooks import TopRatio
from flux.models import VITAL_LAYERS, Layers, configs
from flux.studies.edit.requests import edit_of, seeds_of
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec, read_command
from flux.studies.schema import SCHEMAS, schema, schema_text
from flux.studies.similarity.spec import DinoSpec
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.spec import LayerSpec

ROOT = Path(__file__).resolve().parents[2]
JSON = ROOT / "json"
KINDS = {"test": TestSpec, "layer": LayerSpec, "skip": SkipSpec, "dino": DinoSpec, "edit": EditSpec}
KINDS["probe"] = SkipSpec
SHIPPED = sorted(path for path in JSON.glob("*.json") if path.stem.partition("-")[0] in KINDS)
EDIT = {"model": "flux-dev", "source": "a dog", "edits": ["a cat", {"prompt": "a bird", "seeds": [0, 1]}]}


def kind_of(path: Path) -> type:
    return KINDS[path.stem.partition("-")[0]]


@pytest.fixture
def write(tmp_path):
    """Writes a spec, `EDIT` with changes (None takes a key out) or any text, and returns its path."""

    def write(changes: dict | str = "", name: str = "my.json") -> Path:
        path = tmp_path / name
        if isinstance(changes, dict) or not changes:
            whole = {**EDIT, **(changes or {})}
            changes = json.dumps({key: value for key, value in whole.items() if value is not None})
        path.write_text(changes)
        return path

    return write


def refusal(path: Path, **overrides) -> str:
    """The one line that loading ends in, without the file's folder."""
    with pytest.raises(SpecError) as caught:
        load_spec(EditSpec, path, {key.replace("__", "."): value for key, value in overrides.items()})
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(f"{path.parent}/", "")


# What ships


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_specs_fit_their_schema_and_load_back(path):
    body = json.loads(path.read_text())
    link = path.parent / body["$schema"]
    jsonschema.validate(body, json.loads(link.read_text()))
    spec = load_spec(kind_of(path), path)
    jsonschema.validate(spec.recipe(), schema(spec.demo))
    assert kind_of(path).model_validate(spec.recipe()).recipe() == spec.recipe()


def test_flux_dev_runs_as_in_the_paper():
    for path in JSON.glob("*-flux-dev.json"):
        if kind_of(path) is DinoSpec:
            continue
        spec = load_spec(kind_of(path), path)
        assert spec.model.name == "flux-dev"
        assert (spec.steps, spec.guidance, spec.width, spec.height) == (15, 3.5, 1024, 1024)
    edit = load_spec(EditSpec, JSON / "edit-flux-dev.json")
    assert edit.layers == "released"
    assert edit_of(edit, edit.edits[0]).layers == (0, 1, 17, 18, 25, 28, 53, 54, 56)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_current(name):
    path = JSON / "schema" / f"{name}.json"
    assert path.read_text() == schema_text(name), "run: python -m flux.studies.schema json/schema"
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_records_equal_the_models():
    import torch

    from flux.model import Flux, layers_of
    from flux.modules.autoencoder import AutoEncoder

    for name, record in configs.items():
        with torch.device("meta"):
            flow, ae = Flux(record.params), AutoEncoder(record.ae_params)
        assert record.layers == layers_of(flow)
        assert record.flow_parameters == sum(p.numel() for p in flow.parameters()), name
        assert record.ae_parameters == sum(p.numel() for p in ae.parameters()), name


def test_sets_are_within_their_models():
    for name, sets in VITAL_LAYERS.items():
        for layers in sets.values():
            assert configs[name].layers.indices(layers) == layers


# What is accepted


def test_texts_stand_for_objects_and_nulls_for_the_models_defaults(write):
    short = load_spec(EditSpec, write({"model": "flux-tiny", "strategy": "copy", "steps": None}))
    long = load_spec(
        EditSpec,
        write(
            {
                "model": {"name": "flux-tiny"},
                "source": {"prompt": "a dog"},
                "edits": [{"prompt": "a cat"}, {"prompt": "a bird", "seeds": [0, 1]}],
                "strategy": {"name": "copy"},
                "steps": 16,
                "guidance": 3.5,
                "width": 128,
                "height": 128,
            }
        ),
    )
    assert short == long


def test_an_edit_takes_from_the_spec_what_it_does_not_say(write):
    own = {"prompt": "a bird", "layers": ["single.0", "double.*"], "strength": 0.5, "window": [0, 3]}
    half = {"name": "ratio", "ratio": 0.5}
    changes = {"edits": ["a cat", own], "layers": [3, "double.1"], "seed": 7, "strategy": half}
    spec = load_spec(EditSpec, write(changes))
    first, second = (edit_of(spec, item) for item in spec.edits)
    assert (first.layers, first.how.strength, first.how.steps) == ((1, 3), 1.0, None)
    assert (second.layers, second.how.strength, second.how.steps) == (tuple(range(20)), 0.5, (0, 3))
    assert first.how.select == second.how.select == TopRatio(0.5)
    assert [seeds_of(spec, item) for item in spec.edits] == [(7,), (7,)]
    alone = load_spec(EditSpec, write({"layers": 3}))
    assert edit_of(alone, alone.edits[0]).layers == (3,)


def test_layer_names():
    layers = Layers(2, 3)
    assert layers.indices(["single.0", 1, "0", "double.1"]) == (0, 1, 2)
    assert layers.indices(["all"]) == (0, 1, 2, 3, 4)
    assert layers.indices(["single.*"]) == layers.indices(["single_blocks.*"]) == (2, 3, 4)
    assert layers.indices(["0-1", "single.1-2"]) == (0, 1, 3, 4)
    names = ["transformer_blocks.1", "double_blocks.0", "single_transformer_blocks.2", "single_blocks.0-1"]
    assert layers.indices(names) == (0, 1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"layers 0 to 4 \(double.0 to double.1, single.0 to single.2\)"):
        layers.indices(["triple.0"])


def test_a_vital_set_file(write, tmp_path):
    vital = {"model": "flux-dev", "layers": [0, "single.9"], "threshold": 0.95, "evidence": {"prompts": 64}}
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "vital.json").write_text(json.dumps(vital))
    spec = load_spec(EditSpec, write({"layers": "sets/vital.json"}))
    assert edit_of(spec, spec.edits[0]).layers == (0, 28)
    assert spec.recipe()["layers"] == [0, 28]

    foreign = refusal(write({"layers": "sets/vital.json", "model": "flux-dev-krea"}))
    assert "was found on flux-dev, the model is flux-dev-krea; any_model = true" in foreign
    krea = load_spec(
        EditSpec, write({"layers": "sets/vital.json", "model": "flux-dev-krea", "any_model": True})
    )
    assert edit_of(krea, krea.edits[0]).layers == (0, 28)


def test_paths_are_relative_to_the_spec_or_when_typed_to_the_working_directory(write, tmp_path, monkeypatch):
    for place in ("beside", "here"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "weights").mkdir()
    path = write({"model": {"weights": "weights"}, "output": "runs/a"}, name="beside/my.json")
    monkeypatch.chdir(tmp_path / "here")
    spec = load_spec(EditSpec, path)
    assert spec.model.weights == tmp_path / "beside" / "weights"
    assert spec.output == tmp_path / "beside" / "runs" / "a"
    argv = [str(path), "--model.weights", "weights", "--output", "runs/a"]
    spec = read_command(EditSpec, doc="", default=path, argv=argv).spec
    assert spec.model.weights == tmp_path / "here" / "weights"
    assert spec.output == tmp_path / "here" / "runs" / "a"


def test_output_is_named_after_demo_and_spec(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_spec(EditSpec, write(name="hats.json")).output == tmp_path / "output" / "edit" / "hats"


# What is refused


@pytest.mark.parametrize(
    "text, line",
    [
        ('{"source": "a",\n "edits": ["b"],}', "my.json: not valid JSON at line 2, column "),
        ("{'source': 1}", "my.json: not valid JSON at line 1, column 2"),
        (" ", "my.json: not valid JSON at line 1, column "),
        ('["a"]', "my.json: must hold a JSON object, {...}; got list"),
        ('{"seed": 1, "seed": 2}', 'my.json: key "seed" is given twice'),
        (
            '{"source": "a", "edits": [{"prompt": "b", "prompt": "c"}]}',
            'my.json: key "prompt" is given twice',
        ),
        ("[" * 100_000, "my.json: not valid JSON: nested too deeply"),
    ],
)
def test_bad_json(write, text, line):
    assert refusal(write(text)).startswith(line)


def test_a_file_that_cannot_be_read(tmp_path):
    assert refusal(tmp_path / "none.json") == "none.json: no such file"
    assert refusal(tmp_path).endswith("is a folder; name the JSON file in it")
    (tmp_path / "latin.json").write_bytes('{"source": "café"}'.encode("latin-1"))
    assert refusal(tmp_path / "latin.json") == (
        "latin.json: cannot be read as UTF-8 text (byte 0xe9 at 15): save it as UTF-8"
    )


def test_every_mistake_is_in_the_one_line(write):
    line = refusal(write({"steps": 0, "edits": [{"prompt": "x", "strength": 3}]}), width=17)
    assert line == (
        "my.json: steps = 0: must be between 1 and 1000; edits[0].strength = 3: must be between 0 and 1; "
        "--width = 17: must be a multiple of 16, such as 16"
    )


@pytest.mark.parametrize("name", ["~nobody-is-called-so/x", "long" * 200, "nul\0"])
def test_what_no_file_can_be_called(write, name):
    assert "cannot be a path (" in refusal(write({"output": name}))


def test_half_a_character(write):
    assert "half of a surrogate pair" in refusal(write({"source": "a \ud800 cat"}))


@pytest.mark.parametrize(
    "vital, says",
    [
        ('{"model": "flux-dev"}', "layers: missing"),
        ('{"model": "flux-dev", "layers": [1.5]}', "layers[0] = 1.5: must be a layer's number"),
        ('{"model": 3, "layers": [0]}', "model = 3: must be text"),
        ('{"model": "flux-dev", "layers": [0]', "not valid JSON at line 1"),
        ('{"model": "flux-dev", "layers": "10"}', 'layers = "10": must be a list'),
        ('{"model": "flux-dev", "layers": []}', "layers = []: must have at least one entry"),
        ('{"model": "flux-dev", "layers": [57]}', "layers = 57: flux-dev has layers 0 to 56"),
    ],
)
def test_a_wrong_vital_set(write, tmp_path, vital, says):
    (tmp_path / "vital.json").write_text(vital)
    line = refusal(write({"layers": "vital.json"}))
    assert line.startswith("my.json: layers = ") and says in line


# The command line


def command(argv: list[str], kind=EditSpec, default=JSON / "edit.json"):
    return read_command(kind, doc="What it does.", default=default, argv=argv)


def test_any_key_can_be_set(write):
    argv = [
        str(write()),
        "--seed",
        "3",
        "--model.device",
        "cuda:1",
        "--layers",
        "[0,1]",
        "--edits.0.strength=0.5",
    ]
    spec = command(
        [*argv, "--edits.1.strategy.name", "ratio", "--edits.1.strategy.ratio", "0.25", "--overwrite"]
    ).spec
    assert (spec.seed, spec.model.device, spec.model.name, spec.layers) == (3, "cuda:1", "flux-dev", (0, 1))
    assert (spec.edits[0].prompt, spec.edits[0].strength) == ("a cat", 0.5)
    assert (spec.edits[1].strategy.name, spec.edits[1].strategy.ratio, spec.overwrite) == (
        "ratio",
        0.25,
        True,
    )


def test_a_switch_needs_no_value(write):
    spec = command(["--model.offload", str(write()), "--compare", "false", "--any_model"]).spec
    assert spec.model.offload and spec.any_model and not spec.compare and spec.source.prompt == "a dog"


def test_without_a_spec_the_default_is_taken():
    given = command(["--compare", "false", "--dry-run"])
    assert given.dry_run and not given.spec.compare
    assert given.spec.source == load_spec(EditSpec, JSON / "edit.json").source


def test_the_one_liner():
    spec = command(["--prompts", "a 3", "4", "true", "--seed", "5"]).spec
    assert spec.source.prompt == "a 3"
    assert [edit.prompt for edit in spec.edits] == ["4", "true"] and spec.seed == 5
    pictures = command(["--prompts", "a", "b"], kind=TestSpec, default=JSON / "test.json").spec
    assert pictures.prompts == ("a", "b")


@pytest.mark.parametrize(
    "argv, line",
    [
        (["--steps", "0"], "--steps = 0: must be between 1 and 1000"),
        (["--stpes", "3"], "--stpes = 3: unknown key, did you mean steps?"),
        (["--layers", "[0,99]"], "--layers[1] = 99: flux-tiny has layers 0 to 11 "),
        (["--strength", "NaN"], '--strength = "NaN": must be a number'),
        (["--model.weights", "no"], '--model.weights = "no": no such folder: '),
        (["--seed", "1", "--seed", "2"], "--seed: given twice"),
        (["--edits.7.prompt", "x"], '--edits[7].prompt = "x": the list has 3 entries, 0 to 2'),
        (["--prompts", "only the source"], "--prompts: needs the source's prompt and at least one edit's"),
        (["--seed"], "--seed: needs a value"),
        (["--dry-run=maybe"], '--dry-run = "maybe": takes no value'),
        (["--model.offload", "sideways"], '--model.offload = "sideways": must be true or false, or '),
        (
            ["--model.offload", "1", "--steps", "2"],
            '--model.offload = "1": must be true or false, or one of ',
        ),
        (["a.json", "b.json"], "b.json: one spec at a time"),
        (["none.json"], "none.json: no such file"),
    ],
)
def test_a_wrong_command_ends_with_2_and_one_line(argv, line, capsys):
    with pytest.raises(SystemExit) as end:
        command(argv)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    assert err.startswith(line) and err.count("\n") == 1


def test_help_names_every_key(capsys):
    with pytest.raises(SystemExit) as end:
        command(["--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    for words in (
        "What it does.",
        "model.device",
        "edits.0.window",
        "checks.lost_source",
        "[0.002]",
        " (1 to 1000)\n",
    ):
        assert words in out


def test_specs_need_pydantic_and_no_torch():
    code = (
        "import sys; from flux.studies import schema; schema.schema('edit'); "
        "print(*sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)), 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
