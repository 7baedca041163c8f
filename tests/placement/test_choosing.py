"""How a way is asked for: in specs, on the command lines, by true and false as before."""

import pytest
from helpers_demos import save_clone

from flux import cli_options
from flux.cli import main as picture
from flux.generate import Sampling, generate
from flux.placement.work import way_of
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec, read_command
from flux.studies.sweep.spec import SkipSpec
from flux.util import load_models

EDIT = {"source": "a hat", "edits": [{"prompt": "a red hat", "layers": [3]}]}
KEYS = {
    **dict.fromkeys((False, "none"), False),
    **dict.fromkeys((True, "encoders"), True),
    **{name: name for name in ("modulation", "stream", "stream:12", "auto")},
}


@pytest.mark.parametrize(("given", "key"), KEYS.items())
def test_in_a_spec(given, key):
    spec = load_spec(EditSpec, None, EDIT | {"model": {"offload": given}})
    assert spec.model.offload == key and type(spec.model.offload) is type(key)
    assert spec.recipe()["model"]["offload"] == key  # so that runs made before are found
    assert load_spec(EditSpec, None, spec.recipe()).model.offload == key


def test_what_is_none():
    for wrong in ("all", 3, None, [], {}):
        with pytest.raises(SpecError, match="model.offload = .* must be true or false, or one of none, enc"):
            load_spec(EditSpec, None, EDIT | {"model": {"offload": wrong}})


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--model.offload"], True),
        (["--model.offload", "true"], True),
        (["--model.offload", "stream"], "stream"),
        (["--model.offload=auto"], "auto"),
        (["--model.offload", "stream:12"], "stream:12"),
        (["--model.offload", "none"], False),
    ],
)
def test_typed_for_a_demo(words, key, tmp_path):
    spec = tmp_path / "my.json"
    spec.write_text('{"prompts": ["a hat"]}')
    for order in ([*words, str(spec)], [str(spec), *words]):
        assert read_command(SkipSpec, doc="", default=spec, argv=order).spec.model.offload == key


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--offload"], True),
        (["--offload", "True"], True),
        (["--nooffload"], False),
        (["--offload", "stream"], "stream"),
        (["--offload", "stream:12"], "stream:12"),
        (["--offload=none"], False),
    ],
)
def test_typed_for_a_picture(words, key):
    options = cli_options.options_of(picture, ["--name", "flux-tiny", *words])
    assert cli_options.checked("offload", options["offload"]) == key


def test_auto_is_picked_where_a_model_is_loaded(tmp_path, capsys):
    models = load_models(
        "flux-tiny", device="cpu", offload="auto", prompts=["a"], weights=save_clone(tmp_path)
    )
    assert capsys.readouterr().out == "offload auto: none, since on cpu all parts share one memory\n"
    assert way_of(models.flow, "auto") is False
    generate(models, ["a"], [0], Sampling(1, 3.5, 32, 32), offload="auto")
