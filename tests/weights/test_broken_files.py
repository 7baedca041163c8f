"""Broken and foreign weight files over all parts: one line and no more, or the very weights.

    python tests/weights/test_broken_files.py --count 2000      more of them than the test makes

Each is made from a good file by a seed. A load must raise CheckpointError, in one line, or give what the good
file holds (a flipped byte may stand where nobody looks); it must not hang, and nothing of a file is run.
"""

import argparse
import io
import json
import os
import pickle
import random
import signal
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
import torch
from helpers_layouts import ENCODERS, holds, load, make_small, place, save_as_they_are, shrink

from flux.formats.header import CheckpointError

PARTS = ("flow", "autoencoder", "T5", "CLIP", "DINO", "LoRA")
COUNT, PATIENCE = 120, 120  # files, and seconds for each, on a machine that others use too

Breaking = Callable[[bytes, random.Random], bytes]


class Code:
    def __reduce__(self):
        return os.system, ("touch ran",)


def header_of(good: bytes) -> dict:
    return json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])


def with_header(good: bytes, header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = good[8 + int.from_bytes(good[:8], "little") :]
    return len(text).to_bytes(8, "little") + text + data


def with_entry(good: bytes, rng: random.Random, **values: object) -> bytes:
    header = header_of(good)
    key = rng.choice([key for key in header if key != "__metadata__"])
    return with_header(good, header | {key: header[key] | values})


def flipped(good: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(8 + int.from_bytes(good[:8], "little"))
    return good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :]


def moved(good: bytes, rng: random.Random) -> bytes:
    header = header_of(good)
    key = rng.choice([key for key in header if key != "__metadata__"])
    return with_header(good, {"elsewhere" if name == key else name: x for name, x in header.items()})


def in_zip(kind: int, content: bytes = b"\x80\x02}q\x00.", name: str = "archive/data.pkl") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        archive.writestr(name, content)
        archive.writestr("archive/version", b"3")
    return stream.getvalue()


def saved(value: object, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


BYTES: dict[str, Breaking] = {
    "truncated": lambda good, rng: good[: rng.randrange(len(good))],
    "longer": lambda good, rng: good + bytes(rng.randrange(1, 99)),
    "a bit of the header": flipped,
    "huge header": lambda good, rng: rng.randrange(2**31, 2**63).to_bytes(8, "little") + good[8:],
    "header length off": lambda good, rng: (
        (int.from_bytes(good[:8], "little") + rng.choice((-9, -1, 1, 8))).to_bytes(8, "little") + good[8:]
    ),
    "another dtype": lambda good, rng: with_entry(
        good, rng, dtype=rng.choice(["I32", "U32", "F64", "F4", "X9", "", None, "BOOL", "F8_E8M0"])
    ),
    "another shape": lambda good, rng: with_entry(
        good, rng, shape=rng.choice([[-1], [2.5], ["8"], [10**30], None, 7, [[]], [True], {}, [2**31, 2**31]])
    ),
    "other offsets": lambda good, rng: with_entry(
        good, rng, data_offsets=rng.choice([[0, 4], [-4, 0], [4, 0], [0], None, "ab", [0, 2**62], [0.0, 4.0]])
    ),
    "another key": moved,
    "an odd key": lambda good, rng: with_header(
        good, header_of(good) | {rng.choice(["\ud800", "\x1b[31m", "k" * 9000, "a\nb", ""]): 1}
    ),
    "a header of JSON that is none": lambda good, rng: with_header(
        good,
        rng.choice(
            [b"{" * 2000, b"[]", b"null", b'{"a":' * 900, b'{"a": ' + b"9" * 6000 + b"}", b"{\xff}", b"{}"]
        ),
    ),
    "noise": lambda good, rng: rng.randbytes(rng.randrange(1, 4000)),
    "nothing": lambda good, rng: b"",
    "zeros": lambda good, rng: bytes(rng.randrange(1, 4000)),
    "a web page": lambda good, rng: b"<!DOCTYPE html><title>503</title>",
    "a pointer": lambda good, rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "another format": lambda good, rng: (
        rng.choice([b"GGUF", b"\x89PNG", b"\x89HDF", b"%PDF", b"\x1f\x8b", b"7z\xbc\xaf", b"BM", b"{}"])
        + good[4:]
    ),
    "code": lambda good, rng: saved({"w": torch.ones(2), "c": Code()}),
    "old code": lambda good, rng: saved({"c": Code()}, _use_new_zipfile_serialization=False),
    "a plain pickle of code": lambda good, rng: pickle.dumps(Code(), protocol=rng.choice((0, 2, 4, 5))),
    "a pickle of other things": lambda good, rng: saved(
        rng.choice([[1, 2], "text", {}, {"a": 1}, {1: torch.ones(2)}, {"state_dict": {}}, torch.ones(3)])
    ),
    "a pickle cut short": lambda good, rng: (lambda b: b[: rng.randrange(4, len(b))])(
        saved({"w": torch.ones(99)})
    ),
    "a bomb": lambda good, rng: in_zip(zipfile.ZIP_DEFLATED, bytes(50_000_000)),
    "another archive": lambda good, rng: in_zip(zipfile.ZIP_STORED, name="readme.txt"),
    "an archive of nonsense": lambda good, rng: in_zip(zipfile.ZIP_STORED, rng.randbytes(200)),
    "a recursion of pickles": lambda good, rng: in_zip(zipfile.ZIP_STORED, b"\x80\x02" + b"]" * 5000 + b"."),
}
"""What becomes of the bytes of a good file."""

Placing = Callable[[Path, Path, random.Random], None]


def written(text: object) -> Callable[[Path], None]:
    return lambda file: file.write_text(text if isinstance(text, str) else json.dumps(text))


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def link(target: str) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return make


FILES: dict[str, Callable[[Path], None]] = {
    "a pipe": pipe,
    "a folder": folder,
    "a link to nowhere": link("nowhere"),
    "a link to itself": link("model.safetensors"),
    "a device": link("/dev/zero"),
    "an index of nothing": lambda file: index(file, {"weight_map": {}}),
    "an index of lost shards": lambda file: index(file, {"weight_map": {"a": "b.safetensors"}}),
    "an index that leads out": lambda file: index(file, {"weight_map": {"a": "../../etc", "b": "/dev/zero"}}),
    "an index of other things": lambda file: index(file, {"weight_map": {"a": 5, "b": ["c"]}}),
}
"""What becomes of the file itself."""


def index(file: Path, content: object) -> None:
    file.with_name("model.safetensors.index.json").write_text(json.dumps(content))
    file.unlink()


BESIDE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "no config": ("config.json", Path.unlink),
    "an empty config": ("config.json", written({})),
    "a config of JSON that is none": ("config.json", written("{" * 3000)),
    "a web page as config": ("config.json", written("<html>")),
    "a list as config": ("config.json", written([])),
    "a pipe as config": ("config.json", pipe),
    "another architecture": ("config.json", lambda file: change(file, model_type="bert")),
    "a deeper config": ("config.json", lambda file: change(file, num_layers=7, num_hidden_layers=7)),
    "a huge config": ("config.json", lambda file: change(file, num_layers=10**9, num_hidden_layers=10**9)),
    "a config of words": ("config.json", lambda file: change(file, d_ff="wide", intermediate_size="wide")),
    "a quantised config": (
        "config.json",
        lambda file: change(file, quantization_config={"quant_method": "gptq"}),
    ),
    "an empty tokenizer": ("tokenizer.json", written({})),
    "a web page as tokenizer": ("tokenizer.json", written("<html>")),
    "a tokenizer of nonsense": ("tokenizer.json", written({"model": {"type": "BPE"}, "version": "1.0"})),
    "a pipe as tokenizer": ("tokenizer.json", pipe),
    "a pipe as processor": ("preprocessor_config.json", pipe),
    "no tokenizer": ("tokenizer.json", Path.unlink),
    "a pointer as tokenizer": ("tokenizer.json", written("version https://git-lfs.github.com/spec/v1\n")),
    "a web page as processor": ("preprocessor_config.json", written("<html>")),
    "an empty processor": ("preprocessor_config.json", written([])),
}
"""What becomes of a file beside the weights of an encoder or of DINO."""


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def cases(count: int, seed: int = 0) -> Iterator[tuple[str, str, int]]:
    """Part, kind and seed of each file; every kind comes once for every part before one comes again."""
    rng, round_ = random.Random(seed), 0
    while count > 0:
        kinds = [(part, kind) for part in PARTS for kind in (*BYTES, *FILES)]
        kinds += [
            (p, kind) for p in (*ENCODERS, "DINO") for kind, (name, _) in BESIDE.items() if fits(p, name)
        ]
        rng.shuffle(kinds)
        for part, kind in kinds[:count]:
            yield part, kind, seed + round_
        count, round_ = count - len(kinds), round_ + 1


def fits(part: str, name: str) -> bool:
    return name == "config.json" or name.startswith("tokenizer") == (part in ENCODERS)


def broken(part: str, kind: str, seed: int, where: Path, small) -> Path:
    """What a user would name, broken."""
    rng = random.Random(f"{part} {kind} {seed}")

    def save(file: Path, state) -> Path:
        save_as_they_are(file, state)
        if kind in BYTES:
            file.write_bytes(BYTES[kind](file.read_bytes(), rng))
        return file

    path = place(part, small.states[part], where, small, "model.safetensors", save)
    if kind in FILES:
        FILES[kind](where / "model.safetensors")
        if part not in (*ENCODERS, "DINO") and "index" in kind:
            return where / "model.safetensors.index.json"
    if kind in BESIDE:
        name, spoil = BESIDE[kind]
        spoil(where / name)
    return path


class Hang(BaseException):
    """Not an Exception, which a loader may turn into a refusal."""


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    def ring(*_):
        raise Hang(f"it hangs: {seconds} s")

    old = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def verdict(part: str, kind: str, seed: int, where: Path, small, monkeypatch) -> str:
    """`refused` or `the same`; AssertionError for all else."""
    path = broken(part, kind, seed, where / "made", small)
    try:
        with patience(PATIENCE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = load(part, path, small, monkeypatch, where)
    except CheckpointError as error:
        message = str(error)
        assert len(message.splitlines()) == 1 and 20 < len(message) < 2500, (part, kind, seed, message)
        message.encode()  # may be printed
        result = "refused"
    else:
        assert holds(state, small.states[part]), (part, kind, seed, "other weights than the file's")
        result = "the same"
    assert not Path("ran").exists(), (part, kind, seed, "its code was run")
    return result


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("small"))


def count_verdicts(count: int, seed: int, where: Path, small, monkeypatch) -> Counter:
    found, failed = Counter(), []
    for i, (part, kind, each) in enumerate(cases(count, seed)):
        try:
            found[verdict(part, kind, each, where / str(i), small, monkeypatch)] += 1
        except (Exception, Hang) as error:
            failed.append(f"{part}, {kind}, seed {each}: {type(error).__name__}: {str(error)[:300]}")
    assert not failed, "\n".join(failed)
    return found


def test_broken_and_foreign_files(small, tmp_path, monkeypatch):
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)
    found = count_verdicts(COUNT, 0, tmp_path, small, monkeypatch)
    assert found.total() == COUNT and found["refused"] > 0.9 * COUNT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
        monkeypatch.chdir(folder)
        shrink(monkeypatch)
        small = make_small(Path(folder) / "small")
        print(dict(count_verdicts(options.count, options.seed, Path(folder), small, monkeypatch)))


if __name__ == "__main__":
    main()
