"""How a way is asked for: in specs, on the command lines, by true and false as before."""

import pytest

from flux import cli_options
from flux.cli import main as picture
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, load_spec, read_command
from flux.studies.sweep.spec import SkipSpec

EDIT = {"source": "a hat", "edits": [{"prompt": "a red hat", "layers": [3]}]}
KEYS = {
    **dict.fromkeys((False, "none"), False),
    **dict.fromkeys((True, "encoders"), True),
    **{name: name for name in ("modulation", "stream", "auto")},
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
        (["--offload=none"], False),
    ],
)
def test_typed_for_a_picture(words, key):
    options = cli_options.options_of(picture, ["--name", "flux-tiny", *words])
    assert cli_options.checked("offload", options["offload"]) == key
