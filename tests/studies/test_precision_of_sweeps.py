"""What the weights of a sweep were kept in: in the files of demo 3, beside another sweep, and in demo 4."""

import json
from pathlib import Path

import pytest
from helpers_sweeps import draw_sweep
from test_demos import load_demo

from flux.models import configs
from flux.studies.edit.run import found_on_other_weights
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import load_spec
from flux.studies.similarity.editing_spec import EditingSets
from flux.studies.similarity.trying import spec_of
from flux.studies.sweep.folder import read_sweep
from flux.weights.identity import weights_id

ROOT = Path(__file__).resolve().parents[2]

KEPT = {"others": "int8", "keep": [1, 4]}
PACKED = {"flow model": "flux1-dev-Q8_0.gguf 0123"}


@pytest.fixture
def found(tmp_path, monkeypatch):
    """What demo 3 writes of a sweep with such a setting."""
    monkeypatch.chdir(tmp_path)
    demo = load_demo("demo_3_dino")

    def written(probe="skip", beside=(), **setting):
        draw_sweep(tmp_path / "s", probe=probe, **setting)
        assert (
            demo.main(["--sweep", "s", "--metrics", "ssim", "--device", "cpu", "--output", "out", *beside])
            == 0
        )
        file = "vital_layers.json" if probe == "skip" else "probe_layers.json"
        return json.loads((tmp_path / "out" / file).read_text())

    return written


@pytest.mark.parametrize("probe", ["skip", "carry"])
@pytest.mark.parametrize("setting", [{"precision": "int8"}, {"precision": KEPT}, {"packed": PACKED}], ids=str)
def test_demo_3_records_it(probe, setting, found):
    data = found(probe, **setting)
    assert {key: data[key] for key in setting} == setting


def test_in_full_the_file_is_what_it_was(found):
    assert not {"precision", "packed"} & set(found())


def test_beside_a_sweep_in_full(found, tmp_path, capsys):
    draw_sweep(tmp_path / "full", probe="mean")
    found(precision=KEPT, beside=["--beside", "full"])
    found_words = (tmp_path / "out" / "index.html").read_text() + capsys.readouterr().out
    assert "mean" in found_words
    draw_sweep(tmp_path / "int8", probe="mean", precision="int8")
    demo = load_demo("demo_3_dino")
    assert demo.main(["--sweep", "full", "--beside", "int8", *["--metrics", "ssim", "--output", "o"]]) == 0
    assert ", weights in int8): the rank correlation" in capsys.readouterr().out


def test_a_table_of_one_precision_and_a_spec_of_another(found, tmp_path):
    weights = weights_id(configs["flux-tiny"], configs["flux-tiny"].home)
    file = tmp_path / "vital.json"

    def lines(theirs, ours):
        table = {"model": "flux-tiny", "layers": [0], "weights": weights, "precision": theirs}
        file.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))
        model = {"name": "flux-tiny"} | ({} if ours is None else {"precision": ours})
        spec = load_spec(EditSpec, ROOT / "json" / "edit.json", {"layers": str(file), "model": model})
        return list(found_on_other_weights(spec))

    assert lines(None, None) == lines("int8", "int8") == lines(None, "float32") == []
    (line,) = lines("int8", None)
    said = "was found with weights in int8, and these are in full; they may have other vital layers"
    assert line == f"{file}: {said}"
    (line,) = lines(KEPT, "nf4")
    assert "in int8, layers 1, 4 in full, and these are in nf4;" in line


def test_edits_are_not_tried_along_a_sweep_of_another_precision(tmp_path):
    draw_sweep(tmp_path / "s", probe="carry", precision="int8")
    with pytest.raises(
        ValueError, match="was made with weights in int8, and its spec now says full: make it again$"
    ):
        spec_of(read_sweep(tmp_path / "s"), "cpu", EditingSets())
