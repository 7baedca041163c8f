"""Is a weight file whole, and what does it list? A look at its size and header; no tensor is read, and no
torch is needed.

Whatever is wrong is a `CheckpointError`: one line that names the file and the remedy.
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIT_LFS_POINTER = b"version https://git-lfs"
# The largest header the safetensors format allows; a larger number in its place is no header length.
MAX_HEADER = 100_000_000
OTHER_FORMATS = {
    b"GGUF": "a GGUF file, which is quantised",
    b"<": "a web page",
    b"\x89HDF": "an HDF5 file",
    b"\x08\x00\x00\x00ONNX": "an ONNX file",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
}
PICKLES = (b"PK\x03\x04", b"PK\x05\x06", b"\x80")
"""How files of `torch.save` begin, see `flux.formats.pickled`."""

BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8}
BITS |= {f"{kind}{bits}": bits for kind in "IU" for bits in (8, 16, 32, 64)}
BITS |= {"BF16": 16, "F16": 16, "F32": 32, "F64": 64, "C64": 64}
"""Bits of a number of each of the format's types."""


class CheckpointError(ValueError):
    """A weight file cannot be had or used. The message is one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


def read_start(file: Path, length: int) -> tuple[int, bytes]:
    """Size in bytes and the first bytes of a file; CheckpointError for one that is none or cannot be read."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # before it is opened: a pipe would wait for a writer
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise CheckpointError(f"{file} is {kind}: name a weight file")
        with open(file, "rb") as stream:
            return found.st_size, stream.read(length)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing: download it") from error
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}): name a file you may read"
        ) from error


def refuse_pipes(folder: Path) -> None:
    """Raise CheckpointError for a pipe or device in a folder, on which a reader would wait for ever."""
    for file in folder.iterdir():
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise CheckpointError(f"{file} is no regular file: remove it from the folder")


def is_pickle(file: Path) -> bool:
    """Whether a file begins as those of `torch.save` do. Raises CheckpointError as `read_start`."""
    _, start = read_start(file, 9)
    return start.startswith(PICKLES) and start[8:] != b"{"


def read_header(file: Path) -> dict[str, dict]:
    """The tensors a safetensors file lists (key to dtype, shape and data_offsets), after a check of its size.

    Raises CheckpointError for a file that is missing, unreadable, cut short, a git-lfs pointer or another
    format.
    """
    size, start = read_start(file, 8)
    length = int.from_bytes(start, "little")
    text = read_start(file, 8 + min(length, MAX_HEADER))[1][8:]
    if (start + text).startswith(GIT_LFS_POINTER):
        raise pointer_error(file)
    if start[:1] in b" \t\r\n" and (start + text).lstrip().startswith(b"<"):
        raise _format_error(file, OTHER_FORMATS[b"<"])
    for mark, title in OTHER_FORMATS.items():
        if (start + text[:1]).startswith(mark) and not text.startswith(b"{"):
            raise _format_error(file, title)
    if start.startswith(PICKLES) and not text.startswith(b"{"):
        raise _format_error(file, "a PyTorch .pt file")
    if size < 9:
        raise CheckpointError(f"{file} is empty or cut short, {size} bytes: download it again")
    if length > MAX_HEADER or not text.startswith(b"{"):
        raise _not_safetensors(file)
    if len(text) < length:
        raise _size_error(file, size, f"more than {8 + length:,}")
    return _entries(file, text, size)


def read_metadata(file: Path) -> dict[str, str]:
    """What the program that wrote a safetensors file says of it, of a file that `read_header` has read."""
    length = int.from_bytes(read_start(file, 8)[1], "little")
    found = json.loads(read_start(file, 8 + length)[1][8:]).get("__metadata__")
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _format_error(file: Path, title: str) -> CheckpointError:
    return CheckpointError(f"{file} is {title}, not safetensors: download the .safetensors file")


def _not_safetensors(file: Path) -> CheckpointError:
    return CheckpointError(f"{file} is not a safetensors file: download it again")


def _entries(file: Path, text: bytes, size: int) -> dict[str, dict]:
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        spans = sorted(_span(entry) for entry in header.values())
        needed = 8 + len(text) + max((end for _, end in spans), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_safetensors(file) from error
    if size > needed:
        raise CheckpointError(
            f"{file} is damaged, it has {size - needed:,} bytes too many: {size:,} bytes where {needed:,} "
            "are needed; delete it and download it again"
        )
    if size < needed:
        raise _size_error(file, size, f"{needed:,}")
    if any(begin != end for (begin, _), (_, end) in zip(spans, [(0, 0), *spans], strict=False)):
        raise CheckpointError(f"{file} is damaged, its tensors overlap or leave gaps: download it again")
    return header


def _span(entry: Mapping[str, Any]) -> tuple[int, int]:
    """The bytes of a tensor; raises for an entry that does not say what the format asks for."""
    (begin, end), shape, bits = entry["data_offsets"], entry["shape"], BITS[entry["dtype"]]
    if any(type(number) is not int or number < 0 for number in (begin, end, *shape)):
        raise ValueError("not a whole number")
    for side in shape:
        bits *= side
    if bits != 8 * (end - begin):
        raise ValueError("another size than its shape says")
    return begin, end


def _size_error(file: Path, found: int, needed: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is damaged, its download broke off: {found:,} bytes where {needed} are needed; "
        "delete it and download it again"
    )


def is_pointer(file: Path) -> bool:
    """Whether git has put a note of the file in its place."""
    try:
        return read_start(file, len(GIT_LFS_POINTER))[1] == GIT_LFS_POINTER
    except CheckpointError:
        return False


def pointer_error(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} is a git-lfs pointer, not the weights: run `git lfs pull` in the clone, or download the file"
    )
