"""Seeded mutants of every key of every spec and every option of every command; dry runs, no pictures.

    python tests/studies/fuzz.py --count 10000 [--seed 0]

Each has to end within seconds, without a traceback, with 0, or with 2 and one line. Mutant i is the same in
every run of a seed. Targets are taken in turns: `5 * len(TARGETS)` mutants meet each of them five times.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from flux import cli
from flux.studies import cost, edit, needed, schema, similarity, sweep, text, timesteps
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import _rows
from flux.studies.similarity.spec import DinoSpec
from flux.studies.study import Study, carry_out
from flux.studies.sweep.spec import SkipSpec
from flux.studies.text.spec import TestSpec
from flux.studies.timesteps.spec import LayerSpec
from flux.tiny.training import command as training

SECONDS = 60
"""After which a mutant hangs, on a machine that does other things beside."""

SPECS: dict[str, dict[str, Any]] = {
    "test": {"prompts": ["a red hat", "the sea"], "seeds": [0, 1]},
    "layer": {"prompt": "a red hat", "attention": [0, "single.1"], "seed": 3},
    "skip": {"prompts": ["a", {"prompt": "b", "seed": 3}], "layers": ["0-2", [4, 5]], "batch": 2},
    "edit": {
        "source": "a red hat",
        "edits": ["a blue hat", {"prompt": "the sea", "seeds": [0, 2], "layers": [1]}],
        "strategy": {"name": "ratio", "ratio": 0.5},
        "window": [0, 4],
    },
    "photo": {
        "source": {"image": "pics/0.png", "prompt": "a red hat"},
        "edits": [
            "a blue hat",
            {"prompt": "the sea", "seeds": [0, 2], "outside": "all", "mask": [0, 0, 8, 8]},
        ],
        "method": {"name": "flowedit", "guidance": 4},
        "mask": {"where": "auto", "feather": 2},
        "operators": ["gate", {"name": "blend", "share": 0.1}],
        "schedules": {"edit": "vags"},
    },
    "dino": {"pictures": ["pics"], "metrics": ["psnr"]},
}
STUDIES = {
    "test": (text.STUDY, TestSpec),
    "layer": (timesteps.STUDY, LayerSpec),
    "skip": (sweep.STUDY, SkipSpec),
    "edit": (edit.STUDY, EditSpec),
    "photo": (edit.STUDY, EditSpec),
    "dino": (similarity.STUDY, DinoSpec),
}
FILES = {
    "prompts.txt": "a red hat\n\nthe sea\n",
    "prompts.json": '["a red hat", {"prompt": "the sea", "seed": -1}]\n',
    "prompts.jsonl": '"a red hat"\n{"prompt": "the sea", "seed": 4}\n',
    "prompts.csv": 'caption,seed\n"a hat, red",3\nthe sea,\n',
    "prompts.YAML": "- a red hat\n",
    "layers.json": "[0, 1, 7]\n",
    "vital.json": '{"model": "flux-dev", "layers": [0, "single.3"]}\n',
    "table.csv": "image,prompt,edit\npics/0.png,a hat,a boat\npics/1.png,a hat,the sea\n",
    "cut.json": '{"model": "flux-tiny", "layers": [0,\n',
    "notes": "not ours",
    # A LoRA that fits nothing, in a few bytes of text: a length, a header, a number.
    "lora.safetensors": "F\0\0\0\0\0\0\0"
    '{"x.lora_A.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}\0\0\0\0',
}
"""What lies in the working directory, beside a folder of pictures and a LoRA of flux-tiny."""


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 17, 128, 8192, 8208, 2**31, 2**63 - 1, 2**63, -(2**63) - 1),
    *(16 * 10**15, 10**400, -(10**400), 0.5, 1.5, -0.0, 100.0, 1e308, math.nan, math.inf, -math.inf),
    *(
        "",
        " ",
        "\t",
        "a",
        "a\nb",
        "\0",
        "\ud800",
        "é漢🙂",
        "a" * 300,
        "a" * 5000,
        "a " * 3000,
        "%s{}",
        "١",
        "²",
    ),
    *("0", "-1", "0-3", "3-0", "0-99999999999", "0,1,7", "0 1 7", ",", "0,,1", "1" * 400, "1" * 5000 + "x"),
    *("all", "double.*", "double.3", "single_blocks.2", "transformer_blocks.1-2", "triple.0", "6+7", "1+1"),
    *("prompts.txt", "prompts.json", "prompts.jsonl", "prompts.csv", "prompts.YAML", "layers.json"),
    *(
        "vital.json",
        "cut.json",
        "none.json",
        "none.txt",
        "notes",
        "pics",
        "pics/",
        "pics/1.png",
        "a.b/c.json",
    ),
    *("~nobody-is-called-so/x", "/dev/null", "/dev/null/x", "/proc/none/x", ".", "..", "x/" * 2000),
    *(
        "auto",
        "cpu",
        "cuda",
        "cuda:0",
        "cuda:7",
        "cuda:999999999999",
        "mps",
        "xpu",
        "meta",
        "float16",
        "true",
    ),
    *(
        "NaN",
        "1e999",
        "0x10",
        "1_0",
        "[",
        "]",
        "{",
        '["a"',
        '{"a": 1',
        "[V] a dog",
        "gap",
        "top 3",
        "1/2",
        "2/1",
    ),
    *(
        "similarity 0.9",
        "ratio",
        "threshold",
        "ray",
        "flux-dev",
        "flux-schnell",
        "dino",
        "ssim",
        "psnr",
        "clip",
    ),
    *([], {}, [[]], [{}], [None], [True], [0, 0], [0, 1], [1, 0], ["a", "a"], ["a", ""], [0, -1], [2**63]),
    *([0.5, math.nan], ["0-3"], [[0, 1], 2], [[0, 0]], [[[0]]], list(range(3000)), ["x"] * 3000, [-1] * 3),
    *(
        {"a": 1},
        {"name": "ratio"},
        {"name": None},
        {"prompt": "a"},
        {"prompt": ""},
        {"prompt": "a", "seed": -1},
    ),
    *({"threshold": 0.9}, {"threshold": 0.9, "rounds": [2, 3]}, {"$schema": 3}, {"": 0}, {"k" * 5000: 1}),
    *(deep(30), deep(70), deep(900)),
]

FITTING: dict[str, list[Any]] = {
    "name": ["flux-tiny", "flux-dev", "flux-schnell", "copy", "ratio", "threshold", "local", "ray"],
    "steps": [1, 4, 1000, 1001],
    "guidance": [0, 3.5, 100, 100.1, None],
    **dict.fromkeys(("width", "height"), [16, 128, 256, 8192, 1360]),
    **dict.fromkeys(
        ("prompts", "edits"), ["prompts.txt", "prompts.json", "prompts.jsonl", "prompts.csv", ["a"]]
    ),
    **dict.fromkeys(("prompt", "source"), ["a", "prompts.txt", "prompts.csv", {"prompt": "a"}, "", " "]),
    **dict.fromkeys(
        ("seed", "seeds"), [0, 7, -1, 2**63 - 1, "0-3", "0 1", "4,2", [0, 1], ["0-2", 7], [-1, -1]]
    ),
    **dict.fromkeys(
        ("layers", "attention"),
        [
            0,
            11,
            "0-3",
            "0 1 7",
            "all",
            "vital",
            "default",
            "layers.json",
            "vital.json",
            [0, "single.1"],
            ["2-5"],
        ],
    ),
    "window": [[0, 1], [0, 16], [2, 4]],
    "strategy": ["copy", {"name": "ratio", "ratio": 0.5}, {"name": "threshold", "threshold": 2}],
    **dict.fromkeys(("ratio", "strength", "threshold", "confidence", "did_nothing"), [0, 0.25, 0.9, 1]),
    "batch": [1, 3, 1024],
    "rounds": [[2, 4], "2 4", 8, [2]],
    "until": [{"threshold": 0.9}, {"threshold": 0.9, "rounds": [2], "confidence": 0.5}],
    "shard": ["1/2", "2/2", "1/100000"],
    "engine": ["local", "ray", {"name": "ray", "workers": 2}],
    **dict.fromkeys(
        ("pictures", "against"), [["pics"], ["pics", "pics"], ["pics/0.png", "pics/1.png"], "pics"]
    ),
    **dict.fromkeys(("picture", "sweep"), ["pics/0.png", "pics", "my.json"]),
    "metrics": [["psnr"], "dino", ["clip", "dino"], ["ssim"]],
    "image": ["pics/0.png", "pics/1.png", "table.csv", "pics"],
    "sha256": ["0" * 64, None],
    "sources": [
        "table.csv",
        [{"image": "pics/0.png", "prompt": "a hat", "edit": "the sea"}],
        [{"prompt": "a hat", "edit": ["the sea"], "seed": 3}, {"image": "pics/1.png", "prompt": "a"}],
    ],
    "method": ["flowedit", "noise", "fuzz:mutant", "os:getcwd", {"name": "flowedit", "start": 0.5}],
    **dict.fromkeys(
        ("mask", "where"),
        [
            *("auto", "velocity", "words", "pics/0.png", [0, 0, 8, 8], [4, 4, 40, 40]),
            *({"where": "auto", "peak": 0.5, "whole": 2}, {"where": "words", "blur": 1}),
        ],
    ),
    "feather": [0, 3, 8192],
    "operators": ["gate", ["gate", "blend"], [{"name": "masked", "strength": 0.5}]],
    **dict.fromkeys(("schedules",), [{"source": "vags"}, {"edit": {"name": "exponential", "rate": 2}}]),
    **dict.fromkeys(
        ("lora", "file"),
        [
            "style.safetensors",
            "style.safetensors:0.5",
            "lora.safetensors",
            "none.safetensors:2",
            "style.safetensors:1e9",
            "style.safetensors,style.safetensors:-1",
            ["style.safetensors", {"file": "style.safetensors", "scale": 0.5}],
        ],
    ),
    "scale": [0, 1, -0.5, 100, 101],
    "outside": ["all", [0], "double.*"],
    "roles": [
        [{"layers": "all", "side": "inside"}, {"layers": [0], "what": "keys", "strength": "linear"}],
        [{"layers": [0, 99], "side": "off"}, {"layers": "all", "window": [0, 9]}],
        [{"side": "outside"}],
    ],
    **dict.fromkeys(("paste", "when", "residual"), ["auto", True, False, {"when": True, "residual": False}]),
    "fit": ["fit", "crop", "pad"],
    "pixels": [256, 10000, 10**6],
    "by": ["gap", "top 3", "similarity 0.5", "vitality 0.1"],
    **dict.fromkeys(("device", "dtype"), ["auto", "cpu", "float32", "bfloat16"]),
    **dict.fromkeys(("output", "output_dir", "work", "out", "folder"), ["here", "a/b", "out/" + "x" * 200]),
}
"""By the last part of a key, values that may well be right, so that what follows the reading is tried too."""


@dataclass(frozen=True)
class Target:
    """A key of a spec, in a file or typed, or an option of a command. study: or the command's name."""

    command: str
    key: str
    typed: bool


def _targets() -> Iterator[Target]:
    for name, (_, kind) in STUDIES.items():
        for key, _ in _rows(kind):
            yield Target(name, key, typed=False)
            yield Target(name, key, typed=True)
        for key in ("prompts", "dry-run", "help", "nokey", "model.nokey", "edits.9.prompt", "", "--"):
            yield Target(name, key, typed=True)
        yield Target(name, "*", typed=False)  # the file as a whole
    for key in (*cli.PARAMETERS, "help", "nokey", ""):
        yield Target("flux", key, typed=True)
    for key in (*training.OPTIONS, "help", "nokey"):
        yield Target("training", key, typed=True)
    for key in ("folder", "help"):
        yield Target("schema", key, typed=True)


TARGETS = list(_targets())


@dataclass(frozen=True)
class Mutant:
    """What is run: a command, its words, and the files that are written for it."""

    command: str
    words: list[str]
    files: dict[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        files = {name: data[:400] for name, data in self.files.items()}
        return f"{self.command} {[word[:200] for word in self.words]} {files}"


def mutant(index: int, seed: int = 0) -> Mutant:
    """Mutant `index` of a seed."""
    rng = random.Random(f"{seed} {index}")
    target = TARGETS[index % len(TARGETS)]
    files = {name: text.encode() for name, text in FILES.items()}
    if rng.random() < 0.3:  # of prompts and layers too
        name = rng.choice(list(files))
        files[name] = _torn(files[name], rng)
    words = _typed(target, rng) if target.typed else []
    if target.command not in STUDIES:
        return Mutant(target.command, words, files)
    spec = json.loads(json.dumps(SPECS[target.command]))
    body = ""
    if not target.typed and target.key != "*":
        _set(spec, target.key.split("."), _value(rng, target.key))
    with contextlib.suppress(RecursionError):
        body = json.dumps(spec, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2]))
    files["my.json"] = body.encode(errors="surrogatepass") + b"\n"
    if target.key == "*" or rng.random() < 0.05:
        files["my.json"] = _torn(files["my.json"], rng)
    return Mutant(
        target.command, ["my.json", *words, *([] if target.key == "dry-run" else ["--dry-run"])], files
    )


def _value(rng: random.Random, key: str) -> Any:
    fitting = FITTING.get(key.rpartition(".")[2], [True, False])
    if rng.random() < 0.4:
        return rng.choice(fitting)
    value = rng.choice(VALUES)
    kind = rng.random()
    if kind < 0.1 and not isinstance(value, list):
        return [value] * rng.randint(1, 3)
    return [value, rng.choice(VALUES)] if kind < 0.2 else value


def _set(spec: Any, path: Sequence[str], value: Any) -> None:
    """Set a value at a place of a spec, making the way to it."""
    for key, following in zip(path, [*path[1:], ""], strict=True):
        key = int(key) if isinstance(spec, list) else key
        if isinstance(spec, list):
            spec += [{}] * (key + 1 - len(spec))
        if not following:
            spec[key] = value
            return
        below = spec[key] if isinstance(spec, list) else spec.get(key)
        if not isinstance(below, dict | list):
            text_key = (
                "prompt" if isinstance(below, str) and path[0] in ("source", "edits", "prompts") else "name"
            )
            below = {text_key: below} if isinstance(below, str) else {}
            if following == "0":
                below = [below]
        spec[key] = below
        spec = below


def _torn(data: bytes, rng: random.Random) -> bytes:
    """A file that was cut, damaged, or saved in another way."""
    at = rng.randrange(len(data) + 1)
    return rng.choice(
        [
            data[:at],
            data[:at] + b"\n",
            data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
            data[:at] + data[at // 2 :],
            b"\xef\xbb\xbf" + data,
            data.decode(errors="replace").encode("utf-16"),
            data.replace(b"\n", b"\r\n"),
            data.replace(b" ", "\u2028".encode()),
            data.replace(b"0", b"9" * 5000),
            data.replace(b"0", b"[" * 900),
            data.replace(b"0", b"NaN"),
            data + data,
            b"",
            b"\n\n",
            b"null",
            b"[" * 100_000,
            rng.randbytes(200),
        ]
    )


def _typed(target: Target, rng: random.Random) -> list[str]:
    if target.key == "folder":
        return [str(_value(rng, target.key))[:3000] for _ in range(rng.choice([1, 1, 2]))]
    lead = ["--"] * 8 + ["-", "--no"]
    flag = rng.choice(lead) + target.key
    if rng.random() < 0.1:
        flag = flag.replace("_", "-")
    if rng.random() < 0.05:
        flag += rng.choice(["x", "é", "k" * 5000, ".0", ".x.y", "[0]"])
    words = [_word(rng, target.key) for _ in range(rng.choice([0, *[1] * 9, 2, 3]))]
    typed = [f"{flag}={words[0]}", *words[1:]] if words and rng.random() < 0.2 else [flag, *words]
    return typed * 2 if rng.random() < 0.05 else typed


def _word(rng: random.Random, key: str) -> str:
    value = _value(rng, key)
    if isinstance(value, str) and rng.random() < 0.8:
        return value
    try:
        return json.dumps(value, ensure_ascii=rng.random() < 0.5)
    except RecursionError:
        return "[" * 900 + "]" * 900


# To run one


def _idle(study: Study) -> Study:
    """A study that makes nothing, for `--dry-run false`."""
    return replace(study, make="operator:not_")


def run_training(words: Sequence[str]) -> None:
    training.app(words)


RUN: dict[str, Callable[[list[str]], int | None]] = {
    **{
        name: lambda words, study=study: carry_out(_idle(study), doc="", default=Path("my.json"), argv=words)
        for name, (study, _) in STUDIES.items()
    },
    "flux": cli.app,
    "training": run_training,
    "schema": schema.main,
}


class Hang(BaseException):
    """No mutant catches it."""


def _alarm(*_: object) -> None:
    raise Hang


def failure(each: Mutant) -> str | None:
    """What is wrong with how a mutant ends, which runs in the working directory; None if nothing is."""
    for name, data in each.files.items():
        if not Path(name).is_file() or Path(name).read_bytes() != data:
            Path(name).write_bytes(data)
    out, err, code = io.StringIO(), io.StringIO(), None
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = RUN[each.command](list(each.words)) or 0
    except SystemExit as end:
        code = end.code or 0
    except Hang:
        return f"hangs: {each}"
    except BaseException:
        return f"traceback: {each}\n{traceback.format_exc()}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
    if code not in (0, 2):
        return f"ends with {code}: {each}"
    if code == 2 and (len(lines) != 1 or not lines[0].strip() or len(lines[0]) > 8000):
        return f"says {len(lines)} lines, {err.getvalue()[:500]!r}: {each}"
    return f"says {lines[:3]} and ends with 0: {each}" if code == 0 and lines else None


@contextlib.contextmanager
def room(folder: Path) -> Iterator[None]:
    """A working directory for mutants, in which nothing is loaded, measured or made."""
    (folder / "pics").mkdir()
    for i in range(2):
        Image.new("RGB", (16, 16), (90 * i, 0, 0)).save(folder / "pics" / f"{i}.png")
    factors = {"img_in.lora_A.weight": torch.ones(1, 64), "img_in.lora_B.weight": torch.ones(192, 1)}
    save_file(factors, folder / "style.safetensors")
    small = torch.zeros(1, 3, 16, 16)

    def no_training(*_: object) -> None:
        raise SystemExit(0)

    stand_ins = [
        (cost, "speed", lambda *_: 1e12),
        (needed, "check_flow", lambda *_: None),  # headers of the shipped weights, each time again
        (needed, "check_ae", lambda *_: None),
        (cli, "load_models", lambda *_, device, **__: cli_models(device)),
        (cli, "load_nsfw_classifier", lambda *_: None),
        (cli, "make_picture", lambda *_, **__: small),
        (cli, "save_image", lambda *args, **_: args[3]),
        (training, "claim", no_training),
    ]
    before, place = [(module, name, getattr(module, name)) for module, name, _ in stand_ins], os.getcwd()
    os.chdir(folder)
    try:
        for module, name, value in stand_ins:
            setattr(module, name, value)
        yield
    finally:
        os.chdir(place)
        for module, name, value in before:
            setattr(module, name, value)


def cli_models(device: str) -> Any:
    """What of loading is checked without weights: the device."""
    from flux.device import pick_device

    pick_device(device)
    return argparse.Namespace(device=torch.device("cpu"), loras=())


def failures(indices: Sequence[int], seed: int = 0) -> Iterator[tuple[int, str]]:
    """Every mutant that ends as none may, with what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder, room(Path(folder)):
        for index in indices:
            if (wrong := failure(mutant(index, seed))) is not None:
                yield index, wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5 * len(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutant")
    asked = parser.parse_args()
    found = 0
    for index, wrong in failures(range(asked.first, asked.first + asked.count), asked.seed):
        found += 1
        print(f"mutant {index}: {wrong}\n", flush=True)
    print(f"{asked.count} mutants of {len(TARGETS)} targets: {found} failures")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
