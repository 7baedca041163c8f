"""A precision with every command: spec keys, flags, what a run records, and what is refused at once."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from flux.cli import app
from flux.models import configs
from flux.precision.choice import Precision
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec, read_command
from flux.studies.run import precision_record, setting
from flux.studies.sweep.place import plan_of, setting_of
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.spec import LayerSpec
from flux.weights.identity import packed_files

pytest.importorskip("torchao")

SPECS = {
    TestSpec: {"prompts": ["a"]},
    LayerSpec: {"prompt": "a"},
    SkipSpec: {"prompts": ["a"]},
    EditSpec: {"source": "a", "edits": ["b"]},
}
SMALL = ("--steps", "1", "--width", "64", "--height", "64", "--model.device", "cpu")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vital_layers.json").write_text('{"model": "flux-tiny", "layers": [0, 3, 10]}')


def spec_of(kind, precision=None, typed=(), **model):
    model |= {} if precision is None else {"precision": precision}
    Path("my.json").write_text(json.dumps({**SPECS[kind], "model": {"device": "cpu", **model}}))
    return read_command(kind, doc="", default=Path("my.json"), argv=list(typed)).spec


def carried_out(demo, *words):
    file = next((Path(__file__).parents[2] / "demos").glob(f"demo_{demo}_*.py"))
    return runpy.run_path(str(file))["main"]([*words])


EVIDENCE = {"others": "nf4", "keep": "vital_layers.json", "count": 2}


@pytest.mark.parametrize("kind", SPECS)
def test_every_spec_takes_them(kind):
    for given, found in (
        (None, None),
        ("int8", Precision("int8")),
        ({"others": "fp8"}, Precision("fp8")),
        ({"others": "int8", "keep": "vital_layers.json"}, Precision("int8", (0, 3, 10))),
        (EVIDENCE, Precision("nf4", (0, 3))),
    ):
        spec = spec_of(kind, given)
        assert spec.model.kept_in() == found
        again = kind.model_validate(json.loads(json.dumps(spec.as_json())))
        assert again.as_json() == spec.as_json() and again.model.kept_in() == found
    assert spec_of(kind, typed=["--precision", "int8"]).model.kept_in() == Precision("int8")
    assert spec_of(kind, typed=["--precision", json.dumps(EVIDENCE)]).model.kept_in() == Precision(
        "nf4", (0, 3)
    )


def test_a_full_precision_is_a_dtype():
    spec = spec_of(TestSpec, "bfloat16")
    assert spec.model.computes_in == "bfloat16" and setting(spec)["dtype"] == "bfloat16"
    assert precision_record(spec) == {}
    assert spec_of(TestSpec, "int8", dtype="bfloat16").model.computes_in == "bfloat16"


WRONG = {
    "a name": ("int3", r"model\.precision(\.others)? = \"int3\": .*int8"),
    "a key": ({"others": "int8", "keeps": 1}, r"model.precision.keeps = 1: unknown key, did you mean keep"),
    "nothing": ({}, r"model.precision.others: missing"),
    "a file": ({"others": "int8", "keep": "none.json"}, r"model.precision.keep = .*no such file"),
    "a kind": (
        {"others": "int8", "keep": "my.json"},
        r"model.precision.keep = .*ranks no layers: name vital_layers",
    ),
    "a model": ({"others": "int8", "keep": "dev.json"}, r"was found on 'flux-dev', the model is flux-tiny"),
    "a count": (EVIDENCE | {"count": 4}, r"model.precision.count = 4: .*ranks 3 layers"),
    "a count of nothing": (EVIDENCE | {"count": 0}, r"model.precision.count = 0: must be"),
    "a count alone": ({"others": "int8", "count": 4}, r"model.precision.count = 4: needs keep"),
    "nothing to keep": (
        {"others": "float16", "keep": "vital_layers.json"},
        r"precision.keep.*float16 is full",
    ),
}


@pytest.mark.parametrize("given, said", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(given, said, tmp_path):
    (tmp_path / "dev.json").write_text('{"model": "flux-dev", "layers": [0]}')
    Path("my.json").write_text(json.dumps({"prompts": ["a"], "model": {"precision": given}}))
    with pytest.raises(SpecError, match=said) as error:
        load_spec(TestSpec, Path("my.json"))
    assert "\n" not in str(error.value)


def test_a_dtype_that_is_another_one():
    with pytest.raises(SystemExit) as end:
        spec_of(TestSpec, "float16", dtype="float32")
    assert end.value.code == 2


def test_different_precisions_are_different_runs():
    plain, eight, nine = (setting(spec_of(TestSpec, each)) for each in (None, "int8", EVIDENCE))
    assert "precision" not in plain and eight["precision"] == "int8"
    assert nine["precision"] == {"others": "nf4", "keep": [0, 3]}
    assert {key: value for key, value in eight.items() if key != "precision"} == plain


def test_cells_of_different_precisions_have_different_identities():
    class Run:
        def __init__(self, spec):
            self.recipe, self.setting = spec.recipe(), setting_of(spec)

    specs = [spec_of(SkipSpec, each) for each in (None, "int8", "fp8", EVIDENCE)]
    found = [set(plan_of(spec, Run(spec)).identities.values()) for spec in specs]
    assert sum(map(len, found)) == len(set.union(*found)) and len({len(each) for each in found}) == 1
    # Wherever the file lies, and whatever it is called: what it comes to is what counts.
    Path("copy.json").write_text(Path("vital_layers.json").read_text())
    again = spec_of(SkipSpec, EVIDENCE | {"keep": "copy.json"})
    assert set(plan_of(again, Run(again)).identities.values()) == found[3]


def test_runs_say_their_precision_and_do_not_go_on_with_another(tmp_path, capsys):
    words = ("--prompts", "a red house", *SMALL)
    for flags, found in (((), None), (("--precision", "int8"), "int8")):
        assert carried_out(0, *words, *flags, "--output", "out") == 0
        out = capsys.readouterr().out
        assert ("weights in int8" in out) == bool(found)
    first, second = (json.loads(Path(name, "run.json").read_text()) for name in ("out", "out-2"))
    assert "precision" not in first["setting"] and second["setting"]["precision"] == "int8"
    assert "precision" not in first["spec"]["model"] and second["spec"]["model"]["precision"] == "int8"
    assert "int8" in Path("out-2", "index.html").read_text()
    assert carried_out(0, *words, "--precision", "int8", "--output", "out-2") == 0
    assert "made already" in capsys.readouterr().out


def test_a_dry_run_tells_bytes_by_precision(capsys):
    for demo, flags in ((0, ("--prompts", "a")), (2, ("--prompts", "a"))):
        for precision, size in (("float32", "41 MB"), ("int8", "MB"), (json.dumps(EVIDENCE), "MB")):
            words = ("--precision", precision, "--dry-run", "--model.device", "cpu", "--output", "out")
            assert carried_out(demo, *flags, *words) == 0
            line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("weights in"))
            named = "nf4, layers 0, 3 in full" if precision.startswith("{") else precision
            assert line.startswith(f"weights in {named}: flow model ") and size in line


def test_the_command_line_takes_them(tmp_path, capsys):
    words = ["t2i", "--name", "flux-tiny", "--prompt", "a red house", "--num_steps", "1", "--device", "cpu"]
    small = ["--width", "64", "--height", "64"]
    for wrong, said in (
        ("int3", "precision 'int3' is not one of float32, bfloat16, float16, int8, fp8, nf4"),
        ('{"others": "int8", "keep": "none.json"}', "keep: none.json no such file"),
        ('{"others": ', "precision "),
    ):
        assert app([*words, *small, "--precision", wrong]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and not Path("output").exists()
    assert app([*words, *small, "--precision", json.dumps(EVIDENCE)]) == 0
    assert len(list(Path("output").iterdir())) == 1


def test_without_the_extra_a_command_ends_before_weights_are_read(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr("flux.weights.load.load_t5", lambda *a, **k: pytest.fail("was loaded"))
    assert carried_out(0, "--prompts", "a", *SMALL, "--precision", "nf4", "--output", "out") == 2
    error = capsys.readouterr().err
    assert "precision nf4 needs torchao" in error and "flux[quant]" in error and error.count("\n") == 1


def test_packed_files_that_variables_name_are_in_the_record(monkeypatch, tmp_path):
    pytest.importorskip("gguf")
    from helpers_gguf import write_gguf
    from helpers_models import SMALL_FLOW, random_state

    from flux.model import Flux

    assert packed_files() == {}
    digests = set()
    for kind in ("Q8_0", "Q4_0"):
        write_gguf(tmp_path / "flow.gguf", random_state(Flux, SMALL_FLOW), kind)
        monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "flow.gguf"))
        (said,) = packed_files().values()
        digests.add(said)
        assert setting(spec_of(TestSpec, name="flux-dev"))["packed"] == {"flow model": said}
        assert "packed" not in setting(spec_of(TestSpec))
    assert len(digests) == 2 and configs["flux-dev"].home is None
