"""Files are whole or absent."""

import hashlib
import os

import pytest

from flux.files import PARTIAL, read_json_object, sha256_of, whole_file, write_atomically


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
