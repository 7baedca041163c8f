"""Which layers stay in full: by the files of demo 3, by lists, and what is refused in one line."""

import json
import os

import pytest

from flux.models import configs
from flux.precision.choice import Precision, as_precision, dtype_of, kept
from flux.precision.evidence import read_evidence

TINY = configs["flux-tiny"]  # 4 double and 8 single layers
MEANS = [0.5, 0.9, 0.1, 0.8, 0.95, 0.3, 0.99, 0.98, 0.97, 0.96, 0.2, 0.94]


def write(tmp_path, data, name="layers.json"):
    file = tmp_path / name
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return file


def test_a_vital_set_ranks_by_similarity(tmp_path):
    file = write(tmp_path, {"model": "flux-tiny", "layers": [2, 10, "single.1"], "similarity": MEANS})
    found = read_evidence(file, "flux-tiny", TINY.layers)
    assert found.order == (2, 10, 5, 0, 3, 1, 11, 4, 9, 8, 7, 6) and found.count == 3
    assert kept(file, None, TINY, "flux-tiny") == (2, 5, 10)
    assert kept(file, 5, TINY, "flux-tiny") == (0, 2, 3, 5, 10)
    one_unknown = write(tmp_path, {"model": "flux-tiny", "layers": [10, 2], "similarity": [None] + MEANS[1:]})
    assert read_evidence(one_unknown, "flux-tiny", TINY.layers).order == (10, 2)


def test_a_list_is_taken_as_it_stands(tmp_path):
    file = write(tmp_path, [3, "double.1", 0])
    assert kept(file, 2, TINY, "flux-tiny") == (1, 3) and kept(file, None, TINY, "flux-tiny") == (0, 1, 3)
    assert kept(["double.*", 7], None, TINY, "flux-tiny") == (0, 1, 2, 3, 7)


def test_the_orders_of_probes_and_of_editing_layers(tmp_path):
    probe = {"model": "flux-tiny", "order": [{"layers": [7], "head": None}, {"layers": [1, 2]}]}
    assert kept(write(tmp_path, probe), 2, TINY, "flux-tiny") == (1, 7)
    editing = {"model": "flux-tiny", "layers": [6], "order": [6, "single.7", 4], "sets": {}}
    assert kept(write(tmp_path, editing), 2, TINY, "flux-tiny") == (6, 11)


WRONG = {
    "missing": (None, None, "keep: .*no such file"),
    "no JSON": ("{", None, "keep: .*layers.json"),
    "another kind": ({"prompts": ["a"]}, None, "ranks no layers: name vital_layers.json"),
    "another model": ({"model": "flux-dev", "layers": [1]}, None, "was found on 'flux-dev', the model is"),
    "no model": ({"layers": [1]}, None, "does not say which model it was found on"),
    "an empty order": ({"model": "flux-tiny", "order": []}, 2, "an order that is no list of layers"),
    "no similarity": (
        {"model": "flux-tiny", "layers": [1], "similarity": [float("nan")] + MEANS[1:]},
        None,
        "a similarity that is not finite",
    ),
    "heads": (
        {"model": "flux-tiny", "order": [{"layers": [1], "head": 3}]},
        1,
        "ranks heads or windows of steps",
    ),
    "no layer": ({"model": "flux-tiny", "layers": [57]}, None, "layer 57 does not exist"),
    "no name": ({"model": "flux-tiny", "layers": [[1.5]]}, None, "ranks 1.5, which is no layer"),
    "no count": ({"model": "flux-tiny", "order": [1, 2]}, None, "count is missing: how many of the 2"),
    "too many": ({"model": "flux-tiny", "order": [1, 2]}, 3, "count is 3, and .* ranks 2 layers"),
    "none": ({"model": "flux-tiny", "order": [1, 2]}, 0, "count must be a whole number above 0; got 0"),
}


@pytest.mark.parametrize("data, count, said", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(tmp_path, data, count, said):
    file = tmp_path / "layers.json" if data is None else write(tmp_path, data)
    with pytest.raises(ValueError, match=said) as error:
        kept(file, count, TINY, "flux-tiny")
    assert "\n" not in str(error.value) and str(error.value).startswith(("keep: ", "count "))


def test_a_pipe_is_not_waited_for(tmp_path):
    pipe = tmp_path / "layers.json"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="^keep: .*layers.json is no regular file$"):
        kept(pipe, 1, TINY, "flux-tiny")


def test_choices():
    assert as_precision(None, TINY, "flux-tiny") is None and as_precision("auto", TINY, "flux-tiny") is None
    assert as_precision("int8", TINY, "flux-tiny") == Precision("int8")
    found = as_precision({"others": "nf4", "keep": [1, "single.0"]}, TINY, "flux-tiny")
    assert found == Precision("nf4", (1, 4)) and found.is_quantised
    assert found.record() == {"precision": {"others": "nf4", "keep": [1, 4]}}
    assert Precision("int8").record() == {"precision": "int8"} and str(found) == "nf4, layers 1, 4 in full"
    for wrong in ("int3", {"others": "int3"}, 8):
        with pytest.raises(ValueError, match="precision"):
            as_precision(wrong, TINY, "flux-tiny")
    for wrong in ({"keep": [1]}, {"others": "int8", "sets": 1}):
        with pytest.raises(ValueError, match="keys others, keep, count"):
            as_precision(wrong, TINY, "flux-tiny")


def test_a_dtype_and_a_full_precision_agree():
    assert (
        dtype_of(Precision("bfloat16"), "auto") == dtype_of(Precision("bfloat16"), "bfloat16") == "bfloat16"
    )
    assert dtype_of(Precision("int8"), "float32") == dtype_of(None, "float32") == "float32"
    with pytest.raises(ValueError, match="precision is bfloat16 and dtype float32: leave one of them out"):
        dtype_of(Precision("bfloat16"), "float32")


@pytest.mark.parametrize("wrong", [{"others": "int8", "count": 3}, {"others": "float32", "keep": [1]}])
def test_what_would_be_left_unheard_is_refused_as_in_specs(wrong):
    with pytest.raises(ValueError, match="^count needs keep|^keep: float32 is full for all layers"):
        as_precision(wrong, TINY, "flux-tiny")
