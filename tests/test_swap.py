"""The package in upstream's place: in an existing install, with upstream's dependencies and nothing more."""

import importlib.metadata
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_models import SMALL_AE, SMALL_FLOW
from helpers_references import (
    half_mask,
    picture,
    save_all_commands_load,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flux
from flux.util import TINY_WEIGHTS, configs

# What upstream asks pip for, and what these names bring along.
UPSTREAM = (
    "einops",
    "fire",
    "huggingface-hub",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "requests",
    "safetensors",
    "sentencepiece",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
)
# Never to be needed, whatever brings them along on this machine.
FORBIDDEN = ("diffusers", "gradio", "jsonschema", "matplotlib", "pydantic", "ray", "scipy", "skimage")

# Parts that ask for more packages than upstream does.
NOT_IN_PLACE = ("flux.tiny.training", "flux.studies", "flux.app")
NEED_PYDANTIC = 'studies need pydantic 2: pip install "pydantic>=2.11"'

SITECUSTOMIZE = '''
"""An environment with fewer packages than the one beneath it, and no network."""
import importlib.machinery
import socket
import sys

HIDDEN = set({hidden!r})


class Fewer(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)


def refuse(*address):
    raise OSError("no network in this test")


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Fewer
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
'''

IMPORT_ALL = """
import importlib, os, sys

environment = dict(os.environ)
install, *names = sys.argv[1:]
failed = {}
for name in names:
    try:
        assert importlib.import_module(name).__file__.startswith(install), "not the copy"
    except Exception as error:
        failed[name] = repr(error)
assert not failed, failed
changed = {name for name in {**environment, **os.environ} if environment.get(name) != os.environ.get(name)}
assert not [name for name in changed if name.startswith(("FLUX", "HF_", "HUGGING", "BFL"))], changed
"""


def dependencies(names: tuple[str, ...]) -> set[str]:
    """Installed distributions among `names` and, through all levels, what they require without extras."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            needed = (
                r for r in map(Requirement, required) if not r.marker or r.marker.evaluate({"extra": ""})
            )
            waiting += [canonicalize_name(r.name) for r in needed]
    return found


def hidden_modules() -> set[str]:
    """Top-level modules of this environment that an install of upstream does not have."""
    allowed = dependencies(UPSTREAM)
    owners = importlib.metadata.packages_distributions()
    foreign = {
        module
        for module, distributions in owners.items()
        if not allowed & {canonicalize_name(name) for name in distributions}
    }
    return (foreign | set(FORBIDDEN)) - {"flux"}


@pytest.fixture(scope="module")
def install(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH in which `flux` was upstream's package before ours was copied over it."""
    site = tmp_path_factory.mktemp("site")
    upstream = site / "flux"
    (upstream / "trt").mkdir(parents=True)
    (upstream / "__init__.py").write_text("raise ImportError('upstream')")
    (upstream / "util.py").write_text("raise ImportError('upstream')")
    (upstream / "_version.py").write_text("version = '0.0.1'")
    (upstream / "trt" / "__init__.py").write_text("import tensorrt")
    shutil.copytree(
        flux.PACKAGE_ROOT, upstream, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE.format(hidden=sorted(hidden_modules())))
    return site


@pytest.fixture
def python(install, tmp_path):
    """Runs Python in the install, in an empty working folder and with an empty home."""
    for folder in ("work", "home"):
        (tmp_path / folder).mkdir()
    kept = ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "SYSTEMROOT", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(install),
    }

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path / "work",
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def modules() -> list[str]:
    names = [
        module.name for module in pkgutil.walk_packages(flux.__path__, "flux.", onerror=lambda name: None)
    ]
    return ["flux", *(name for name in names if not name.startswith(NOT_IN_PLACE))]


def test_upstreams_dependencies_are_left():
    hidden = hidden_modules()
    assert not hidden & {"torch", "einops", "transformers", "PIL", "cv2", "fire", "numpy", "tqdm", "yaml"}
    assert {"pytest", "pydantic"} <= hidden


def test_every_module_imports_and_does_nothing_else(python, install, tmp_path):
    (tmp_path / "work").chmod(0o555)
    names = modules()
    assert "flux.util" in names and "flux.modules.layers" in names and "flux.tiny.scenes" in names
    done = python("-c", IMPORT_ALL, str(install), *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""
    assert not [*(tmp_path / "work").iterdir(), *(tmp_path / "home").rglob("*")]


IMPORT_STUDIES = """
import importlib, sys

said = set()
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        said.add(str(error))
print(*said, sep="\\n")
"""


def test_a_study_without_pydantic_says_what_to_install(python):
    names = [m.name for m in pkgutil.walk_packages(flux.__path__, "flux.", onerror=lambda name: None)]
    studies = [name for name in names if name.startswith("flux.studies.")]
    assert "flux.studies.edit.spec" in studies
    done = python("-c", IMPORT_STUDIES, *studies)
    assert set(done.stdout.splitlines()) == {NEED_PYDANTIC}, done.stderr


@pytest.mark.parametrize("words", [[], ["--help"], ["--dry-run"]])
def test_a_demo_without_pydantic_ends_in_that_line(python, words):
    demo = Path(__file__).resolve().parents[1] / "demos" / "demo_4_edit.py"
    done = python(str(demo), *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", NEED_PYDANTIC + "\n")


def test_importing_the_package_is_cheap(python):
    done = python("-c", "import flux, sys; print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_mistakes_on_the_command_line(python):
    done = python("-m", "flux", "--name", "flux-tiny", "--with", "64")
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(
        r"flux: unknown option --with, did you mean --width\? options: --name, .*\n", done.stderr
    )


def test_a_picture(python, tmp_path):
    if not (TINY_WEIGHTS / configs["flux-tiny"].repo_flow).is_file():
        pytest.skip("flux-tiny has no weights yet")
    done = python("-m", "flux", "--name", "flux-tiny", "--prompt", "a small blue cat on the grass at night")
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "work" / "output").iterdir()] == ["img_0.jpg"]


SMALL_MODELS = """
import sys
from dataclasses import replace

from flux.models import PREFERED_KONTEXT_RESOLUTIONS, configs
from flux.modules.image_embedders import DepthImageEncoder, ReduxImageEncoder

flow, ae, folder = {flow!r}, {ae!r}, {folder!r}
for name, spec in configs.items():
    if not spec.embedded:
        params = replace(spec.params, **flow)
        configs[name] = replace(spec, params=params, ae_params=replace(spec.ae_params, **ae))
PREFERED_KONTEXT_RESOLUTIONS[:] = [(64, 112), (96, 80), (112, 64)]
DepthImageEncoder.depth_model_name = folder + "/depth"
ReduxImageEncoder.siglip_model_name = folder + "/siglip"

from flux.__main__ import main

main()
"""

LOOKING = {
    "control": "--name flux-dev-{kind} --width 96 --height 64 --img_cond_path {here}/robot.png",
    "fill": "--img_cond_path {here}/cup.png --img_mask_path {here}/mask.png",
    "kontext": "--img_cond_path {here}/robot.png",
    "redux": "--width 96 --height 64 --img_cond_path {here}/robot.png",
}


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory) -> Path:
    """Small random weights of what the commands load, and pictures to look at."""
    folder = save_all_commands_load(tmp_path_factory.mktemp("small"))
    picture(120, 70).save(folder / "robot.png")
    picture(96, 64, 1).save(folder / "cup.png")
    half_mask(96, 64).save(folder / "mask.png")
    return folder


@pytest.mark.parametrize(
    "command, kind",
    [("control", "canny"), ("control", "depth"), *((w, "") for w in ("fill", "kontext", "redux"))],
)
def test_the_commands_that_look_at_a_picture(python, tmp_path, small_weights, command, kind):
    flow = {
        key: value for key, value in vars(SMALL_FLOW).items() if key not in ("in_channels", "guidance_embed")
    }
    script = SMALL_MODELS.format(flow=flow, ae=vars(SMALL_AE), folder=str(small_weights))
    (tmp_path / "work" / "small.py").write_text(script)
    variables = {
        "FLUX_MODEL": f"{command}.safetensors",
        "FLUX_AE": "ae.safetensors",
        "FLUX_T5": "text_encoder_2",
        "FLUX_CLIP": "text_encoder",
        **({"FLUX_REDUX": "projector.safetensors"} if command == "redux" else {}),
    }
    words = LOOKING[command].format(kind=kind, here=small_weights).split()
    done = python(
        *("small.py", command, *words, "--num_steps", "1", "--device", "cpu"),
        **{key: str(small_weights / name) for key, name in variables.items()},
    )
    assert done.returncode == 0, done.stderr
    assert "1 steps" in done.stdout
    assert [file.name for file in (tmp_path / "work" / "output").iterdir()] == ["img_0.jpg"]
    notes = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(line.startswith("note: ") for line in notes), done.stderr
    assert not any("torchvision" in line for line in notes)


@pytest.mark.parametrize("command", LOOKING)
def test_mistakes_of_these_commands(python, command):
    name = ("--name", "flux-dev-canny") if command == "control" else ()
    done = python("-m", "flux", command, *name, "--img_cond_path", "nothing.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"flux: img_cond_path nothing\.png: .*; name one by --img_cond_path\n", done.stderr)


def test_the_readmes_check_tells_ours_from_upstreams(python, install, tmp_path):
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    (check,) = set(re.findall(r'python -c "(import flux\.hooks; [^"]+)"', readme))
    done = python("-c", check)
    assert done.stdout.strip() == str(install / "flux" / "hooks" / "__init__.py"), done.stderr
    (tmp_path / "work" / "flux").mkdir()
    (tmp_path / "work" / "flux" / "__init__.py").write_text("")
    done = python("-c", check)
    assert done.returncode == 1 and "No module named 'flux.hooks'" in done.stderr
