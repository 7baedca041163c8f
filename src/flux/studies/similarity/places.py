"""The pictures that files and folders hold, and which model drew them. Imports no torch.

The folder of a run says itself what is in it: its record names the model, and a picture that a model drew
carries its prompt, which sheets, plots and maps made of pictures do not.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from flux.files import read_json_object
from flux.models import configs
from flux.pictures.opening import PictureError, endings, open_picture
from flux.studies.folder import RECORD

DEEPEST = 3
"""A picture lies in its run's folder or so many folders below it, at most."""


def pictures_in(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The readable pictures in files and folders, each once, and a line for what is left out.

    Raises ValueError, one line, where none is left.
    """
    found: dict[Path, None] = {}
    problems: list[str] = []
    for place in places:
        files, lines = _files_of(place)
        problems += lines
        for file in files:
            if (reason := unreadable(file)) is None:
                found[file] = None
            else:
                problems.append(f"{printable(file)}: cannot be read as a picture and is left out: {reason}")
    if not found:
        where = ", ".join(map(printable, places))
        raise ValueError(problems[0] if len(problems) == 1 else f"no picture that can be read in {where}")
    return list(found), problems


def unreadable(file: Path) -> str | None:
    """Why a picture cannot be read to its end; None where it can."""
    try:
        open_picture(file)
    except PictureError as error:
        return error.reason
    return None


def drawn_by(pictures: Iterable[Path]) -> dict[Path, Mapping[str, Any] | None]:
    """The model that drew each picture, as the record of its run's folder has it; None for other pictures.

    A picture of another size than the run's is not one of the run, but was put there, or shows others.
    """
    pictures = list(pictures)
    specs = {folder: _spec_above(folder) for folder in {picture.parent for picture in pictures}}

    def model(picture: Path) -> Mapping[str, Any] | None:
        spec = specs[picture.parent]
        fits = spec is not None and size_of(picture) == (spec.get("width"), spec.get("height"))
        return spec["model"] if fits else None

    return {picture: model(picture) for picture in pictures}


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height as stored. Raises what Pillow raises where the file is no picture."""
    with Image.open(picture) as image:
        return image.size


def _spec_above(folder: Path) -> Mapping[str, Any] | None:
    places = (folder, *folder.parents[:DEEPEST])
    return next((spec for place in places if (spec := spec_of_run(place)) is not None), None)


def spec_of_run(folder: Path) -> Mapping[str, Any] | None:
    """The spec of the run in a folder; None where there is none, or its spec names no model that draws."""
    spec = (read_json_object(folder / RECORD) or {}).get("spec")
    model = spec.get("model") if isinstance(spec, dict) else None
    drawn = isinstance(model, dict) and model.get("name") in configs
    return spec if drawn else None


def printable(path: Path) -> str:
    """A path as it can be printed: a name may hold line breaks."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(path))


def _files_of(place: Path) -> tuple[list[Path], list[str]]:
    """The files that are meant, and lines for the others; hidden ones are neither."""
    if not place.is_dir():
        return [place], []
    if (spec := spec_of_run(place)) is not None and (drawn := list(_drawn_in(place))):
        others = [str(file.relative_to(place)) for file in _below(place) if _is_picture(file)]
        others = [name for name in others if place / name not in drawn]
        said = f"{printable(place)}: a run with {spec['model']['name']}, which drew {len(drawn)} pictures"
        return drawn, [said, *_left_out(place, "as the model did not draw them", others)]
    entries = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if entry.is_file()]
    others = [file.name for file in files if not _is_picture(file)]
    return [file for file in files if _is_picture(file)], [
        *_left_out(place, "as they are no pictures", others),
        *_left_out(place, "sub-folders, to be named themselves", folders),
    ]


def _left_out(place: Path, why: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"{printable(place)}: left out, {why}: {', '.join(printable(Path(n)) for n in names[:3])}{more}"


def _drawn_in(run: Path) -> Iterator[Path]:
    """The pictures of a run that its model drew, in the order of their names."""
    for file in _below(run):
        if file.suffix == ".png":
            try:
                with Image.open(file, formats=("PNG",)) as image:
                    drawn = "prompt" in image.info
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                drawn = True  # to be named as one that cannot be read
            if drawn:
                yield file


def _below(folder: Path) -> list[Path]:
    """The files in a folder and below, without hidden ones."""
    files = sorted(folder.rglob("*"))
    hidden = [any(part.startswith(".") for part in file.relative_to(folder).parts) for file in files]
    return [file for file, left in zip(files, hidden, strict=True) if not left and file.is_file()]


def _is_picture(file: Path) -> bool:
    """By its name."""
    return file.suffix.lower() in endings()
