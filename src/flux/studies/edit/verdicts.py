"""How edits came out: figures against their source, what went wrong, and what to try.

An edit lost its source when things do not stand where they stood (`flux.pictures.loss`). Pictures alone
cannot tell a thing that was to go from one that got lost; where a model has a judge that understands the
prompts, it decides, and says what is wrong.

Of 216 edits by flux-tiny outside those that chose the threshold, 51 lost something: pictures alone miss 16
of them and blame 23 of the other 165 (`benchmarks/verdicts.py`). To ask whether an edit is closer to its
source than the picture without injection missed 32, and blamed 30.
"""

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from flux.device import pick_device
from flux.hooks import AboveThreshold, TopRatio
from flux.hooks.looking import ByLayer
from flux.methods.stable_flow import Edit, EditRequest, Row
from flux.pictures.metrics import Dino, Score, changed_share, did_nothing, difference, lost_source, score
from flux.studies.edit.figures import figures_of
from flux.studies.edit.requests import file_of, items_of, mask_of, requests
from flux.studies.edit.spec import EditSpec
from flux.studies.folder import RunFolder
from flux.studies.pages.sheets import difference_map
from flux.studies.run import dino_source, weights_folder

Seen = tuple[list[str], list[str]] | None
"""What a judge says of an edit: what got lost, and what was asked for in vain. None: it cannot tell."""
Judge = Callable[[tuple[str, str], tuple[Image.Image, Image.Image]], Seen]
"""The prompts and the pictures of a source and of an edit to what it sees."""


@dataclass(frozen=True)
class Verdict:
    """One edit of one seed: the files of its pictures, its figures, and what went wrong, in words.

    figures: what its file says of it, if it may be pasted: `mask`, the share that it changed, `pasted`, and a
    `note` in words.
    """

    number: int
    seed: int
    edit: Edit
    files: dict[str, str]
    score: Score
    notices: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def note(self) -> str | None:
        """What its figures say of it in words."""
        return self.figures.get("note")

    @property
    def title(self) -> str:
        """The name of the edit's file without its ending, such as `edit-02-seed-7`."""
        return self.files["edit"].removesuffix(".png")

    def record(self) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "edit": self.number,
            "seed": self.seed,
            "prompt": self.edit.prompt,
            "layers": list(self.edit.layers),
            "files": self.files,
            **self.figures,
            **asdict(self.score),
            "notices": list(self.notices),
        }


@dataclass(frozen=True)
class Verdicts:
    """What is said of all edits of a run.

    floor: the noise floor, as a share of pixels. dino: what measured similarity. unchecked: what was not
    measured and why, in a line; None where all was that was asked for.
    """

    floor: float
    dino: str | None
    unchecked: str | None
    edits: list[Verdict]


def judge(spec: EditSpec, run: RunFolder) -> Verdicts:
    """Compare every edit with its source, and write the difference maps."""
    asked = requests(spec)
    floor = noise_floor(spec, run, asked[0].seed)
    dino, no_dino = load_dino(spec)
    sees, no_judge = load_judge(spec)
    edits = [each for request in asked for each in _judge(spec, run, request, floor, dino, sees)]
    unchecked = "; ".join(line for line in (no_dino, no_judge) if line) or None
    return Verdicts(floor, dino.source if dino else None, unchecked, edits)


def noise_floor(spec: EditSpec, run: RunFolder, seed: int) -> float:
    """The share of pixels that change when the source is made again in other company."""
    source, again = (run.picture(file_of(spec, seed, Row(kind))) for kind in ("source", "repeat"))
    return changed_share(source, again, spec.checks.pixel)


def load_dino(spec: EditSpec) -> tuple[Dino | None, str | None]:
    """The DINO model that the spec's checks want; where it cannot be had, None and a line that says so."""
    if spec.checks.dino == "off":
        return None, None
    source = dino_source(spec, spec.checks.dino)
    try:
        return Dino(source, pick_device(spec.model.device)), None
    except (OSError, ValueError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return (
            None,
            f"similarities to the source were not measured: DINO model {source} not loaded ({reason})",
        )


def load_judge(spec: EditSpec) -> tuple[Judge | None, str | None]:
    """The model's judge; None where there is none, and where it cannot be used a line that says so."""
    name, folder = spec.model.record.edit_judge, weights_folder(spec)
    if name is None or folder is None:
        return None, None
    try:
        return pkgutil.resolve_name(name)(folder), None
    except FileNotFoundError:  # weights of one's own come without it
        return None, None
    except (OSError, ValueError) as error:
        return None, f"edits were not judged by their prompts: {error}"


def _judge(
    spec: EditSpec,
    run: RunFolder,
    request: EditRequest,
    floor: float,
    dino: Dino | None,
    sees: Judge | None,
) -> Iterator[Verdict]:
    """Compare the edits of one seed with their source, and write their difference maps."""
    source = run.picture(file_of(spec, request.seed, Row("source")))
    numbers = [number for number, _ in items_of(spec, request.seed)]
    for i, edit in enumerate(request.edits):
        rows = [Row("source"), Row("edit", i), *([Row("plain", i)] if spec.compare else [])]
        files = {row.kind: file_of(spec, request.seed, row) for row in rows}
        if mask := mask_of(spec, request.seed, rows[1]):
            files["mask"] = mask
        files["difference"] = files["edit"].replace("edit-", "difference-")
        picture = run.picture(files["edit"])
        plain = run.picture(files["plain"]) if spec.compare else None
        figures = score(source, picture, plain, dino=dino, pixel=spec.checks.pixel)
        run.save_picture(files["difference"], difference_map(difference(source, picture)))
        seen = sees((request.source, edit.prompt), (source, picture)) if sees else None
        notices = tuple(what_went_wrong(spec, edit, figures, floor, seen))
        own = figures_of(run, files["edit"])
        yield Verdict(numbers[i], request.seed, edit, files, figures, notices, own)


def what_went_wrong(
    spec: EditSpec, edit: Edit, figures: Score, floor: float, seen: Seen = None
) -> Iterator[str]:
    """In words, with what to try: if the edit did nothing, lost the source, or lacks what was asked for.

    seen: what a judge says of it. Nothing is said of an edit that worked.
    """
    if did_nothing(figures, floor, spec.checks.did_nothing):
        limit = max(floor, spec.checks.did_nothing)
        said = f"did nothing: {figures.changed:.2%} of pixels changed, up to {limit:.2%} counts as nothing. "
        if figures.plain_changed is not None and figures.plain_changed <= limit:
            yield said + "Without injection its prompt changes nothing either. Try another prompt."
        else:
            yield said + f"Try {either(_to_free(spec, edit))}."
        return
    lost, unmet = seen or (_lost_by_pictures(spec, figures), [])
    if lost and unmet:  # what binds an edit and what frees it would undo each other
        yield f"lost the source: {'; '.join(lost)}; and {'; '.join(unmet)}. Try {either(_to_redo())}."
    elif lost:
        yield f"lost the source: {'; '.join(lost)}. Try {either(_to_bind(spec, edit))}."
    elif unmet:
        yield f"did not make all that was asked for: {'; '.join(unmet)}. Try {either(_to_free(spec, edit))}."


def share(loss: float) -> str:
    """How much is lost, in words; 1 is all, and more of what is foreign loses no more."""
    return f"{min(loss, 1):.0%}"


def _lost_by_pictures(spec: EditSpec, figures: Score) -> list[str]:
    limit = spec.checks.lost_source
    if not lost_source(figures, limit):
        return []
    return [f"{share(figures.loss)} of it, above {limit:.0%} counts as lost"]


def _to_free(spec: EditSpec, edit: Edit) -> Iterator[str]:
    """What gives an edit more room."""
    how = edit.how
    if edit.mask is not None:
        yield "a larger mask, or none"
    if len(edit.layers) > 1:
        yield f"fewer layers than {len(edit.layers)}"
    if isinstance(how, ByLayer):
        yield from _to_redo()
        return
    if how.strength > 0.5:
        yield f"a strength below {how.strength:g}"
    if spec.steps > 1:
        yield f"a window that ends sooner, such as [0, {max(1, (how.steps or (0, spec.steps))[1] // 2)}]"
    yield from _to_redo()


def _to_redo() -> Iterator[str]:
    """What makes it another edit."""
    yield "a source prompt that names what is to change"
    yield "another seed"


def _to_bind(spec: EditSpec, edit: Edit) -> Iterator[str]:
    """What keeps an edit closer to its source."""
    how = edit.how
    if len(edit.layers) < len(spec.model.record.layers):
        yield f"more layers than {len(edit.layers)}"
    if isinstance(how, ByLayer):
        yield "a prompt closer to the source's"
        return
    if how.strength < 1:
        yield "strength 1"
    if how.steps and how.steps != (0, spec.steps):
        yield "no step window"
    if isinstance(how.select, TopRatio) and how.select.ratio < 1:
        yield f"a ratio above {how.select.ratio:g}"
    if isinstance(how.select, AboveThreshold) and how.select.threshold > 0:
        yield f"a threshold below {how.select.threshold:g}"
    if not (how.keys and how.values):
        yield "to copy keys and values both"
    yield "a prompt closer to the source's"


def either(ways: Iterator[str]) -> str:
    *others, last = ways
    return f"{', '.join(others)}, or {last}" if others else last
