"""Where the files may lie that a spec names: anywhere; of a spec that others sent, in few folders."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_FOLDERS: ContextVar[tuple[Path, ...] | None] = ContextVar("folders", default=None)


@contextmanager
def confined(folders: Sequence[Path]) -> Iterator[None]:
    """Within, specs name files of these folders alone, and texts in the place of prompts name none."""
    token = _FOLDERS.set(tuple(folder.resolve() for folder in folders))
    try:
        yield
    finally:
        _FOLDERS.reset(token)


def is_confined() -> bool:
    return _FOLDERS.get() is not None


def require_within(path: Path) -> None:
    """Raise ValueError, in words to stand behind the path, for one outside, links followed. Opens nothing."""
    folders = _FOLDERS.get()
    if folders is None:
        return
    resolved = path.resolve()
    if not any(resolved.is_relative_to(folder) for folder in folders):
        raise ValueError("lies outside the folders of uploads and runs, the only ones that are opened here")
