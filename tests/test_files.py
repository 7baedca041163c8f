"""Files are whole or absent."""

import hashlib
import os
import subprocess
import sys
import time
from itertools import count

import pytest

from flux.files import (
    PARTIAL,
    STALE,
    append,
    cut_bytes,
    read_json_object,
    sha256_of,
    whole_file,
    write_atomically,
    write_new,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_there_alone(tmp_path):
    file = tmp_path / "folder" / "below" / "a.json"
    write_atomically(file, b"old")
    write_atomically(file, lambda stream: stream.write(b"new"))
    assert file.read_bytes() == b"new" and names(file.parent) == ["a.json"]


FAILURES = [OSError(28, "No space left on device"), ValueError("odd"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", FAILURES)
def test_a_write_that_breaks_off_leaves_the_old_file_and_no_other(tmp_path, error):
    def write(stream):
        stream.write(b"half")
        raise error

    for path in (tmp_path / "there", tmp_path / "absent"):
        (tmp_path / "there").write_bytes(b"old")
        with pytest.raises(type(error)) as raised:
            write_atomically(path, write)
        assert raised.value is error
        assert names(tmp_path) == ["there"] and (tmp_path / "there").read_bytes() == b"old"


def test_the_file_appears_at_the_end_under_its_own_name(tmp_path):
    with whole_file(tmp_path / "a.npy") as partial:
        partial.write_bytes(b"new")
        assert names(tmp_path) == [partial.name] == [f"a.npy.{os.getpid()}{PARTIAL}"]
    assert names(tmp_path) == ["a.npy"]
    with pytest.raises(RuntimeError), whole_file(tmp_path / "b.npy"):
        raise RuntimeError("before anything was written")
    assert names(tmp_path) == ["a.npy"]


def test_a_place_that_cannot_be_written_is_the_systems_own_error(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        write_atomically(tmp_path / "folder", b"new")
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "a", b"new")
    assert names(tmp_path) == ["file", "folder"]


def test_durable_files_are_on_the_disk_before_they_are_renamed(tmp_path, monkeypatch):
    synced = []

    def sync(descriptor):
        assert not (tmp_path / "a").exists()
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(tmp_path / "a", b"123", durable=True)
    assert synced == [3] and (tmp_path / "a").read_bytes() == b"123"
    write_atomically(tmp_path / "b", b"123")
    assert synced == [3]


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "b")


@pytest.mark.parametrize("text", ["[1]", "null", '{"a": 1', "\udcff"])
def test_what_is_no_json_object_is_none(tmp_path, text):
    file = tmp_path / "a.json"
    assert read_json_object(file) is None and read_json_object(tmp_path) is None
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert read_json_object(file) is None
    file.write_text('{"a": 1}')
    assert read_json_object(file) == {"a": 1}


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_kills_have_left_of_a_file_goes_when_it_is_next_written(tmp_path):
    """As in the caches of features and of the training."""
    dead, old = dead_process(), time.time() - 2 * STALE
    left = [
        f"a.npz.{dead}.partial",
        f"b.npz.{dead}.partial",
        f"a.npz.{os.getppid()}.partial",
        "a.npz.x.partial",
    ]
    for name in left:
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (old, old))
    (tmp_path / "a.npz.1.partial").write_text("young: perhaps of another machine, which counts differently")
    write_atomically(tmp_path / "a.npz", b"whole")
    assert names(tmp_path) == sorted(["a.npz", "a.npz.1.partial", *left[1:]])
    with whole_file(tmp_path / "b.npz") as partial:
        partial.write_bytes(b"whole")
    assert names(tmp_path) == sorted(["a.npz", "b.npz", "a.npz.1.partial", *left[2:]])


def test_a_name_that_fills_its_255_bytes_can_be_written(tmp_path):
    for name in ("é" * 125 + ".jpg", "é" * 125 + ".png"):
        write_atomically(tmp_path / name, b"whole")
    assert len(names(tmp_path)) == 2


def test_new_files_never_replace_others(tmp_path):
    (tmp_path / "img_1.jpg").write_text("mine")
    (tmp_path / "img_2.jpg").mkdir()
    (tmp_path / "img_3.jpg").symlink_to(tmp_path / "nowhere")
    written = write_new((tmp_path / f"img_{number}.jpg" for number in count(1)), b"new")
    assert written == tmp_path / "img_4.jpg" and written.read_bytes() == b"new"
    assert (tmp_path / "img_1.jpg").read_text() == "mine" and len(names(tmp_path)) == 4
    with pytest.raises(FileExistsError):
        write_new([tmp_path / "img_1.jpg"], b"new")
    assert len(names(tmp_path)) == 4


def test_new_files_without_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_new_files_never_replace_others(tmp_path)


def test_many_who_write_new_files_at_once_lose_none(tmp_path):
    code = (
        "import sys\nfrom itertools import count\nfrom pathlib import Path\n"
        "from flux.files import write_new\n"
        "for _ in range(8): write_new((Path(sys.argv[1]) / str(n) for n in count()), sys.argv[2].encode())"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(i)]) for i in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    found = [path.read_bytes() for path in tmp_path.iterdir()]
    assert sorted(found) == sorted(b"%d" % i for i in range(4) for _ in range(8))


def test_lines_are_added_whole(tmp_path):
    file = tmp_path / "below" / "a.csv"
    append(file, b"1\n", start=b"head\n")
    append(file, b"2\n3\n", start=b"head\n")
    assert file.read_bytes() == b"head\n1\n2\n3\n"
    file.write_bytes(b"head\n1\n2,tor")
    append(file, b"4\n", start=b"head\n")
    assert file.read_bytes() == b"head\n1\n4\n"
    file.write_bytes(b"hea")
    append(file, b"5\n", start=b"head\n")
    assert file.read_bytes() == b"head\n5\n"


@pytest.mark.parametrize(
    "text, most, short",
    [
        ("plain", 9, "plain"),
        ("é" * 200, 101, "é" * 50),
        ("two\nlines\t\x00\x7f", 99, "two lines   "),
        ("no \udcff text", 99, "no ? text"),
        ("", 9, ""),
    ],
)
def test_texts_are_cut_by_bytes(text, most, short):
    assert cut_bytes(text, most) == short and len(cut_bytes(text, most).encode()) <= most
